import { setTimeout as wait } from 'node:timers/promises'
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
// A stream is open within moments, or it will be open later.
const OPEN_MS = 2_000

/** Those who watch one session, and what its backend was asked to announce for them: each resource once, however many want it. */
export class Watchers {
  readonly #watchers = new Set<Watcher>()
  readonly #onFailure: (reason: string) => void
  /** The streams of a backend of 2026: one, but for the moment in which another takes its place. */
  readonly #streams = new Set<() => void>()
  #opening: Promise<void> | undefined

  constructor(onFailure: (reason: string) => void) {
    this.#onFailure = onFailure
  }

  get isEmpty(): boolean {
    return this.#watchers.size === 0
  }

  /** True when somebody waits for news of a resource, which only a connection brings. */
  get hasResources(): boolean {
    return this.#wanted().length > 0
  }

  announce(change: BackendChange): void {
    for (const { uris, onChange } of [...this.#watchers]) {
      if (change.kind !== 'resource' || uris.some(uri => isPartOf(change.uri, uri))) onChange(change)
    }
  }

  /** For a watcher of lists alone, whom the backend need not be asked for. */
  note(watcher: Watcher): void {
    this.#watchers.add(watcher)
  }

  /** Asks for what the watcher wants, and keeps asking after each reconnect. Rejects when the backend refuses all of it. */
  async add(watcher: Watcher, connection: Connection): Promise<void> {
    this.#watchers.add(watcher)
    try {
      await this.#ask(watcher.uris, connection)
    } catch (error) {
      this.#watchers.delete(watcher)
      throw error
    }
  }

  remove(watcher: Watcher, connection: Connection | undefined): void {
    if (!this.#watchers.delete(watcher) || !connection) return
    const wanted = this.#wanted()
    const given = watcher.uris.filter(uri => !wanted.includes(uri))
    if (given.length === 0) return
    if (connection.era === 'modern') void this.#listen(connection)
    else for (const uri of given) subscription('resources/unsubscribe', uri, connection).catch(() => {})
  }

  /** On a new connection nothing is subscribed to. */
  renew(connection: Connection): void {
    this.#streams.clear() // they ended with the connection before
    this.#ask(this.#wanted(), connection).catch(error => this.#onFailure(messageOf(error)))
  }

  async #ask(uris: readonly string[], connection: Connection): Promise<void> {
    if (uris.length === 0) return
    if (connection.era === 'modern') return this.#listen(connection)
    const asked = await Promise.allSettled(uris.map(uri => subscription('resources/subscribe', uri, connection)))
    const refused = asked.filter(outcome => outcome.status === 'rejected')
    if (refused.length === uris.length) throw refused[0]?.reason
    for (const { reason } of refused) this.#onFailure(messageOf(reason))
  }

  /** One stream for all that is wanted, in the place of the one before; whatever changes in one go makes one. */
  #listen(connection: Connection): Promise<void> {
    this.#opening ??= Promise.resolve()
      .then(() => this.#open(connection))
      .finally(() => {
        this.#opening = undefined
      })
    return this.#opening
  }

  async #open(connection: Connection): Promise<void> {
    const uris = this.#wanted()
    const before = [...this.#streams]
    const endBefore = () => {
      for (const stop of before) {
        stop()
        this.#streams.delete(stop)
      }
    }
    if (uris.length === 0) return endBefore()
    let isOpen = false
    const opened = new Promise<void>(resolve => {
      const stop = connection.listenTo(uris, () => {
        // What changed while nobody listened was not announced.
        if (isOpen) for (const uri of uris) this.announce({ kind: 'resource', uri, params: { uri } })
        else endBefore()
        isOpen = true
        resolve()
      })
      this.#streams.add(stop)
    })
    this.#opening = undefined // what is wanted from here on needs another one
    await Promise.race([opened, wait(OPEN_MS, undefined, { ref: false })])
  }

  #wanted(): readonly string[] {
    return [...new Set([...this.#watchers].flatMap(({ uris }) => uris))]
  }
}

/** A resource's parts may be announced for it (2025-11-25, "Resources", "Subscriptions"). */
function isPartOf(changed: string, wanted: string): boolean {
  if (!changed.startsWith(wanted)) return false
  const next = changed[wanted.length]
  return next === undefined || '/?#'.includes(next) || wanted.endsWith('/')
}

async function subscription(method: string, uri: string, connection: Connection): Promise<void> {
  const clock = new CallClock(SUBSCRIBE_MS, SUBSCRIBE_MS)
  try {
    await connection.request({ method, params: { uri } }, clock)
  } finally {
    clock.stop()
  }
}
