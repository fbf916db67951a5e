import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { setImmediate as nextTurn } from 'node:timers/promises'
import spawn from 'cross-spawn'
import type { StdioServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { ownGroups, signalGroup } from './process-groups.js'

const STDERR_TAIL_LINES = 20
// Long enough to take a secret out whole before a line is shortened for a reader.
const STDERR_LINE_LENGTH = 8_000
// How long a server may take for each rung of the ladder: stdin closed, SIGTERM, SIGKILL.
const GRACE_MS = 1_500
const LAST_WORDS_MS = 100

const INHERITED =
  process.platform === 'win32'
    ? [
        'APPDATA',
        'COMSPEC',
        'HOMEDRIVE',
        'HOMEPATH',
        'LOCALAPPDATA',
        'PATH',
        'PATHEXT',
        'PROGRAMDATA',
        'PROGRAMFILES',
        'SYSTEMDRIVE',
        'SYSTEMROOT',
        'TEMP',
        'TMP',
        'USERPROFILE',
        'WINDIR',
      ]
    : [
        'PATH',
        'HOME',
        'LANG',
        'LANGUAGE',
        'LC_ALL',
        'LC_CTYPE',
        'LC_MESSAGES',
        'LC_COLLATE',
        'LC_NUMERIC',
        'LC_TIME',
        'TZ',
        'TMPDIR',
        'TMP',
        'TEMP',
      ]

/** What a child may see: path, home, locale, temp, what the server's entry names, and nothing else of ours. */
export function childEnvironment(
  { env, inheritEnv }: Pick<StdioServerConfig, 'env' | 'inheritEnv'>,
  own: Env,
): Record<string, string> {
  const inherited = [...INHERITED, ...inheritEnv].flatMap(name => {
    const value = own[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return { ...Object.fromEntries(inherited), ...env }
}

/** A server's process and everything it started, as one thing that can be ended. */
export interface ServerProcess {
  readonly child: ChildProcess
  /** Resolves when the process is gone, with how it went. */
  readonly exited: Promise<string>
  /** The last lines it wrote to stderr, shortened. */
  stderrTail(): string[]
  /** Ends the whole tree: stdin closed, then SIGTERM, then SIGKILL, each after a grace period. */
  stop(): Promise<void>
}

/** Starts a server in a process group of its own. Rejects when the command cannot be started. */
export async function startServerProcess(config: StdioServerConfig, own: Env): Promise<ServerProcess> {
  const child = spawn(config.command, [...config.args], {
    cwd: config.cwd,
    env: childEnvironment(config, own),
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: process.platform !== 'win32', // its own group, so that one signal reaches npx, the shell and the server
    windowsHide: true,
  })
  const { pid } = child
  if (pid !== undefined) ownGroups.add({ pid, server: config.name, command: config.command })
  const tail = keepTail(child)
  const exited = new Promise<string>(resolve => {
    child.once('exit', async (code, signal) => {
      // Node closes the stdin of a child that has ended: whoever has inherited it cannot be spoken to.
      const isBackground = code === 0 && pid !== undefined && signalGroup(pid, 0)
      const how = signal === null ? `exited with status ${code}` : `was ended by ${signal}`
      // Time alone is not enough when this process had none: what is in the pipes is read after the timers.
      if (!(await within(hungUp(child), LAST_WORDS_MS))) await nextTurn()
      resolve(isBackground ? `${how} and left others running, but a server has to stay in the foreground` : how)
    })
    child.once('error', error => resolve(error.message))
  })
  // Writing to a dead child must not crash us; `exited` tells.
  child.stdin?.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', reject)
  })
  let stopping: Promise<void> | undefined
  return {
    child,
    exited,
    stderrTail: tail,
    // Once only: afterwards the number of the group may be somebody else's.
    stop: () => (stopping ??= stop(child, exited)),
  }
}

/** When its last words have been read. A child of its own may hold the pipes open much longer. */
async function hungUp({ stdout, stderr }: ChildProcess): Promise<void> {
  const isOpen = (pipe: Readable | null): pipe is Readable => pipe !== null && !pipe.readableEnded && !pipe.destroyed
  await Promise.all([stdout, stderr].filter(isOpen).map(pipe => once(pipe, 'end').catch(() => {})))
}

async function stop(child: ChildProcess, exited: Promise<string>): Promise<void> {
  const gone = () => within(exited, GRACE_MS)
  child.stdin?.end()
  if (!(await gone())) {
    signalTree(child, 'SIGTERM')
    await gone()
  }
  // Also after a clean exit: what the server started may have stayed behind.
  signalTree(child, 'SIGKILL')
  await gone()
  if (child.pid !== undefined) ownGroups.remove(child.pid)
  // Somebody who left the group may still hold the other ends.
  for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy()
}

function signalTree(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): void {
  const { pid } = child
  if (pid === undefined) return
  if (process.platform !== 'win32') {
    signalGroup(pid, signal)
    return
  }
  // Without its root a tree cannot be found there, and the number is soon another's.
  if (child.exitCode !== null || child.signalCode !== null) return
  const taskkill = join(process.env.SYSTEMROOT ?? 'C:\\Windows', 'System32', 'taskkill.exe')
  spawn(taskkill, ['/PID', String(pid), '/T', '/F'], { stdio: 'ignore', windowsHide: true }).on('error', () =>
    child.kill(),
  )
}

async function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<false>(resolve => {
    timer = setTimeout(() => resolve(false), ms)
  })
  const inTime = await Promise.race([promise.then(() => true), late])
  clearTimeout(timer)
  return inTime
}

/** Keeps the last lines of stderr; the rest is read and dropped, so that a chatty server never blocks on a full pipe. */
function keepTail(child: ChildProcess): () => string[] {
  const decoder = new StringDecoder('utf8')
  const lines: string[] = []
  let open = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    const [first = '', ...rest] = decoder.write(chunk).split('\n')
    open = (open + first).slice(0, STDERR_LINE_LENGTH)
    for (const line of rest) {
      lines.push(open)
      open = line.slice(0, STDERR_LINE_LENGTH)
    }
    lines.splice(0, lines.length - STDERR_TAIL_LINES)
  })
  return () =>
    [...lines, open]
      .map(line => line.trimEnd())
      .filter(line => line !== '')
      .slice(-STDERR_TAIL_LINES)
}
