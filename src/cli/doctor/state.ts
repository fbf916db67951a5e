import { constants } from 'node:fs'
import { access, readdir, stat, statfs } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Env } from '../../config/variables.js'
import { type Credential, openEntry, parseEntry } from '../../credentials/entry.js'
import { openSealingKey, type SealingKey } from '../../credentials/key.js'
import type { Keychain, KeychainAnswer } from '../../credentials/keychain.js'
import { readSealedFile, type SealedFile } from '../../credentials/sealed-file.js'
import { GatewayError, messageOf } from '../../errors/gateway-error.js'
import { serverOf } from '../../oauth/login-record.js'
import type { Section } from './section.js'

const ENOUGH_BYTES = 50 * 1024 * 1024

export interface StateOptions {
  readonly directory: string
  readonly env: Env
  readonly keychain: Keychain
}

/** What is sealed, opened without changing anything: a damaged entry stays where it is. */
export interface SealedState {
  readonly entries: ReadonlyMap<string, Credential>
  readonly damaged: readonly string[]
  /** Why nothing of it can be read. */
  readonly problem?: GatewayError
}

export async function examineState(section: Section, { directory, env }: StateOptions): Promise<void> {
  await examineDirectory(section, directory)
  const audit = env.GATEWAY_AUDIT_LOG || join(directory, 'audit.jsonl')
  const obstacle = await whyNotWritable(audit)
  if (obstacle === undefined) section.ok('audit log', audit)
  else {
    section.failed(
      'audit log',
      `${audit} cannot be written: ${obstacle}`,
      'make it writable for you, or name another file with GATEWAY_AUDIT_LOG',
    )
  }
}

async function examineDirectory(section: Section, directory: string): Promise<void> {
  const check = 'state directory'
  const found = await stat(directory).catch(() => undefined)
  const obstacle = await whyNotWritable(join(directory, 'credentials.json'))
  if (obstacle !== undefined) {
    const advice = 'make it a directory that you may write, or name another one with GATEWAY_STATE_DIR'
    return section.failed(check, `${directory}: ${obstacle}`, advice)
  }
  if (!found) return section.ok(check, `${directory} (made when it is needed)`)
  const open = (await readdir(directory)).map(name => join(directory, name))
  const readable = process.platform === 'win32' ? [] : await readableByOthers(open)
  const isOpen = process.platform !== 'win32' && (found.mode & 0o077) !== 0
  const octal = (found.mode & 0o777).toString(8)
  if (isOpen) section.warning(check, `${directory} has mode ${octal}, expected 700`, `chmod 700 ${directory}`)
  else section.ok(check, `${directory}, mode ${octal}, writable`)
  if (readable.length > 0)
    section.warning('files in it', `others may read ${readable.join(', ')}`, `chmod 600 ${readable.join(' ')}`)
  const { bavail, bsize } = await statfs(directory)
  const free = bavail * bsize
  if (free < ENOUGH_BYTES)
    section.warning(
      'free space',
      `${toMegabytes(free)} MB`,
      'make room: logins and audit lines that cannot be written are lost',
    )
  else section.ok('free space', `${toMegabytes(free)} MB`)
}

const toMegabytes = (bytes: number): number => Math.round(bytes / 1_000_000)

async function readableByOthers(files: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    files.map(async file => {
      const known = await stat(file).catch(() => undefined)
      return known?.isFile() && (known.mode & 0o077) !== 0 ? [file] : []
    }),
  )
  return found.flat()
}

/** Nothing is written to find out. A file that is not there can be made if the nearest directory above it is writable. */
async function whyNotWritable(file: string): Promise<string | undefined> {
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => error)
  if (!(found instanceof Error)) return access(file, constants.W_OK).then(() => undefined, messageOf)
  if (found.code !== 'ENOENT') return found.message
  for (let place = dirname(file); ; place = dirname(place)) {
    const above = await stat(place).catch(() => undefined)
    if (!above && place !== dirname(place)) continue
    if (!above?.isDirectory()) return `${place} is not a directory`
    return access(place, constants.W_OK | constants.X_OK).then(() => undefined, messageOf)
  }
}

/** The key, the keychain if it is asked, and every entry. */
export async function examineCredentials(section: Section, options: StateOptions): Promise<SealedState> {
  const file = join(options.directory, 'credentials.json')
  const { keychain, asked } = timed(options.keychain)
  const [sealed, key] = await Promise.all([
    readSealedFile(file).then(found => found?.content, asGatewayError),
    openSealingKey({ ...options, keychain, warn: () => {}, sealedBefore: true }).catch(asGatewayError),
  ])
  const isEmpty =
    sealed === undefined || (!(sealed instanceof GatewayError) && sealed !== 'damaged' && sealed.entries.size === 0)
  examineKey(section, key, { isEmpty, answer: asked() })
  examineKeychain(section, asked(), options.env)
  if (sealed === undefined) {
    section.ok('credentials.json', `${file} (made when it is needed)`)
    return { entries: new Map(), damaged: [] }
  }
  if (sealed instanceof GatewayError) {
    section.failed(
      'credentials.json',
      sealed.message,
      'use the version of the gateway that wrote it, or make it readable',
    )
    return { entries: new Map(), damaged: [], problem: sealed }
  }
  if (sealed === 'damaged') {
    const advice = 'restore it from a backup; otherwise it is moved aside, and logins and issued tokens are lost'
    section.failed('credentials.json', `${file} is damaged: it is not what the gateway writes`, advice)
    return { entries: new Map(), damaged: [] }
  }
  return openAll(section, sealed, { key, file })
}

function openAll(
  section: Section,
  { entries, keyId }: SealedFile,
  { key, file }: { readonly key: SealingKey | GatewayError; readonly file: string },
): SealedState {
  if (entries.size === 0) {
    section.ok('credentials.json', `${file}, empty`)
    return { entries: new Map(), damaged: [] }
  }
  if (key instanceof GatewayError) {
    section.skipped('credentials.json', 'its key is not to be had')
    return { entries: new Map(), damaged: [], problem: key }
  }
  if (key.id !== keyId) {
    const found = `${file} was sealed with another key (id ${keyId}) than the one from ${key.source} (id ${key.id})`
    section.failed('credentials.json', found, 'use the old key, or delete the file and log in again')
    return { entries: new Map(), damaged: [], problem: new GatewayError('CONFIG_INVALID', found) }
  }
  const opened = new Map<string, Credential>()
  const damaged: string[] = []
  for (const [name, stored] of entries) {
    const entry = parseEntry(stored)
    const credential = entry ? openEntry(name, entry, key) : 'damaged'
    if (credential === 'damaged') damaged.push(name)
    else opened.set(name, credential)
  }
  const logins = [...opened.keys()].filter(name => serverOf(name) !== undefined).length
  if (damaged.length === 0) section.ok('credentials.json', `${file}, ${opened.size} entries, ${logins} of them logins`)
  else {
    const lost = damaged.map(name => serverOf(name)).filter(name => name !== undefined)
    const again = lost.length > 0 ? `: gateway login ${lost.join(', ')}` : ''
    const found = `${damaged.length} of ${entries.size} entries are damaged: ${damaged.join(', ')}`
    section.failed('credentials.json', found, `restore ${file} from a backup, or log in again${again}`)
  }
  return { entries: opened, damaged }
}

function examineKey(
  section: Section,
  key: SealingKey | GatewayError,
  { isEmpty, answer }: { readonly isEmpty: boolean; readonly answer: Answer | undefined },
) {
  if (!(key instanceof GatewayError)) return section.ok('key', `from ${key.source}`)
  if (!isEmpty || answer === undefined) {
    const advice = 'unlock the keychain or bring the key back (GATEWAY_CREDENTIALS_KEY); without it the logins are lost'
    return section.failed('key', key.message, isEmpty ? 'give it a key of 32 bytes: openssl rand -base64 32' : advice)
  }
  // Nothing is sealed yet, so nothing is lost: a key is made when it is needed.
  const where = answer.given.state === 'unavailable' ? 'in a key file, mode 600' : 'in the keychain'
  section.ok('key', `none yet: made when it is needed, ${where}`)
}

function examineKeychain(section: Section, answer: Answer | undefined, { GATEWAY_KEYCHAIN }: Env) {
  if (GATEWAY_KEYCHAIN === 'off') return section.skipped('keychain', 'switched off by GATEWAY_KEYCHAIN')
  if (answer === undefined) return section.skipped('keychain', 'not asked: the key comes from elsewhere')
  const { given, ms } = answer
  if (given.state !== 'unavailable')
    return section.ok(
      'keychain',
      `answers, in ${ms} ms${given.state === 'found' ? '' : ': it holds no key, or is locked'}`,
    )
  section.warning(
    'keychain',
    `${given.reason} (${ms} ms)`,
    'a key file with mode 600 takes its place; set GATEWAY_CREDENTIALS_KEY, or GATEWAY_KEYCHAIN=off where there is none',
  )
}

interface Answer {
  readonly given: KeychainAnswer
  readonly ms: number
}

/** Hears what the keychain said, and never sets anything. */
function timed(keychain: Keychain): { readonly keychain: Keychain; readonly asked: () => Answer | undefined } {
  let answer: Answer | undefined
  const get = async (): Promise<KeychainAnswer> => {
    const since = performance.now()
    const given = await keychain.get()
    answer = { given, ms: Math.round(performance.now() - since) }
    return given
  }
  return { keychain: { get, set: get }, asked: () => answer }
}

const asGatewayError = (thrown: unknown): GatewayError =>
  thrown instanceof GatewayError ? thrown : new GatewayError('CONFIG_INVALID', messageOf(thrown), { cause: thrown })
