import type { Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { BackendChange } from '../backends/server-messages.js'
import type { Endpoint, WatchFilter } from './endpoint.js'
import type { GatewayCall } from './tool.js'
import { PAUSE_MS, SETTLE_MS, VisibleTools } from './visible-tools.js'

export interface WatchOptions {
  /** What the caller has in front of it, by the configuration of this moment. */
  readonly look: () => { readonly endpoint: Endpoint; readonly call: GatewayCall }
  readonly filter: WatchFilter
  readonly onChange: (change: BackendChange) => void
}

/**
 * What one caller hears of: changes of lists, where what it sees of them has changed, and of resources it asked for. It stays the
 * same watch when the configuration is another one, whose servers may be others.
 */
export class Watch {
  readonly #options: WatchOptions
  readonly #tools: VisibleTools | undefined
  readonly #timers = new Map<string, NodeJS.Timeout>()
  readonly #announcedAt = new Map<string, number>()
  #isOpen = false
  #backends: readonly Backend[] = []
  #stops: (() => void)[] = []
  /** Grows with each configuration, and when it is over: what was begun before does not count any more. */
  #generation = 0

  constructor(options: WatchOptions) {
    this.#options = options
    const { look, filter, onChange } = options
    const list = async (): Promise<readonly Tool[]> => {
      const { endpoint, call } = look()
      return endpoint.visibleTools(call)
    }
    this.#tools = filter.lists.includes('tools') ? new VisibleTools(list, () => onChange({ kind: 'tools' })) : undefined
  }

  /** Resolves once everything is listened to that can be. Rejects when a resource cannot be watched. */
  async open(): Promise<void> {
    try {
      await this.#listen()
    } finally {
      this.#isOpen = true
    }
  }

  async #listen(): Promise<void> {
    const { endpoint, call } = this.#options.look()
    this.#backends = endpoint.backends(call)
    const opening = this.#backends.map(backend => this.#watch(endpoint, call, backend))
    await Promise.all([...opening, this.#tools?.ready()])
  }

  /** The configuration is another one: listens to its servers instead, and tells what that changes. */
  async renew(): Promise<void> {
    const before = this.#backends
    const had = (['prompts', 'resources'] as const).map(kind => ({
      kind,
      by: before.filter(backend => backend.has(kind)),
    }))
    this.#release()
    try {
      await this.#listen()
    } catch {
      // What cannot be watched now is not there for this caller any more.
    }
    this.#tools?.check()
    // What servers have that are new is announced when they are there.
    for (const { kind, by } of had) {
      const isLess = by.some(backend => !this.#backends.includes(backend))
      if (isLess) this.#announce(kind)
    }
  }

  close(): void {
    this.#tools?.close()
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#release()
  }

  async #watch(endpoint: Endpoint, call: GatewayCall, backend: Backend): Promise<void> {
    const { filter, onChange } = this.#options
    const generation = this.#generation
    const uris = endpoint.ownUris(backend.name, filter.uris)
    this.#keep(
      generation,
      await backend.watch(call.owner, {
        uris: [],
        onChange: change => {
          if (change.kind === 'tools') this.#tools?.check()
          else if (change.kind !== 'resource') this.#announce(change.kind)
        },
      }),
    )
    if (uris.length === 0) return
    const watching = backend.watch(call.owner, {
      uris,
      onChange: change => {
        if (change.kind !== 'resource') return
        const uri = endpoint.publicUri(backend.name, change.uri)
        onChange({ ...change, uri, params: { ...change.params, uri } })
      },
    })
    // Where there is more to hear of, a resource that cannot be watched is no reason to hear nothing.
    const stop = filter.lists.length > 0 ? await watching.catch(() => undefined) : await watching
    if (stop) this.#keep(generation, stop)
  }

  #keep(generation: number, stop: () => void): void {
    if (generation !== this.#generation) stop()
    else this.#stops.push(stop)
  }

  /** A list that changes again and again is one change for a while. */
  #announce(kind: 'prompts' | 'resources'): void {
    // What is there when a server is connected to for the first time is what the caller is going to see.
    if (!this.#isOpen || !this.#options.filter.lists.includes(kind) || this.#timers.has(kind)) return
    const delayMs = Math.max(SETTLE_MS, (this.#announcedAt.get(kind) ?? 0) + PAUSE_MS - Date.now())
    const timer = setTimeout(() => {
      this.#timers.delete(kind)
      this.#announcedAt.set(kind, Date.now())
      this.#options.onChange({ kind })
    }, delayMs).unref()
    this.#timers.set(kind, timer)
  }

  #release(): void {
    this.#generation++
    for (const stop of this.#stops) stop()
    this.#stops = []
  }
}
