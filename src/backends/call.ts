import type { Progress } from '@modelcontextprotocol/client'
import { GatewayError } from '../errors/gateway-error.js'
import type { JsonObject } from '../json.js'

/** A request on its way to a backend. */
export interface OutgoingRequest {
  readonly method: string
  readonly params: JsonObject
  /** The caller's `_meta` without what belongs to one hop only (envelope, progress token). */
  readonly meta?: JsonObject | undefined
  /** Headers beyond those that every request has. */
  readonly headers?: Readonly<Record<string, string>>
  /** Hears of progress, in order and before the result. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** The client the request is made for, where a backend may turn to it. */
  readonly client?: ClientPeer | undefined
}

/** A `tools/call` on its way to a backend. */
export interface OutgoingCall extends Omit<OutgoingRequest, 'method' | 'params' | 'headers'> {
  readonly name: string
  readonly arguments: JsonObject
  /** What the client answered to an `input_required` result, and the state that came with it (2026-07-28). */
  readonly retry?: JsonObject | undefined
}

/** A request that a backend makes of the client, on its way there. */
export interface BackendAsk {
  readonly method: string
  readonly params: JsonObject
  /** Aborted when the backend no longer wants the answer, or the connection is gone. */
  readonly signal: AbortSignal
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/** The client for which a request is made or a session is held, as a backend may see it. */
export interface ClientPeer {
  /** What keeps clients apart: nothing meant for one principal is ever given to another. */
  readonly principal: string
  /** Its client capabilities, as it declared them. */
  readonly capabilities: JsonObject
  /** The least severe log messages it asked for, if it said. */
  readonly logLevel?: string | undefined
  /** Whether it wants log messages that belong to its request. */
  readonly takesLogs: boolean
  /** Puts a request of the backend to the client. Rejects with ClientRefusal when the client says no, or cannot be asked. */
  ask(request: BackendAsk): Promise<RawResult>
  /** Passes on a notification of the backend. */
  tell(method: string, params: JsonObject): void
}

/** The client answered a backend's request with a JSON-RPC error, or nobody could put it to the client. */
export class ClientRefusal extends Error {
  override readonly name = 'ClientRefusal'
  readonly code: number
  readonly data: unknown

  constructor(code: number, message: string, data?: unknown) {
    super(message)
    this.code = code
    this.data = data
  }
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
  readonly #onStop: (() => void) | undefined
  readonly #listeners = new Set<EndListener>()
  #timer: NodeJS.Timeout
  #held = 0
  #isStopped = false
  #ended: GatewayError | undefined

  /** `onStop` hears when the call is over, whatever became of it. */
  constructor(timeoutMs: number, maxTimeoutMs: number, caller?: Cancellation, onStop?: () => void) {
    this.#onStop = onStop
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
    if (this.#ended || this.#isStopped) return
    const remainingMs = Math.max(1, Math.ceil(this.#endsAt - performance.now()))
    // Somebody is being asked: that takes as long as people take.
    const limitMs = this.#held > 0 ? remainingMs : Math.min(this.#timeoutMs, remainingMs)
    this.#timer = setTimeout(this.#expire, limitMs)
  }

  /** Stands still, but for the hard cap, until the returned function is called: the backend waits for the client. */
  hold(): () => void {
    this.#held++
    this.progress()
    let isReleased = false
    return () => {
      if (isReleased) return
      isReleased = true
      this.#held--
      this.progress()
    }
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
    if (this.#isStopped) return
    this.#isStopped = true
    clearTimeout(this.#timer)
    this.#listeners.clear()
    this.#caller?.removeEventListener('abort', this.#abandon)
    this.#onStop?.()
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
