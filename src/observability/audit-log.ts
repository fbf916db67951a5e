import { AuditFile, DEFAULT_MAX_BYTES } from './audit-file.js'

/** One tool call, whatever became of it. Never contains argument values. */
export interface AuditEvent {
  readonly time: string
  /** A subject is a name only to the issuer that gave it; the person at this machine has no issuer. */
  readonly principal: string
  readonly issuer?: string | undefined
  readonly client?: string | undefined
  readonly tenant?: string | undefined
  readonly agent: string | null
  /** The gateway's own tool that was called. */
  readonly operation: string
  /** The server and the tool behind it: what was meant, not the wrapper. */
  readonly server: string | null
  readonly tool: string | null
  readonly decision: 'allow' | 'deny' | 'ask' | null
  readonly rule: string | null
  /** `OK`, `TOOL_ERROR` when the tool itself reported a failure, or the code of the gateway's error. */
  readonly code: string
  /** Where the rules want a person to be asked: what came of it. */
  readonly confirmation?: 'asked' | 'accepted' | 'declined' | 'cancelled' | 'impossible'
  readonly latency_ms: number
  /** Of what came over HTTP and did not get in: from where, and how many like it were left out before it. */
  readonly address?: string
  readonly suppressed?: number
}

/** Who did it, as a line says it. */
export const whoOf = ({ id, issuer, clientId, tenant }: Who) => ({ principal: id, issuer, client: clientId, tenant })

/** What a line needs of a principal. */
interface Who {
  readonly id: string
  readonly issuer?: string | undefined
  readonly clientId?: string | undefined
  readonly tenant?: string | undefined
}

export interface AuditLog {
  /** The line of what was begun only because there would be one `isOwed`: it is not given up, however many wait. */
  write(event: AuditEvent, isOwed?: boolean): void
  /** Why lines cannot be written at the moment, or may have to be given up. */
  readonly failure?: Error | undefined
  /** Lines that were given up since the start. */
  readonly dropped?: number
  /** Waits, for a moment, for what is still in memory. */
  close(): Promise<void>
}

export interface AuditLogOptions {
  readonly file: string
  readonly redact: (text: string) => string
  /** Called once per outage. */
  readonly onError: (error: Error) => void
  readonly maxBytes?: number | undefined
}

const FLUSH_MS = 3_000
// What may wait for a slow or full disk; lines beyond that are dropped, calls are never held up.
const MAX_QUEUE_LENGTH = 4 * 1024 * 1024
// The queue counts as full from here, until half of that is written; the rest is for the lines of what is refused meanwhile.
const FULL_QUEUE_LENGTH = 3 * 1024 * 1024
// Under load a write carries the lines of this time; a write a line costs as much as deciding the call.
const GATHER_MS = 20
// Hashing more than this at once would be felt by calls.
const MAX_BATCH = 1_000
// What the chain adds to a line, about.
const PLACE_LENGTH = 80

/**
 * Appends JSON lines, each of which names the one before, to a file that only its owner may read. A call never waits for the disk,
 * and never fails for it unless the configuration wants that.
 */
export function openAuditLog(options: AuditLogOptions): AuditLog {
  return new QueuedAuditLog(options)
}

class QueuedAuditLog implements AuditLog {
  readonly #file: AuditFile
  readonly #options: AuditLogOptions
  #queue: string[] = []
  #length = 0
  #writing: Promise<void> | undefined
  #waiting: NodeJS.Timeout | undefined
  #failure: Error | undefined
  #overflow: Error | undefined
  #dropped = 0
  /** Dropped, and not yet said so in the log itself. */
  #lost = 0

  constructor(options: AuditLogOptions) {
    this.#options = options
    this.#file = new AuditFile({ file: options.file, maxBytes: options.maxBytes ?? DEFAULT_MAX_BYTES })
    this.#start() // so that a file that cannot be written is known at the start
  }

  get failure(): Error | undefined {
    return this.#failure ?? this.#overflow
  }

  get dropped(): number {
    return this.#dropped
  }

  write(event: AuditEvent, isOwed = false): void {
    const line = this.#options.redact(JSON.stringify(event))
    if (isOwed || this.#length + line.length <= MAX_QUEUE_LENGTH) {
      this.#queue.push(line)
      this.#length += line.length
    } else {
      this.#dropped++
      this.#lost++
    }
    this.#watchLength()
    this.#waiting ??= setTimeout(this.#start, GATHER_MS)
  }

  #watchLength(): void {
    if (this.#length < FULL_QUEUE_LENGTH / 2) this.#overflow = undefined
    if (this.#overflow || this.#length < FULL_QUEUE_LENGTH) return
    const overflow = `more than ${FULL_QUEUE_LENGTH} characters wait to be written: beyond ${MAX_QUEUE_LENGTH} lines are dropped`
    this.#overflow = new Error(overflow)
    this.#options.onError(this.#overflow)
  }

  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>(resolve => {
      timer = setTimeout(resolve, FLUSH_MS)
    })
    await Promise.race([this.#writeAll(), late])
    clearTimeout(timer)
    if (!this.#writing) await this.#file.close()
  }

  async #writeAll(): Promise<void> {
    do {
      this.#start()
      await this.#writing
    } while (this.#queue.length > 0 && !this.#failure)
    clearTimeout(this.#waiting)
  }

  readonly #start = (): void => {
    clearTimeout(this.#waiting)
    this.#waiting = undefined
    this.#writing ??= this.#writeBatch().finally(() => {
      this.#writing = undefined
      if (this.#queue.length > 0 && !this.#failure) this.#waiting ??= setTimeout(this.#start, GATHER_MS)
    })
  }

  /** A file takes no more than it may hold; a line has to go somewhere, however small that is. */
  #nextBatch(): readonly string[] {
    let room = (this.#options.maxBytes ?? DEFAULT_MAX_BYTES) / 2
    const end = this.#queue.findIndex((line, index) => {
      room -= line.length + PLACE_LENGTH
      return index === MAX_BATCH || (room < 0 && index > 0)
    })
    return this.#queue.slice(0, end < 0 ? undefined : end)
  }

  /** What fails is tried again with the next line. */
  async #writeBatch(): Promise<void> {
    const batch = this.#nextBatch()
    const lost = this.#lost
    try {
      await this.#file.append(batch, lost)
      this.#failure = undefined
      this.#queue = this.#queue.slice(batch.length)
      for (const line of batch) this.#length -= line.length
      this.#watchLength()
      if (batch.length > 0) this.#lost -= lost
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error))
      if (!this.#failure) this.#options.onError(failure)
      this.#failure = failure
    }
  }
}
