import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { Env } from '../config/variables.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { isJsonObject, parseJson } from '../json.js'
import { openSealingKey, type SealingKey } from './key.js'
import { withLock } from './lock.js'

const CIPHER = 'aes-256-gcm'
const VERSION = 1

const SealedEntry = z.object({
  issuer: z.string(),
  resource: z.string(),
  iv: z.string(),
  tag: z.string(),
  data: z.string(),
})
const SealedFile = z.object({
  version: z.literal(VERSION),
  keyId: z.string(),
  entries: z.record(z.string(), z.unknown()),
})

type SealedFile = z.infer<typeof SealedFile>

/** What an entry is bound to: sealed under these three, it opens under no other. */
export interface EntryName {
  readonly name: string
  readonly issuer: string
  readonly resource: string
}

/** Secrets on disk: one JSON file, every entry sealed on its own with AES-256-GCM, mode 0600, replaced atomically. */
export interface CredentialStore {
  /** The entry, or undefined when there is none or it is damaged. */
  read(entry: EntryName): Promise<unknown>
  /** Read, change and write under a lock that all processes share. Returns what was written. */
  update(entry: EntryName, change: (current: unknown) => unknown): Promise<unknown>
}

export interface CredentialStoreOptions {
  readonly directory: string
  readonly env: Env
  readonly warn: (message: string) => void
}

export function openCredentialStore({ directory, env, warn }: CredentialStoreOptions): CredentialStore {
  const file = join(directory, 'credentials.json')
  let sealingKey: SealingKey | undefined

  async function keyFor(sealed: SealedFile | undefined): Promise<SealingKey> {
    const sealedBefore = sealed !== undefined && Object.keys(sealed.entries).length > 0
    sealingKey ??= await openSealingKey({ directory, env, sealedBefore, warn })
    if (sealedBefore && sealed.keyId !== sealingKey.id) {
      throw new GatewayError(
        'CONFIG_INVALID',
        `${file} was sealed with another key (id ${sealed.keyId}) than the one from ${sealingKey.source} (id ${sealingKey.id}): use the old key, or delete the file to start over`,
      )
    }
    return sealingKey
  }

  function openEntry(sealed: SealedFile, key: SealingKey, entry: EntryName): unknown {
    if (!Object.hasOwn(sealed.entries, entry.name)) return undefined
    const stored = sealed.entries[entry.name]
    try {
      return unseal(SealedEntry.parse(stored), key, entry)
    } catch {
      warn(`the credential "${entry.name}" in ${file} is damaged and is treated as absent`)
      return undefined
    }
  }

  /** The file's content; a file that does not parse is moved aside first. Only with the lock held. */
  async function loadHoldingLock(): Promise<SealedFile | undefined> {
    const sealed = await readSealedFile(file)
    if (sealed !== 'damaged') return sealed
    // The logins in it are lost, the gateway is not.
    const kept = `${file}.damaged-${Date.now()}`
    await rename(file, kept)
    warn(`${file} is damaged and was moved to ${kept}`)
    return undefined
  }

  return {
    async read(entry) {
      const found = await readSealedFile(file)
      const sealed = found === 'damaged' ? await withLock(file, loadHoldingLock) : found
      return sealed && openEntry(sealed, await keyFor(sealed), entry)
    },

    async update(entry, change) {
      await makeDirectory(directory)
      return withLock(file, async assertHeld => {
        const sealed = await loadHoldingLock()
        const key = await keyFor(sealed)
        const current = sealed && openEntry(sealed, key, entry)
        const next = await change(current)
        if (JSON.stringify(next) === JSON.stringify(current)) return next
        assertHeld()
        const entries = { ...sealed?.entries, [entry.name]: seal(next, key, entry) }
        await replaceFile(file, { version: VERSION, keyId: key.id, entries })
        return next
      })
    },
  }
}

async function makeDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 }).catch(error => {
    throw new GatewayError(
      'CONFIG_INVALID',
      `the state directory ${directory} cannot be made (${messageOf(error)}): set GATEWAY_STATE_DIR to a directory of yours`,
      { cause: error },
    )
  })
}

const boundTo = ({ name, issuer, resource }: EntryName): Buffer =>
  Buffer.from(JSON.stringify([VERSION, name, issuer, resource]))

function seal(value: unknown, key: SealingKey, entry: EntryName): z.infer<typeof SealedEntry> {
  const iv = randomBytes(12)
  const cipher = createCipheriv(CIPHER, key.bytes, iv).setAAD(boundTo(entry))
  const data = Buffer.concat([cipher.update(JSON.stringify(value), 'utf8'), cipher.final()])
  const encode = (bytes: Buffer) => bytes.toString('base64')
  return {
    issuer: entry.issuer,
    resource: entry.resource,
    iv: encode(iv),
    tag: encode(cipher.getAuthTag()),
    data: encode(data),
  }
}

function unseal({ iv, tag, data }: z.infer<typeof SealedEntry>, key: SealingKey, entry: EntryName): unknown {
  const decode = (text: string) => Buffer.from(text, 'base64')
  const decipher = createDecipheriv(CIPHER, key.bytes, decode(iv), { authTagLength: 16 })
    .setAAD(boundTo(entry))
    .setAuthTag(decode(tag))
  return JSON.parse(Buffer.concat([decipher.update(decode(data)), decipher.final()]).toString('utf8'))
}

async function readSealedFile(file: string): Promise<SealedFile | 'damaged' | undefined> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  const value = parseJson(text)?.value
  const parsed = SealedFile.safeParse(value)
  if (parsed.success) return parsed.data
  if (isJsonObject(value) && typeof value.version === 'number' && value.version > VERSION) {
    throw new GatewayError(
      'CONFIG_INVALID',
      `${file} was written by a newer version of the gateway (format ${value.version}): use that version, or another GATEWAY_STATE_DIR`,
    )
  }
  return 'damaged'
}

async function replaceFile(file: string, content: SealedFile): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    await handle.writeFile(`${JSON.stringify(content, null, 2)}\n`)
    await handle.sync()
    await handle.close()
    await rename(temporary, file)
  } finally {
    await rm(temporary, { force: true })
  }
}
