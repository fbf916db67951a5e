import type { Backend } from '../backends/backend.js'
import type { CallClock, Cancellation } from '../backends/call.js'
import { GatewayError, toGatewayError } from '../errors/gateway-error.js'
import type { GatewayCall } from './tool.js'

// As long as nobody has answered: servers that start together may all need a while.
const MAX_MS = 5_000
// Once somebody has, the others get this long, or as long again.
const MIN_MS = 1_000
// For a server that has used that up before: nothing is held up by it a second time.
const SECOND_PATIENCE_MS = 100
const late = new WeakSet<Backend>()

/**
 * How long a list of many servers waits for those that nobody has heard of yet. One that takes longer goes on starting: the next list
 * has it, and clients hear of it.
 */
export class Patience {
  readonly #call: GatewayCall
  readonly #since = performance.now()
  readonly #over = new AbortController()
  #timer = setTimeout(() => this.#over.abort(), MAX_MS).unref()

  constructor(call: GatewayCall) {
    this.#call = call
  }

  /** Asks one of them. Rejects when it cannot be had in that time. */
  async ask<T>(backend: Backend, ask: (clock: CallClock) => Promise<T>): Promise<T> {
    const signal = eitherOf(this.#call.caller.signal, this.#over.signal)
    const timeoutMs = late.has(backend) ? SECOND_PATIENCE_MS : MAX_MS
    const clock = backend.startClock({ timeoutMs, signal })
    try {
      const answer = await ask(clock)
      late.delete(backend)
      this.answered()
      return answer
    } catch (error) {
      const isLate = clock.ended?.code === 'TIMEOUT' || this.#over.signal.aborted
      if (!isLate) throw error
      late.add(backend)
      const timeout = Math.round(performance.now() - this.#since)
      throw new GatewayError('TIMEOUT', `the server "${backend.name}": no answer within ${timeout} ms`, {
        cause: error,
        details: { server: backend.name, timeout_ms: timeout },
      })
    } finally {
      clock.stop()
    }
  }

  /** One of them has answered, or was known from before. */
  answered(): void {
    if (this.#over.signal.aborted) return
    clearTimeout(this.#timer)
    const elapsed = performance.now() - this.#since
    const restMs = Math.min(MAX_MS, Math.max(MIN_MS, 2 * elapsed)) - elapsed
    this.#timer = setTimeout(() => this.#over.abort(), restMs).unref()
  }
}

function eitherOf(caller: Cancellation | undefined, over: AbortSignal): Cancellation {
  if (!caller) return over
  return {
    get aborted() {
      return caller.aborted || over.aborted
    },
    addEventListener(type, listener) {
      for (const signal of [caller, over]) signal.addEventListener(type, listener)
    },
    removeEventListener(type, listener) {
      for (const signal of [caller, over]) signal.removeEventListener(type, listener)
    },
  }
}

/** Why a server's tools are those that are known from before, or none. */
export interface Unavailable {
  readonly [field: string]: unknown
  readonly server: string
  readonly state: string
  readonly code: string
  readonly reason: string
}

export function unavailable(backend: Backend, error: unknown): Unavailable {
  const { code, message } = toGatewayError(error)
  return { server: backend.name, state: backend.status().state, code, reason: message }
}
