import { messageOf } from '../errors/gateway-error.js'
import { CallClock } from './call.js'
import type { Connection } from './connection.js'
import type { BackendChange } from './server-messages.js'

/** Somebody who wants to hear what a backend announces. */
export interface Watcher {
  /** The resources whose changes it wants announced; changes of lists are announced to every watcher. */
  readonly uris: readonly string[]
  readonly onChange: (change: BackendChange) => void
}

const SUBSCRIBE_MS = 30_000

/** Those who watch one session, and what its backend was asked to announce for them: each resource once, however many want it. */
export class Watchers {
  readonly #wanted = new Map<Watcher, () => void>()
  readonly #onFailure: (reason: string) => void

  constructor(onFailure: (reason: string) => void) {
    this.#onFailure = onFailure
  }

  get isEmpty(): boolean {
    return this.#wanted.size === 0
  }

  /** A resource's parts may be announced for it (2025-11-25, "Resources", "Subscriptions"). */
  announce(change: BackendChange): void {
    for (const { uris, onChange } of [...this.#wanted.keys()]) {
      if (change.kind !== 'resource' || uris.some(uri => change.uri.startsWith(uri))) onChange(change)
    }
  }

  /** True when somebody waits for news of a resource, which only a connection brings. */
  get hasResources(): boolean {
    return [...this.#wanted.keys()].some(({ uris }) => uris.length > 0)
  }

  /** For a watcher of lists alone, whom the backend need not be asked for. */
  note(watcher: Watcher): void {
    this.#wanted.set(watcher, () => {})
  }

  /** Asks for what the watcher wants, and keeps asking after each reconnect. Rejects as Connection.request does. */
  async add(watcher: Watcher, connection: Connection): Promise<void> {
    this.#wanted.set(watcher, () => {})
    try {
      await this.#ask(watcher, connection)
    } catch (error) {
      this.#wanted.delete(watcher)
      throw error
    }
  }

  remove(watcher: Watcher, connection: Connection | undefined): void {
    this.#wanted.get(watcher)?.()
    this.#wanted.delete(watcher)
    if (connection?.era !== 'legacy') return
    for (const uri of watcher.uris) {
      if (!this.#isWanted(uri)) subscription('resources/unsubscribe', uri, connection).catch(() => {})
    }
  }

  /** On a new connection nothing is subscribed to. */
  renew(connection: Connection): void {
    for (const [watcher, stop] of this.#wanted) {
      stop()
      void this.#ask(watcher, connection).catch(error => this.#onFailure(messageOf(error)))
    }
  }

  async #ask(watcher: Watcher, connection: Connection): Promise<void> {
    const { uris } = watcher
    if (uris.length === 0) return
    if (connection.era === 'legacy') {
      await Promise.all(uris.map(uri => subscription('resources/subscribe', uri, connection)))
      return
    }
    let wasOpen = false
    const stop = connection.listenTo(uris, () => {
      // What changed while nobody listened was not announced.
      if (wasOpen) for (const uri of uris) watcher.onChange({ kind: 'resource', uri, params: { uri } })
      wasOpen = true
    })
    this.#wanted.set(watcher, stop)
  }

  #isWanted(uri: string): boolean {
    return [...this.#wanted.keys()].some(({ uris }) => uris.includes(uri))
  }
}

async function subscription(method: string, uri: string, connection: Connection): Promise<void> {
  const clock = new CallClock(SUBSCRIBE_MS, SUBSCRIBE_MS)
  try {
    await connection.request({ method, params: { uri } }, clock)
  } finally {
    clock.stop()
  }
}
