import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Env } from '../config/variables.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { type Credential, openEntry, parseEntry, sealEntry } from './entry.js'
import { createSealingKeys } from './key.js'
import { type Keychain, openKeychain } from './keychain.js'
import { type AssertHeld, withLock } from './lock.js'
import { copyAside, moveAside, readSealedFile, replaceSealedFile, type SealedFile, stateOf } from './sealed-file.js'
import { watchFile } from './watch.js'

export type { Credential }

/** Secrets on disk: one JSON file, every entry sealed on its own with AES-256-GCM, mode 0600, replaced atomically. */
export interface CredentialStore {
  /**
   * The entry, or undefined when there is none or it is damaged. Cheap to call often: the file is read again only when it
   * changed. Needs no key, and so asks no keychain, when there is no such entry.
   */
  read(name: string): Promise<Credential | undefined>
  /**
   * Read, change and write under a lock that all processes share; `undefined` from `change` deletes the entry. Returns what
   * was written. Nothing is written when nothing changed. Everybody else waits meanwhile: keep `change` short.
   */
  update(
    name: string,
    change: (current: Credential | undefined) => Credential | undefined | Promise<Credential | undefined>,
  ): Promise<Credential | undefined>
  /** Names, issuers and resources, sorted by name. Needs no key. */
  list(): Promise<readonly CredentialName[]>
  /**
   * Runs `work` while no other process runs work on the same entry; `update` may be called inside. `assertHeld` throws when
   * the lock was lost (suspend): call it right before anything that must not happen twice.
   */
  exclusively<T>(name: string, work: (assertHeld: AssertHeld) => Promise<T>): Promise<T>
  /** Calls back within about a second after the file changed, whoever changed it. Returns the stop function. */
  watch(listener: () => void): () => void
}

export interface CredentialName {
  readonly name: string
  readonly issuer: string
  readonly resource: string
}

export interface CredentialStoreOptions {
  readonly directory: string
  readonly env: Env
  readonly warn: (message: string) => void
  /** Default: the one of the operating system, unless `GATEWAY_KEYCHAIN` is `off`. */
  readonly keychain?: Keychain
}

export function openCredentialStore(options: CredentialStoreOptions): CredentialStore {
  const { directory, env, warn, keychain = openKeychain(env) } = options
  const file = join(directory, 'credentials.json')
  const keys = createSealingKeys({ directory, env, keychain, warn })
  let last: { readonly stamp: string; readonly content: SealedFile | undefined } | undefined

  async function load(): Promise<SealedFile | undefined> {
    const state = await stateOf(file).catch(error => {
      throw new GatewayError('CONFIG_INVALID', `${file} cannot be read: ${messageOf(error)}`, { cause: error })
    })
    if (state === undefined) return undefined
    if (last?.stamp === state.stamp) return last.content
    const found = await readSealedFile(file)
    const content =
      found?.content === 'damaged' ? await withLock(file, loadHoldingLock).catch(asAbsent(file)) : found?.content
    last = found?.isSettled ? { stamp: found.stamp, content } : undefined
    return content
  }

  /** The file's content; a file that does not parse is moved aside first. Its logins are lost, the gateway is not. */
  async function loadHoldingLock(): Promise<SealedFile | undefined> {
    const found = await readSealedFile(file)
    if (found?.content !== 'damaged') return found?.content
    warn(`${file} is damaged and was moved to ${await moveAside(file)}`)
    return undefined
  }

  /** Where nothing can be written, damage stays, and is as good as absent. */
  function asAbsent(what: string): (error: unknown) => undefined {
    return error => void warn(`${what} is damaged and treated as absent; it cannot be removed: ${messageOf(error)}`)
  }

  async function open({ keyId, entries }: SealedFile, name: string): Promise<Credential | 'damaged' | undefined> {
    if (!entries.has(name)) return undefined
    const stored = parseEntry(entries.get(name))
    return stored ? openEntry(name, stored, await keys.forSealed(keyId)) : 'damaged'
  }

  /** The entry and the file it is in; a damaged entry is taken out first, with a copy of the file kept beside. */
  async function openHoldingLock(
    name: string,
    assertHeld: AssertHeld,
  ): Promise<{ readonly sealed: SealedFile | undefined; readonly credential: Credential | undefined }> {
    const sealed = await loadHoldingLock()
    if (sealed === undefined) return { sealed, credential: undefined }
    const credential = await open(sealed, name)
    if (credential !== 'damaged') return { sealed, credential }
    warn(`the credential "${name}" is damaged and was taken out of ${file}; a copy is in ${await copyAside(file)}`)
    sealed.entries.delete(name)
    await replaceSealedFile(file, sealed, assertHeld)
    return { sealed, credential: undefined }
  }

  return {
    async read(name) {
      const sealed = await load()
      const credential = sealed && (await open(sealed, name))
      if (credential !== 'damaged') return credential
      return withLock(file, async assertHeld => (await openHoldingLock(name, assertHeld)).credential).catch(error => {
        // In what is remembered of the file, so that it is said once.
        sealed?.entries.delete(name)
        return asAbsent(`the credential "${name}" in ${file}`)(error)
      })
    },

    async update(name, change) {
      return withLock(file, async assertHeld => {
        const { sealed, credential: current } = await openHoldingLock(name, assertHeld)
        const isEmpty = sealed === undefined || sealed.entries.size === 0
        // The wrong key, or none, is an error before anything happens in `change` that would be lost.
        const known = isEmpty ? undefined : await keys.forSealed(sealed.keyId)
        const next = await change(current)
        if (isSame(current, next)) return current
        const entries = new Map(sealed?.entries)
        if (next === undefined) {
          entries.delete(name)
          await replaceSealedFile(file, { keyId: sealed?.keyId ?? '', entries }, assertHeld)
          return undefined
        }
        const key = known ?? (await keys.forNew())
        entries.set(name, sealEntry(name, next, key))
        await replaceSealedFile(file, { keyId: key.id, entries }, assertHeld)
        return next
      })
    },

    async list() {
      const sealed = await load()
      const names = [...(sealed?.entries ?? [])].flatMap(([name, stored]) => {
        const entry = parseEntry(stored)
        return entry ? [{ name, issuer: entry.issuer, resource: entry.resource }] : []
      })
      return names.sort((a, b) => (a.name < b.name ? -1 : 1))
    },

    exclusively(name, work) {
      // Hashed: a server's name may hold anything, also a path.
      const hash = createHash('sha256').update(name).digest('hex').slice(0, 16)
      return withLock(join(directory, `credentials.${hash}`), work)
    },

    watch: listener => watchFile(file, listener),
  }
}

const isSame = (a: Credential | undefined, b: Credential | undefined): boolean => toText(a) === toText(b)

const toText = (credential: Credential | undefined): string | undefined =>
  credential && JSON.stringify([credential.issuer, credential.resource, credential.value])
