import type { Backend } from '../backends/backend.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { Snapshot } from './snapshot.js'

/** How the last attempt to load a new configuration went. */
export interface ReloadState {
  /** When the configuration that is in effect was loaded. */
  readonly lastReload: Date
  /** Why a newer one is not. */
  readonly lastError?: string | undefined
}

/** Owns the current snapshot and knows which calls are under way. */
export class Runtime {
  #current: Snapshot
  #inFlight = 0
  #draining = false
  #drained: (() => void) | undefined
  #reloadError: string | undefined
  readonly #listeners = new Set<() => void>()
  /** Backends of former snapshots that have calls to finish. */
  readonly #retired = new Set<Backend>()

  constructor(snapshot: Snapshot) {
    this.#current = snapshot
  }

  /** A call takes it once and keeps it to its end. */
  get current(): Snapshot {
    return this.#current
  }

  get reload(): ReloadState {
    return { lastReload: this.#current.loadedAt, lastError: this.#reloadError }
  }

  /** True once no new calls are taken. */
  get isDraining(): boolean {
    return this.#draining
  }

  /** Calls under way. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** Puts a new snapshot in the place of the current one, in one step; backends that are not in it any more finish their calls. */
  swap(next: Snapshot): void {
    const kept = new Set(next.backends.values())
    const removed = [...this.#current.backends.values()].filter(backend => !kept.has(backend))
    this.#current = next
    this.#reloadError = undefined
    for (const backend of removed) {
      this.#retired.add(backend)
      void backend.retire().finally(() => this.#retired.delete(backend))
    }
    for (const listener of [...this.#listeners]) listener()
  }

  /** A new configuration could not be loaded; the current one stays. */
  keepCurrent(reason: string): void {
    this.#reloadError = reason
  }

  /** Calls back after each swap, until the returned function is called. */
  onSwap(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
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
    await Promise.all([...this.#current.backends.values(), ...this.#retired].map(backend => backend.close()))
  }
}
