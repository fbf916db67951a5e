import { writeSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { isJsonObject } from '../json.js'
import type { KeychainAnswer } from './keychain.js'

// Run by keychain.ts: one question on stdin (never in the arguments, everybody may read those), one line of JSON on stdout.

const SERVICE = 'agent-mcp-gateway'
const ACCOUNT = 'credentials-key'
// Without the pin the library falls back to the kernel's keyring in silence, which forgets everything within days.
const OPTIONS = { linux: { store: 'secret-service' } } as const

async function answer(question: unknown): Promise<KeychainAnswer> {
  const { Entry } = await import('@napi-rs/keyring') // optional: absent where there is no binary for the platform
  const entry = new Entry(SERVICE, ACCOUNT, OPTIONS)
  const known = entry.getPassword()
  if (known !== null) return { state: 'found', secret: known }
  if (!isJsonObject(question) || question.operation !== 'set' || typeof question.secret !== 'string') {
    return { state: 'absent' }
  }
  entry.setPassword(question.secret)
  return { state: 'found', secret: question.secret }
}

const given = await answer(JSON.parse(await text(process.stdin))).catch(
  (error: unknown): KeychainAnswer => ({
    state: 'unavailable',
    reason: error instanceof Error ? error.message : String(error),
  }),
)
writeSync(process.stdout.fd, `${JSON.stringify(given)}\n`)
