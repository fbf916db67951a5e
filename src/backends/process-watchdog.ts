import { spawn } from 'node:child_process'
import type { Socket } from 'node:net'

/** Ends the groups it watches when this process is gone, however that came about. */
export interface Watchdog {
  readonly isAlive: boolean
  watch(group: number): void
  forget(group: number): void
  /** Lets it go home. It does so by itself when nothing is left to watch and this process ends. */
  dismiss(): void
}

/**
 * A shell, for it costs a megabyte where Node costs forty. It reads `+ GROUP` and `- GROUP`, and the end of its stdin means that
 * the gateway is gone. A group whose leader has another start time than it had (field 22 of proc(5) stat) is somebody else's;
 * one without a leader keeps its number as long as it has members, and counts as gone for good once it has none.
 */
const SCRIPT = `
trap '' HUP INT QUIT TERM
born() {
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return 0
  set -- \${stat##*) }
  shift 19
  echo "$1"
}
keep() {
  watched=$groups groups=
  for entry in $watched; do
    if "$@" "\${entry%:*}" "\${entry#*:}"; then groups="$groups $entry"; fi
  done
}
differs() { [ "$2" != "$1" ]; }
lives() {
  now=$(born "$1")
  [ "\${now:-$2}" = "$2" ] && kill -0 "-$1"
}
groups=
while read -r sign group; do
  keep differs "$group"
  if [ "$sign" = + ]; then groups="$groups $group:$(born "$group")"; fi
done
for signal in TERM KILL; do
  keep lives
  for entry in $groups; do kill "-$signal" "-\${entry%:*}"; done
  for moment in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    [ -n "$groups" ] || exit 0
    sleep 0.1 || sleep 1
    keep lives
  done
done
`

const UNNEEDED: Watchdog = { isAlive: true, watch() {}, forget() {}, dismiss() {} }

export function startWatchdog(): Watchdog {
  // There libuv has a job object end our children with us, and the pipes of theirs end with them.
  if (process.platform === 'win32') return UNNEEDED
  const shell = spawn('/bin/sh', ['-c', SCRIPT, 'agent-mcp-gateway-watchdog'], {
    cwd: '/',
    env: { PATH: process.env.PATH ?? '/usr/bin:/bin' },
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true, // Ctrl-C in the terminal is for the gateway, not for it
  })
  // Without a shell, or once somebody has killed it, there is no watchdog; the record on disk is left.
  shell.on('error', () => {})
  shell.stdin.on('error', () => {})
  shell.unref()
  ;(shell.stdin as Socket).unref()
  return {
    get isAlive() {
      return shell.pid !== undefined && shell.exitCode === null && shell.signalCode === null && shell.stdin.writable
    },
    watch: group => void shell.stdin.write(`+ ${group}\n`),
    forget: group => void shell.stdin.write(`- ${group}\n`),
    dismiss: () => void shell.stdin.end(),
  }
}
