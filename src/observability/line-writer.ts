import { write } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'

const writeTo = promisify(write)

// What may wait for a slow or full disk; lines beyond that are dropped, calls are never held up.
const MAX_QUEUE_LENGTH = 4 * 1024 * 1024
const BUSY_RETRY_MS = 50

/**
 * Appends text to a file or a pipe without anybody waiting for it: what is written meanwhile goes out with the next write.
 * A failure is reported once per outage, what failed is tried again with the next line, and it never throws.
 */
export class LineWriter {
  readonly #open: () => Promise<number>
  readonly #onError: (error: Error) => void
  #fd: number | undefined
  #queue = ''
  #writing: Promise<void> | undefined
  #failing = false

  constructor(open: () => Promise<number>, onError: (error: Error) => void) {
    this.#open = open
    this.#onError = onError
  }

  write(line: string): void {
    if (this.#queue.length + line.length <= MAX_QUEUE_LENGTH) this.#queue += line
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = undefined
    })
  }

  /** Waits until what is queued is written, has failed, or the time is over. */
  async settle(timeoutMs: number): Promise<void> {
    const late = new AbortController()
    await Promise.race([this.#writing, wait(timeoutMs, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
  }

  async #drain(): Promise<void> {
    let batch = ''
    try {
      this.#fd ??= await this.#open()
      while (this.#queue !== '') {
        batch = this.#queue
        this.#queue = ''
        await writeAll(this.#fd, batch)
      }
      this.#failing = false
    } catch (error) {
      this.#queue = batch.length + this.#queue.length <= MAX_QUEUE_LENGTH ? batch + this.#queue : this.#queue
      if (!this.#failing) this.#onError(error instanceof Error ? error : new Error(String(error)))
      this.#failing = true
    }
  }
}

async function writeAll(fd: number, text: string): Promise<void> {
  let rest = Buffer.from(text)
  while (rest.length > 0) {
    try {
      const { bytesWritten } = await writeTo(fd, rest)
      rest = rest.subarray(bytesWritten)
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error
      await wait(BUSY_RETRY_MS) // a pipe whose reader is slower than we are
    }
  }
}
