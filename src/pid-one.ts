import { existsSync } from 'node:fs'

const SHELL = '/bin/sh'

/**
 * Orphans are given to process 1, which has to ask how they ended. Node asks for its own children only, a shell that waits asks
 * for all. What a terminal sends, everybody in its foreground hears; other signals are passed on.
 */
const SCRIPT = `
exec 3<&0
"$@" <&3 3<&- &
gateway=$!
exec <&- 3<&-
trap 'kill -s TERM "$gateway"' TERM
if [ -t 1 ]; then trap : INT HUP; else trap 'kill -s INT "$gateway"' INT; trap 'kill -s HUP "$gateway"' HUP; fi
while kill -s 0 "$gateway" 2>/dev/null; do wait "$gateway"; status=$?; done
exit "$status"
`

/** As process 1 of a container this program becomes a shell that runs it again as its child; anywhere else nothing happens. */
export function standInForInit(): void {
  if (process.pid !== 1) return
  const { execve } = process as { execve?: (file: string, args: readonly string[]) => never } // Node >= 22.15
  if (!execve || !existsSync(SHELL)) {
    process.stderr.write('As process 1 this leaves zombies: run the container with --init.\n')
    return
  }
  execve(SHELL, ['sh', '-c', SCRIPT, 'sh', process.execPath, ...process.execArgv, ...process.argv.slice(1)])
}
