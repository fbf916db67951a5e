import { type FileHandle, open } from 'node:fs/promises'
import { hashOf, type Link, readChained } from './audit-chain.js'

// The last line is looked for in the last bytes; lines are a tenth of that at most.
const TAIL_BYTES = 256 * 1024
const LINE_BREAK = 0x0a

export interface Tail {
  /** The last whole line. */
  readonly last: Link | undefined
  /** Where it ends: what a crash has left comes after it. */
  readonly size: number
}

export async function readTail(handle: FileHandle, size: number): Promise<Tail> {
  const start = Math.max(0, size - TAIL_BYTES)
  const { buffer } = await handle.read(Buffer.alloc(size - start), 0, size - start, start)
  const end = buffer.lastIndexOf(LINE_BREAK)
  if (end < 0) return { last: undefined, size: start > 0 ? size : 0 }
  const line = buffer.subarray(buffer.subarray(0, end).lastIndexOf(LINE_BREAK) + 1, end)
  const place = readChained(line.toString('utf8'))
  return { last: { seq: typeof place === 'object' ? place.seq : 0, hash: hashOf(line) }, size: start + end + 1 }
}

/** The last whole line of a file that nobody writes to any more; undefined when there is none. */
export async function readLast(file: string): Promise<Link | undefined> {
  const handle = await open(file).catch(() => undefined)
  if (!handle) return undefined
  try {
    return (await readTail(handle, (await handle.stat()).size)).last
  } finally {
    await handle.close()
  }
}
