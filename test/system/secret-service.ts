import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Env } from '../../src/config/variables.js'

const PROGRAMS = ['dbus-run-session', 'gnome-keyring-daemon']

export interface SecretService {
  /** What a process has to be given to reach it. */
  readonly env: Env
  stop(): Promise<void>
}

/**
 * A session bus of its own with a real gnome-keyring, which keeps its keyring under `home`. Unlocked with a password, which
 * also makes the keyring; else locked as after a login without one, with nobody there to type it.
 */
export async function startSecretService(home: string, { unlocked }: { unlocked: boolean }): Promise<SecretService> {
  requirePrograms()
  const runtime = join(home, 'run')
  await mkdir(runtime, { recursive: true, mode: 0o700 })
  const env = { PATH: process.env.PATH, HOME: home, XDG_RUNTIME_DIR: runtime }
  const unlock = unlocked ? `printf password | gnome-keyring-daemon --unlock --components=secrets >&2;` : ''
  const script = `${unlock} echo "$DBUS_SESSION_BUS_ADDRESS"; cat` // stays until its stdin ends
  const session = spawn('dbus-run-session', ['--', 'sh', '-c', script], { env, stdio: ['pipe', 'pipe', 'ignore'] })
  const address = await firstLine(session)
  return {
    env: { ...env, DBUS_SESSION_BUS_ADDRESS: address },
    async stop() {
      const ended = once(session, 'exit')
      session.stdin?.end()
      await ended
    },
  }
}

function requirePrograms(): void {
  for (const program of PROGRAMS) {
    try {
      execFileSync('which', [program], { stdio: 'ignore' })
    } catch (cause) {
      const advice = `the keychain is tested for real and there is no ${program}: apt-get install -y gnome-keyring dbus`
      throw new Error(advice, { cause })
    }
  }
}

async function firstLine(session: ChildProcess & { stdout: NonNullable<ChildProcess['stdout']> }): Promise<string> {
  const lines = createInterface(session.stdout)
  const [line] = await Promise.race([
    once(lines, 'line'),
    once(session, 'exit').then(([code]) => Promise.reject(new Error(`dbus-run-session ended with ${code}`))),
  ])
  return String(line)
}
