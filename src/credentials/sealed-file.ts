import { randomBytes } from 'node:crypto'
import { type BigIntStats, existsSync } from 'node:fs'
import { copyFile, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { z } from 'zod'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject, parseJson } from '../json.js'
import { hasCode, ignoreMissing } from './file-errors.js'
import type { AssertHeld } from './lock.js'

export const FORMAT_VERSION = 1

const SETTLED_MS = 100
const LEFT_OVER_MS = 60_000
const LEFT_OVER_LOCK_MS = 24 * 60 * 60_000

const Content = z.object({
  version: z.literal(FORMAT_VERSION),
  keyId: z.string(),
  entries: z.custom<JsonObject>(isJsonObject),
})

/** The file as parsed; nobody has looked into its entries yet. A map, since a server may be called `__proto__`. */
export interface SealedFile {
  readonly keyId: string
  readonly entries: Map<string, unknown>
}

/** One state of the file, compared to see whether it changed. */
export interface FileState {
  readonly stamp: string
  /** False just after a write: clocks of file systems are coarse, the next write may leave the same stamp. */
  readonly isSettled: boolean
}

export interface Reading extends FileState {
  readonly content: SealedFile | 'damaged'
}

/** What is on disk; undefined when there is no file. A format of a newer version is an error, it is not to be touched. */
export async function readSealedFile(file: string): Promise<Reading | undefined> {
  const handle = await open(file, 'r').catch(ignoreMissing)
  if (handle === undefined) return undefined
  try {
    const state = toState(await handle.stat({ bigint: true }))
    return { ...state, content: parseSealedFile(await handle.readFile('utf8'), file) }
  } finally {
    await handle.close()
  }
}

export async function stateOf(file: string): Promise<FileState | undefined> {
  const found = await stat(file, { bigint: true }).catch(ignoreMissing)
  return found && toState(found)
}

export const toState = ({ ino, size, mtimeNs, mtimeMs }: BigIntStats): FileState => ({
  stamp: `${ino} ${size} ${mtimeNs}`,
  isSettled: Date.now() - Number(mtimeMs) > SETTLED_MS,
})

function parseSealedFile(text: string, file: string): SealedFile | 'damaged' {
  const value = parseJson(text)?.value
  const parsed = Content.safeParse(value)
  if (parsed.success) return { keyId: parsed.data.keyId, entries: new Map(Object.entries(parsed.data.entries)) }
  if (isJsonObject(value) && typeof value.version === 'number' && value.version > FORMAT_VERSION) {
    throw new GatewayError(
      'CONFIG_INVALID',
      `${file} was written by a newer version of the gateway (format ${value.version}): use that version, or another GATEWAY_STATE_DIR`,
    )
  }
  return 'damaged'
}

/** Replaces the file in one step: whoever reads it finds the old or the new one, also after a crash. Only with the lock held. */
export async function replaceSealedFile(file: string, sealed: SealedFile, assertHeld: AssertHeld): Promise<void> {
  await sweep(file).catch(() => undefined) // a courtesy; not a reason to lose what is to be written
  const content = { version: FORMAT_VERSION, keyId: sealed.keyId, entries: Object.fromEntries(sealed.entries) }
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(`${JSON.stringify(content, null, 2)}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    assertHeld()
    await renameOver(temporary, file)
  } finally {
    await rm(temporary, { force: true })
  }
  await syncDirectory(dirname(file))
}

/** On Windows a file that a virus scanner or another reader has open for a moment cannot be replaced in that moment. */
async function renameOver(from: string, to: string, attempts = process.platform === 'win32' ? 20 : 1): Promise<void> {
  try {
    await rename(from, to)
  } catch (error) {
    if (attempts === 1 || !hasCode(error, 'EPERM', 'EACCES', 'EBUSY')) throw error
    await wait(50)
    await renameOver(from, to, attempts - 1)
  }
}

/** So that the new name outlives a power cut as the bytes do. Windows has no such thing, some file systems refuse it. */
async function syncDirectory(directory: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(directory, 'r')
  try {
    await handle.sync().catch(() => undefined)
  } finally {
    await handle.close()
  }
}

/** Removes what killed processes left: files half written, and locks of entries that nobody has asked for since. */
async function sweep(file: string): Promise<void> {
  const directory = dirname(file)
  const stem = basename(file, '.json')
  for (const name of await readdir(directory)) {
    if (!name.startsWith(`${stem}.`)) continue
    const path = join(directory, name)
    if (name.endsWith('.tmp') && (await isOlderThan(path, LEFT_OVER_MS))) await rm(path, { force: true })
    if (name.endsWith('.lock') && (await isOlderThan(path, LEFT_OVER_LOCK_MS))) await rmdir(path).catch(() => undefined)
  }
}

async function isOlderThan(path: string, ageMs: number): Promise<boolean> {
  const found = await stat(path).catch(ignoreMissing)
  return found !== undefined && Date.now() - found.mtimeMs > ageMs
}

/** Moves the damaged file aside, for whoever wants to look at it; its new path. Only with the lock held. */
export async function moveAside(file: string): Promise<string> {
  const kept = asidePath(file)
  await rename(file, kept)
  return kept
}

export async function copyAside(file: string): Promise<string> {
  const kept = asidePath(file)
  await copyFile(file, kept)
  return kept
}

function asidePath(file: string): string {
  let time = Date.now()
  while (existsSync(`${file}.damaged-${time}`)) time++
  return `${file}.damaged-${time}`
}
