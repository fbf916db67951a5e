import { type FileHandle, open, readFile } from 'node:fs/promises'
import { isJsonObject, parseJson } from '../json.js'

/** Where a log ended when a gateway last wrote to it, and where it begins: kept beside it, so that missing lines are noticed. */
export interface Head {
  readonly seq: number
  readonly hash: string
  /** Which file that was, and how large: when they are the same, nobody has written since. */
  readonly inode: number
  readonly size: number
  /** Lines up to this one went with files beyond those that are kept. */
  readonly dropped?: number | undefined
}

// Always as long, so that one write replaces it.
const LENGTH = 200

export const headOf = (file: string): string => `${file}.head`

export async function readHead(file: string): Promise<Head | undefined> {
  const text = await readFile(headOf(file), 'utf8').catch(() => '')
  const value = parseJson(text)?.value
  if (!isJsonObject(value)) return undefined
  const { seq, hash, inode, size, dropped } = value
  if (!Number.isSafeInteger(seq) || typeof hash !== 'string') return undefined
  const place = { seq: seq as number, hash, inode: Number(inode), size: Number(size) }
  return Number.isSafeInteger(dropped) ? { ...place, dropped: dropped as number } : place
}

export const openHead = (file: string): Promise<FileHandle> =>
  open(headOf(file), 'r+').catch(() => open(headOf(file), 'w', 0o600))

export async function writeHead(handle: FileHandle, head: Head): Promise<void> {
  await handle.write(`${JSON.stringify(head).padEnd(LENGTH - 1)}\n`, 0)
}
