import { createHash, randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import { makeKeyFile, readKeyFile } from './key-file.js'
import type { Keychain, KeychainAnswer } from './keychain.js'
import { KEY_BYTES } from './sealing.js'

const RETRY_MS = 10_000

/** The AES-256 key that seals every credential. `id` tells keys apart without telling the key. */
export interface SealingKey {
  readonly id: string
  readonly bytes: Buffer
  readonly source: string
}

export interface KeyOptions {
  readonly directory: string
  readonly env: Env
  readonly keychain: Keychain
  readonly warn: (message: string) => void
}

/** The keys of one store. What was asked for once is remembered, a failure for some seconds. */
export interface SealingKeys {
  /** The key with which something is sealed already. */
  forSealed(keyId: string): Promise<SealingKey>
  /** A key for a store with nothing sealed in it; makes one when there is none. Only with the store's lock held. */
  forNew(): Promise<SealingKey>
}

export function createSealingKeys(options: KeyOptions): SealingKeys {
  let last: { readonly keyId: string; readonly key: Promise<SealingKey>; retryAt: number } | undefined

  return {
    forSealed(keyId) {
      if (last?.keyId === keyId && Date.now() < last.retryAt) return last.key
      const asked = { keyId, key: openMatchingKey(keyId, options), retryAt: Number.POSITIVE_INFINITY }
      last = asked
      // A keychain that hangs is not to be asked again by every request.
      asked.key.catch(() => {
        asked.retryAt = Date.now() + RETRY_MS
      })
      return asked.key
    },

    async forNew() {
      // Not the one remembered: another process may have started over, with another key.
      const key = await openSealingKey({ ...options, sealedBefore: false })
      last = { keyId: key.id, key: Promise.resolve(key), retryAt: Number.POSITIVE_INFINITY }
      return key
    },
  }
}

async function openMatchingKey(keyId: string, options: KeyOptions): Promise<SealingKey> {
  const key = await openSealingKey({ ...options, sealedBefore: true })
  if (key.id === keyId) return key
  throw new GatewayError(
    'CONFIG_INVALID',
    `${sealedFileIn(options)} was sealed with another key (id ${keyId}) than the one from ${key.source} (id ${key.id}): use the old key, or delete the file to start over`,
  )
}

/**
 * Chooses the key (DESIGN section 5): GATEWAY_CREDENTIALS_KEY, the file that GATEWAY_CREDENTIALS_KEY_FILE names, the own
 * key file when an earlier start made one, the OS keychain, else a new key file. When something is sealed already
 * (`sealedBefore`), a missing key is an error and never a reason to make a new one.
 */
export async function openSealingKey(options: KeyOptions & { sealedBefore: boolean }): Promise<SealingKey> {
  const { directory, env, keychain, sealedBefore } = options
  if (env.GATEWAY_CREDENTIALS_KEY) return toKey(env.GATEWAY_CREDENTIALS_KEY, 'GATEWAY_CREDENTIALS_KEY')
  const named = env.GATEWAY_CREDENTIALS_KEY_FILE
  if (named) {
    const text = await readKeyFile(named)
    if (text === undefined) throw new GatewayError('CONFIG_INVALID', `GATEWAY_CREDENTIALS_KEY_FILE: no file ${named}`)
    return toKey(text, `GATEWAY_CREDENTIALS_KEY_FILE (${named})`)
  }

  const own = await readKeyFile(keyFileIn(directory))
  if (own !== undefined) return toKey(own, keyFileIn(directory))
  if (!sealedBefore) return openFirstKey(options)
  const found = keyIn(await keychain.get())
  if (!('refused' in found)) return found
  throw new GatewayError(
    'CONFIG_INVALID',
    `${sealedFileIn(options)} is sealed and its key is not to be had: there is no ${keyFileIn(directory)}, and of the OS keychain: ${found.refused}. Unlock the keychain, set GATEWAY_CREDENTIALS_KEY, or delete credentials.json to start over`,
  )
}

const sealedFileIn = ({ directory }: KeyOptions): string => join(directory, 'credentials.json')

const keyFileIn = (directory: string): string => join(directory, 'credentials.key')

/** The keychain when it proves to work, else a key file. */
async function openFirstKey({ directory, keychain, warn }: KeyOptions): Promise<SealingKey> {
  const found = await openKeychainKey(keychain)
  if (!('refused' in found)) return found
  const file = keyFileIn(directory)
  await makeKeyFile(file, newKey())
  warn(
    `credentials are sealed with the key file ${file}, not by the OS keychain (${found.refused}): keep it private, or set GATEWAY_CREDENTIALS_KEY`,
  )
  return toKey((await readKeyFile(file)) ?? '', file)
}

type Refused = { readonly refused: string }

async function openKeychainKey(keychain: Keychain): Promise<SealingKey | Refused> {
  const found = await keychain.get()
  if (found.state !== 'absent') return keyIn(found)
  const stored = await keychain.set(newKey())
  if (stored.state !== 'found') return keyIn(stored)
  // Asked again, by another process: only what that one finds will be there tomorrow, whoever put it there.
  return keyIn(await keychain.get())
}

function keyIn(answer: KeychainAnswer): SealingKey | Refused {
  switch (answer.state) {
    case 'found':
      return (
        decodeKey(answer.secret, 'the OS keychain') ?? { refused: `what it holds is not a key of ${KEY_BYTES} bytes` }
      )
    case 'absent':
      return { refused: 'it holds no key (or is locked)' }
    case 'unavailable':
      return { refused: answer.reason }
  }
}

const newKey = (): string => randomBytes(KEY_BYTES).toString('base64')

function toKey(base64: string, source: string): SealingKey {
  const key = decodeKey(base64, source)
  if (key) return key
  throw new GatewayError(
    'CONFIG_INVALID',
    `${source}: expected ${KEY_BYTES} bytes in base64 (try: openssl rand -base64 ${KEY_BYTES})`,
  )
}

function decodeKey(base64: string, source: string): SealingKey | undefined {
  const bytes = Buffer.from(base64.trim(), 'base64')
  if (bytes.length !== KEY_BYTES) return undefined
  return { id: createHash('sha256').update('key id').update(bytes).digest('hex').slice(0, 8), bytes, source }
}
