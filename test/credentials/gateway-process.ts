import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as wait } from 'node:timers/promises'
import { onTestFinished } from 'vitest'
import type { Env } from '../../src/config/variables.js'

const STORE = new URL('../../dist/credentials/store.js', import.meta.url).href

export interface GatewayProcess {
  readonly child: ChildProcess
  /** Lines it printed so far. */
  readonly lines: readonly string[]
  /** Resolves when it has printed `count` lines. */
  printed(count: number): Promise<void>
  /** Resolves with its exit status, or the signal that ended it. */
  readonly ended: Promise<number | string>
}

/**
 * Another process (of the compiled code) that runs `script`, a module's text in which there are `store`, `print`, and
 * `input()`, the next line of its stdin.
 */
export function startProcess(
  directory: string,
  script: string,
  env: Env = { GATEWAY_KEYCHAIN: 'off' },
  atEnd: (kill: () => void) => void = onTestFinished,
): GatewayProcess {
  const source = `
    import { createInterface } from 'node:readline'
    import { openCredentialStore } from ${JSON.stringify(STORE)}
    const print = line => console.log(line)
    const warn = message => print('warning: ' + message)
    const store = openCredentialStore({ directory: ${JSON.stringify(directory)}, env: process.env, warn })
    let typed
    const input = async () => (await (typed ??= createInterface(process.stdin)[Symbol.asyncIterator]()).next()).value
    ${script}
    if (typed) process.stdin.destroy()`
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    env: { PATH: process.env.PATH, ...env },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines: string[] = []
  const printed = createInterface(child.stdout).on('line', line => lines.push(line))
  const ended = once(child, 'close').then(([code, signal]) => signal ?? code)
  atEnd(() => void child.kill('SIGKILL'))
  return {
    child,
    lines,
    ended,
    async printed(count) {
      while (lines.length < count) {
        const more = await Promise.race([once(printed, 'line'), ended.then(end => `it ended with ${end}`)])
        if (typeof more === 'string' && lines.length < count)
          throw new Error(`${more}, having printed ${lines.length} lines`)
      }
    },
  }
}

/** Looks every few milliseconds until it is so; the test's own time limit is the limit. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await wait(5)
}
