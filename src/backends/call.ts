import type { Progress } from '@modelcontextprotocol/client'
import { GatewayError } from '../errors/gateway-error.js'

/** A `tools/call` on its way to a backend. */
export interface OutgoingCall {
  readonly name: string
  readonly arguments: Readonly<Record<string, unknown>>
  /** The caller's `_meta` without what belongs to one hop only (envelope, progress token). */
  readonly meta?: Readonly<Record<string, unknown>> | undefined
  /** Hears of progress, in order and before the result. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** A JSON-RPC result object, exactly as the backend sent it. */
export type RawResult = Readonly<Record<string, unknown>>

/** The backend answered, with a JSON-RPC error. */
export class BackendRefusal extends Error {
  override readonly name = 'BackendRefusal'
  readonly code: number
  readonly data: unknown

  constructor(code: number, message: string, data: unknown) {
    super(message)
    this.code = code
    this.data = data
  }
}

/** The backend does not know our session any more (404 on Streamable HTTP): the call did not happen and may be made again. */
export class SessionLost extends Error {
  override readonly name = 'SessionLost'
}

/** No connection could be made, so nothing was sent. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable'
}

/** The connection broke after the call was sent. */
export class ConnectionBroken extends Error {
  override readonly name = 'ConnectionBroken'
  /** The backend's last words, when it was a process. */
  stderr: readonly string[] = []
}

/** The clock of one call. Progress winds it up again, up to the hard cap; the caller may stop it at any time. */
export class CallClock {
  readonly #controller = new AbortController()
  readonly #timeoutMs: number
  readonly #endsAt: number
  readonly #caller: AbortSignal | undefined
  #timer: NodeJS.Timeout

  constructor(timeoutMs: number, maxTimeoutMs: number, caller?: AbortSignal) {
    this.#timeoutMs = Math.min(timeoutMs, maxTimeoutMs)
    this.#endsAt = performance.now() + maxTimeoutMs
    this.#timer = setTimeout(this.#expire, this.#timeoutMs)
    this.#caller = caller
    if (caller?.aborted) this.#abandon()
    else caller?.addEventListener('abort', this.#abandon, { once: true })
  }

  /** Aborted with the GatewayError that the call ends with. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get timeoutMs(): number {
    return this.#timeoutMs
  }

  get remainingMs(): number {
    return Math.max(1, Math.ceil(this.#endsAt - performance.now()))
  }

  progress(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(this.#expire, Math.min(this.#timeoutMs, this.remainingMs))
  }

  /** Waits for something the call needs first (a connect, a list), but not longer than the call may take. */
  async wait<T>(needed: Promise<T>): Promise<T> {
    const { signal } = this
    let abandon: (() => void) | undefined
    const ended = new Promise<never>((_, reject) => {
      abandon = () => reject(signal.reason)
      if (signal.aborted) abandon()
      else signal.addEventListener('abort', abandon, { once: true })
    })
    try {
      return await Promise.race([needed, ended])
    } finally {
      if (abandon) signal.removeEventListener('abort', abandon)
    }
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#caller?.removeEventListener('abort', this.#abandon)
  }

  readonly #expire = (): void => {
    this.#controller.abort(
      new GatewayError('TIMEOUT', `no answer within ${this.#timeoutMs} ms`, {
        details: { timeout_ms: this.#timeoutMs },
      }),
    )
  }

  readonly #abandon = (): void => {
    this.#controller.abort(new GatewayError('OUTCOME_UNKNOWN', 'the caller cancelled the call'))
  }
}
