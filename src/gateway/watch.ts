import type { Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { BackendChange } from '../backends/server-messages.js'
import type { Endpoint, WatchFilter } from './endpoint.js'
import type { GatewayCall } from './tool.js'
import { VisibleTools } from './visible-tools.js'

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
  #backends: readonly Backend[] = []
  #stops: (() => void)[] = []
  #isClosed = false

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
    const { endpoint, call } = this.#options.look()
    this.#backends = endpoint.backends(call)
    const opening = this.#backends.map(backend => this.#watch(endpoint, call, backend))
    await Promise.all([...opening, this.#tools?.ready()])
  }

  /** The configuration is another one: listens to its servers instead, and tells what that changes. */
  async renew(): Promise<void> {
    const before = this.#backends
    this.#release()
    try {
      await this.open()
    } catch {
      // What cannot be watched now is not there for this caller any more.
    }
    this.#tools?.check()
    if (before.length === this.#backends.length && before.every(backend => this.#backends.includes(backend))) return
    for (const kind of ['prompts', 'resources'] as const)
      if (this.#options.filter.lists.includes(kind)) this.#options.onChange({ kind })
  }

  close(): void {
    this.#isClosed = true
    this.#tools?.close()
    this.#release()
  }

  async #watch(endpoint: Endpoint, call: GatewayCall, backend: Backend): Promise<void> {
    const { filter, onChange } = this.#options
    const uris = endpoint.ownUris(backend.name, filter.uris)
    this.#keep(
      await backend.watch(call.owner, {
        uris: [],
        onChange: change => {
          if (change.kind === 'tools') this.#tools?.check()
          else if (change.kind !== 'resource' && filter.lists.includes(change.kind)) onChange(change)
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
    if (stop) this.#keep(stop)
  }

  #keep(stop: () => void): void {
    if (this.#isClosed) stop()
    else this.#stops.push(stop)
  }

  #release(): void {
    for (const stop of this.#stops) stop()
    this.#stops = []
  }
}
