import { write } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { promisify } from 'node:util'

const writeTo = promisify(write)

// What may wait for a slow or full disk; lines beyond that are dropped, calls are never held up.
const MAX_QUEUE_LENGTH = 4 * 1024 * 1024
const BUSY_RETRY_MS = 50
// Under load a write carries the lines of this time; a write a line costs as much as deciding the call.
const GATHER_MS = 10

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
  #waiting: NodeJS.Timeout | undefined
  #dropped = 0

  constructor(open: () => Promise<number>, onError: (error: Error) => void) {
    this.#open = open
    this.#onError = onError
  }

  write(line: string): void {
    if (this.#queue.length + line.length <= MAX_QUEUE_LENGTH) this.#queue += line
    else if (this.#dropped++ === 0)
      this.#onError(new Error(`more than ${MAX_QUEUE_LENGTH} characters wait to be written: further lines are dropped`))
    this.#waiting ??= setTimeout(this.#start, GATHER_MS)
  }

  /** Waits until what is queued is written, has failed, or the time is over. */
  async settle(timeoutMs: number): Promise<void> {
    const late = new AbortController()
    await Promise.race([this.#writeAll(), wait(timeoutMs, undefined, { signal: late.signal }).catch(() => {})])
    late.abort()
  }

  async #writeAll(): Promise<void> {
    do {
      this.#start()
      await this.#writing
    } while (this.#queue !== '' && !this.#failing)
  }

  readonly #start = (): void => {
    clearTimeout(this.#waiting)
    this.#waiting = undefined
    this.#writing ??= this.#writeBatch().finally(() => {
      this.#writing = undefined
      if (this.#queue !== '' && !this.#failing) this.#waiting ??= setTimeout(this.#start, GATHER_MS)
    })
  }

  async #writeBatch(): Promise<void> {
    let rest = Buffer.from(this.#queue)
    this.#queue = ''
    try {
      this.#fd ??= await this.#open()
      while (rest.length > 0) rest = rest.subarray(await writeSome(this.#fd, rest))
      this.#failing = false
    } catch (error) {
      // Only what is not on the disk yet: a line that is half there has to be continued, not repeated.
      if (rest.length + this.#queue.length <= MAX_QUEUE_LENGTH) this.#queue = rest.toString('utf8') + this.#queue
      if (!this.#failing) this.#onError(error instanceof Error ? error : new Error(String(error)))
      this.#failing = true
    }
  }
}

/** Writes what fits, and says how many bytes that was. */
async function writeSome(fd: number, bytes: Buffer): Promise<number> {
  try {
    return (await writeTo(fd, bytes)).bytesWritten
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error
    await wait(BUSY_RETRY_MS) // a pipe whose reader is slower than we are
    return 0
  }
}
