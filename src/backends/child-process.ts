import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { StringDecoder } from 'node:string_decoder'
import spawn from 'cross-spawn'
import type { StdioServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'

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
  const tail = keepTail(child)
  const exited = new Promise<string>(resolve => {
    child.once('exit', async (code, signal) => {
      // Its last words may still be in the pipe; a child of its own may hold that pipe open.
      if (child.stderr && !child.stderr.readableEnded)
        await within(
          once(child.stderr, 'end').catch(() => {}),
          LAST_WORDS_MS,
        )
      resolve(signal === null ? `exited with status ${code}` : `was ended by ${signal}`)
    })
    child.once('error', error => resolve(error.message))
  })
  // Writing to a dead child must not crash us; `exited` tells.
  child.stdin?.on('error', () => {})
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', reject)
  })
  return { child, exited, stderrTail: tail, stop: () => stop(child, exited) }
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
  // Somebody who left the group may still hold the other ends.
  for (const pipe of [child.stdin, child.stdout, child.stderr]) pipe?.destroy()
}

function signalTree(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return
  if (process.platform === 'win32') {
    spawn('taskkill', ['/PID', String(child.pid), '/T', '/F'], { stdio: 'ignore', windowsHide: true })
    return
  }
  try {
    process.kill(-child.pid, signal)
  } catch {
    // No such group: everybody is gone already.
  }
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
