import { GatewayError } from '../errors/gateway-error.js'
import type { Snapshot } from './snapshot.js'

/** Owns the current snapshot and knows which calls are under way. */
export class Runtime {
  readonly current: Snapshot
  #inFlight = 0
  #draining = false
  #drained: (() => void) | undefined

  constructor(snapshot: Snapshot) {
    this.current = snapshot
  }

  /** True once no new calls are taken. */
  get isDraining(): boolean {
    return this.#draining
  }

  /** Calls under way. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** Counts a call until it has settled, so that a shutdown can wait for it. Rejects with SHUTTING_DOWN once that has begun. */
  async track<T>(call: () => Promise<T>): Promise<T> {
    if (this.#draining) throw new GatewayError('SHUTTING_DOWN', 'the gateway is shutting down: try again in a moment')
    this.#inFlight++
    try {
      return await call()
    } finally {
      this.#inFlight--
      if (this.#inFlight === 0) this.#drained?.()
    }
  }

  /** Refuses new calls, waits for those under way (at most `graceMs`), then closes every backend. */
  async close(graceMs: number): Promise<void> {
    this.#draining = true
    if (this.#inFlight > 0) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, graceMs)
        this.#drained = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    await Promise.all([...this.current.backends.values()].map(backend => backend.close()))
  }
}
