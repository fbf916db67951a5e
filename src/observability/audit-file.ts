import { constants } from 'node:fs'
import { chmod, type FileHandle, mkdir, open, rename, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { chain, type Link, START } from './audit-chain.js'
import { openHead, readHead, writeHead } from './audit-head.js'
import { readLast, readTail } from './audit-tail.js'
import { codeOf, inTurn, isUnlockable } from './file-turn.js'

export const KEPT_FILES = 10
export const DEFAULT_MAX_BYTES = 64 * 1024 * 1024
const OWNER_ONLY = 0o600
const BUSY_RETRY_MS = 50

export interface AuditFileOptions {
  readonly file: string
  /** A file that would get larger is moved to `FILE.1`. */
  readonly maxBytes: number
}

/**
 * The file behind the audit log: one chain of lines, whoever writes them. Several gateways take turns; where another one has
 * written, or a crash has left half a line, the chain goes on from the last whole line that is there.
 */
export class AuditFile {
  readonly #options: AuditFileOptions
  #handle: FileHandle | undefined
  #head: FileHandle | undefined
  #isRegular = true
  #isAlone = false
  #inode = 0
  #size = -1
  #last: Link = START
  #dropped: number | undefined

  constructor(options: AuditFileOptions) {
    this.#options = options
  }

  /** Appends events, JSON objects, as lines. Rejects, and has then written none of them. */
  async append(events: readonly string[], lost = 0): Promise<void> {
    await this.#open()
    if (events.length === 0) return
    if (!this.#isRegular || this.#isAlone) return this.#write(events, lost)
    try {
      await inTurn(this.#options.file, () => this.#write(events, lost))
    } catch (error) {
      if (!isUnlockable(error)) throw error
      this.#isAlone = true
      await this.#write(events, lost)
    }
  }

  async close(): Promise<void> {
    await this.#forgetHead()
    await this.#handle?.close().catch(() => {})
    this.#handle = undefined
  }

  async #write(events: readonly string[], lost: number): Promise<void> {
    if (this.#isRegular) await this.#catchUp()
    let text = await this.#lines(events, lost)
    if (this.#isRegular && this.#size > 0 && this.#size + text.bytes.length > this.#options.maxBytes) {
      if (await this.#rotate()) text = await this.#lines(events, lost)
    }
    await this.#writeWhole(text.bytes)
    this.#last = text.last
    this.#size += text.bytes.length
    if (this.#isRegular && !this.#isAlone && events.length > 0) await this.#noteHead().catch(() => this.#forgetHead())
  }

  async #noteHead(): Promise<void> {
    this.#head ??= await openHead(this.#options.file)
    const { seq, hash } = this.#last
    await writeHead(this.#head, { seq, hash: hash ?? '', inode: this.#inode, size: this.#size, dropped: this.#dropped })
  }

  async #forgetHead(): Promise<void> {
    const head = this.#head
    this.#head = undefined
    await head?.close().catch(() => {})
  }

  async #lines(events: readonly string[], lost: number): Promise<{ readonly bytes: Buffer; readonly last: Link }> {
    const continues = await this.#continues()
    let last = this.#last
    let text = ''
    for (const event of events) {
      const { line, link } = chain(event, last, text === '' ? { continues, lost } : {})
      text += `${line}\n`
      last = link
    }
    return { bytes: Buffer.from(text), last }
  }

  /** An empty file goes on from the one before only if that ends with the last line: else lines were taken away. */
  async #continues(): Promise<boolean> {
    if (!this.#isRegular || this.#size > 0 || this.#last.seq === 0) return false
    return (await readLast(`${this.#options.file}.1`))?.hash === this.#last.hash
  }

  async #open(): Promise<void> {
    if (this.#handle) return
    const { file } = this.#options
    await mkdir(dirname(file), { recursive: true, mode: 0o700 })
    const { O_APPEND, O_CREAT, O_RDWR, O_WRONLY } = constants
    const isThere = await stat(file).catch(() => undefined)
    const isRegular = isThere?.isFile() ?? true
    const handle = await open(file, O_APPEND | O_CREAT | (isRegular ? O_RDWR : O_WRONLY), OWNER_ONLY)
    await chmod(file, OWNER_ONLY).catch(() => {}) // not our file: whoever owns it decides who reads it
    const { ino } = await handle.stat()
    this.#handle = handle
    this.#isRegular = isRegular
    this.#inode = ino
    this.#size = isRegular ? -1 : 0
  }

  /** Finds out what was written since: by another gateway, or before this one. What a crash has left of a line is taken away. */
  async #catchUp(): Promise<void> {
    const { file } = this.#options
    let there = await stat(file).catch(() => undefined)
    if (there?.ino !== this.#inode) {
      // Moved away: by another gateway that has begun a new file, or by somebody who collects logs.
      await this.close()
      await this.#open()
      there = await this.#handle?.stat()
    }
    const { size } = there ?? { size: 0 }
    if (size === this.#size) return
    const head = await readHead(file)
    this.#dropped = head?.dropped ?? this.#dropped
    if (head?.inode === this.#inode && head.size === size) {
      this.#size = size
      this.#last = head
      return
    }
    const tail = this.#handle ? await readTail(this.#handle, size) : { last: undefined, size }
    if (tail.size < size) await this.#handle?.truncate(tail.size)
    this.#size = tail.size
    // What was written and is not there any more, or not as it was, shall be seen to be: the chain does not go on from the rest.
    const written = [head, this.#last].filter(link => link !== undefined && link.seq > 0)
    this.#last = [tail.last ?? START, ...written].reduce<Link>(
      (furthest, link) => (link && link.seq >= furthest.seq ? link : furthest),
      START,
    )
  }

  /** False when the file cannot be moved: then it grows. */
  async #rotate(): Promise<boolean> {
    const { file } = this.#options
    try {
      let free = 1
      while (free <= KEPT_FILES && (await exists(`${file}.${free}`))) free++
      if (free > KEPT_FILES) await this.#noteDropped(`${file}.${--free}`)
      for (let number = free; number > 1; number--) await rename(`${file}.${number - 1}`, `${file}.${number}`)
      await rename(file, `${file}.1`)
    } catch {
      return false
    }
    await this.close()
    await this.#open()
    this.#size = 0
    return true
  }

  /** Said before the file is gone: its lines would be missed if this process ended in between. */
  async #noteDropped(file: string): Promise<void> {
    this.#dropped = Math.max(this.#dropped ?? 0, (await readLast(file))?.seq ?? 0)
    await this.#noteHead()
  }

  /** All of it or nothing: half a line would be all that is left of it when the process ends now. */
  async #writeWhole(bytes: Buffer): Promise<void> {
    let rest = bytes
    try {
      while (rest.length > 0) rest = rest.subarray(await this.#writeSome(rest))
    } catch (error) {
      const isHalf = rest.length < bytes.length
      if (isHalf && this.#isRegular) await this.#handle?.truncate(this.#size).catch(() => {})
      if (isHalf) this.#size = -1
      throw error
    }
  }

  async #writeSome(bytes: Buffer): Promise<number> {
    try {
      return (await this.#handle?.write(bytes))?.bytesWritten ?? 0
    } catch (error) {
      if (codeOf(error) !== 'EAGAIN') throw error
      await new Promise(resolve => setTimeout(resolve, BUSY_RETRY_MS)) // a pipe whose reader is slower than we are
      return 0
    }
  }
}

const exists = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  )
