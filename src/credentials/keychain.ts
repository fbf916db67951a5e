import { spawn } from 'node:child_process'
import { isatty } from 'node:tty'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import type { Env } from '../config/variables.js'
import { parseJson } from '../json.js'

const TIMEOUT_MS = 5_000
const TIMEOUT_WITH_A_PERSON_MS = 30_000
const CHILD = fileURLToPath(new URL('./keychain-child.js', import.meta.url))

const KeychainAnswer = z.discriminatedUnion('state', [
  z.object({ state: z.literal('found'), secret: z.string() }),
  z.object({ state: z.literal('absent') }),
  z.object({ state: z.literal('unavailable'), reason: z.string() }),
])

/** `absent` is what a locked keychain may say, too. */
export type KeychainAnswer = z.infer<typeof KeychainAnswer>

/** The one secret of the gateway in the keychain of the operating system. Never rejects. */
export interface Keychain {
  get(): Promise<KeychainAnswer>
  /** Keeps the secret unless there is one already, and answers with the one that is there. */
  set(secret: string): Promise<KeychainAnswer>
}

export type KeychainQuestion = { readonly operation: 'get' } | { readonly operation: 'set'; readonly secret: string }

/**
 * The keychain as a process with the environment `env` reaches it. `GATEWAY_KEYCHAIN=off` switches it off: for containers,
 * tests, and whoever prefers a key file.
 *
 * Every question goes to a process of its own that is killed when it takes too long. A keychain that hangs blocks the event
 * loop of whoever asks, and then neither timers nor `process.exit` work there (measured on Linux).
 */
export function openKeychain(env: Env): Keychain {
  if (env.GATEWAY_KEYCHAIN === 'off') {
    const off = async (): Promise<KeychainAnswer> => unavailable('it is switched off by GATEWAY_KEYCHAIN')
    return { get: off, set: off }
  }
  return {
    get: () => ask({ operation: 'get' }, env),
    set: secret => ask({ operation: 'set', secret }, env),
  }
}

const unavailable = (reason: string): KeychainAnswer => ({ state: 'unavailable', reason })

function ask(question: KeychainQuestion, { NODE_OPTIONS: _ours, ...env }: Env): Promise<KeychainAnswer> {
  // With a person there, the keychain may be asking for its password right now.
  const timeoutMs = isatty(0) && isatty(2) ? TIMEOUT_WITH_A_PERSON_MS : TIMEOUT_MS
  return new Promise(resolve => {
    const child = spawn(process.execPath, [CHILD], { env, stdio: ['pipe', 'pipe', 'ignore'], windowsHide: true })
    const answer = (given: KeychainAnswer): void => {
      clearTimeout(timer)
      child.kill('SIGKILL') // it has nothing more to say, and may hang on its way out
      child.stdout.destroy()
      resolve(given)
    }
    const timer = setTimeout(() => answer(unavailable(`it did not answer within ${timeoutMs / 1000} s`)), timeoutMs)

    let text = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
      if (text.includes('\n')) answer(parseAnswer(text))
    })
    child.on('error', error => answer(unavailable(`its helper process did not start: ${error.message}`)))
    child.on('close', (code, signal) => answer(unavailable(`its helper process ended with ${signal ?? code}`)))
    // The child may be gone before it has read this; its end is what counts then.
    child.stdin.on('error', () => undefined).end(JSON.stringify(question))
  })
}

function parseAnswer(text: string): KeychainAnswer {
  const parsed = KeychainAnswer.safeParse(parseJson(text)?.value)
  return parsed.success ? parsed.data : unavailable('its helper process gave no answer that makes sense')
}
