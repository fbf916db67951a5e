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
  /** Where its stream of events broke off, if it can be taken up again. */
  position: StreamPosition | undefined
}

/** A place in a stream of events (Streamable HTTP of 2025, "Resumability and Redelivery"). */
export interface StreamPosition {
  readonly eventId: string
  /** What the server asks to wait before the stream is taken up again. */
  readonly retryMs: number | undefined
}

/** Something that may be given up: an AbortSignal, or what has the part of one that is needed here. */
export type Cancellation = Pick<AbortSignal, 'aborted'> & {
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
}

type EndListener = (reason: GatewayError) => void

/**
 * The clock of one call. Progress winds it up again, up to the hard cap; the caller may stop it at any time. No AbortController
 * of its own: making one costs more than deciding a call.
 */
export class CallClock {
  readonly #timeoutMs: number
  readonly #endsAt: number
  readonly #caller: Cancellation | undefined
  readonly #listeners = new Set<EndListener>()
  #timer: NodeJS.Timeout
  #ended: GatewayError | undefined

  constructor(timeoutMs: number, maxTimeoutMs: number, caller?: Cancellation) {
    this.#timeoutMs = Math.min(timeoutMs, maxTimeoutMs)
    this.#endsAt = performance.now() + maxTimeoutMs
    this.#timer = setTimeout(this.#expire, this.#timeoutMs)
    this.#caller = caller
    if (caller?.aborted) this.#abandon()
    else caller?.addEventListener('abort', this.#abandon)
  }

  /** The error the call ends with, once its time is over or the caller has gone. */
  get ended(): GatewayError | undefined {
    return this.#ended
  }

  /** Calls back when the clock ends, unless it has been stopped or the returned function was called before. */
  onEnd(listener: EndListener): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  progress(): void {
    clearTimeout(this.#timer)
    const remainingMs = Math.max(1, Math.ceil(this.#endsAt - performance.now()))
    if (!this.#ended) this.#timer = setTimeout(this.#expire, Math.min(this.#timeoutMs, remainingMs))
  }

  /** Waits for something the call needs first (a connect, a list), but not longer than the call may take. */
  wait<T>(needed: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#ended) reject(this.#ended)
      const unsubscribe = this.onEnd(reject)
      needed.then(resolve, reject).finally(unsubscribe)
    })
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#listeners.clear()
    this.#caller?.removeEventListener('abort', this.#abandon)
  }

  readonly #expire = (): void => {
    const details = { timeout_ms: this.#timeoutMs }
    this.#end(new GatewayError('TIMEOUT', `no answer within ${this.#timeoutMs} ms`, { details }))
  }

  readonly #abandon = (): void => this.#end(new GatewayError('OUTCOME_UNKNOWN', 'the caller cancelled the call'))

  #end(reason: GatewayError): void {
    if (this.#ended) return
    this.#ended = reason
    clearTimeout(this.#timer)
    const listeners = [...this.#listeners]
    this.#listeners.clear()
    for (const listener of listeners) listener(reason)
  }
}
