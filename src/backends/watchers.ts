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
  readonly #watchers = new Map<Watcher, ReadonlySet<string>>()
  /** How many want each resource. */
  readonly #wanted = new Map<string, number>()
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
    return this.#wanted.size > 0
  }

  announce(change: BackendChange): void {
    const wholes = change.kind === 'resource' ? wholesOf(change.uri) : []
    for (const [{ onChange }, uris] of [...this.#watchers]) {
      if (change.kind !== 'resource' || wholes.some(uri => uris.has(uri))) onChange(change)
    }
  }

  /** For a watcher of lists alone, whom the backend need not be asked for. */
  note(watcher: Watcher): void {
    const uris = new Set(watcher.uris)
    this.#watchers.set(watcher, uris)
    for (const uri of uris) this.#wanted.set(uri, (this.#wanted.get(uri) ?? 0) + 1)
  }

  /** Gives the resources that nobody wants any more. */
  #forget(watcher: Watcher): string[] {
    const uris = this.#watchers.get(watcher) ?? []
    this.#watchers.delete(watcher)
    return [...uris].filter(uri => {
      const left = (this.#wanted.get(uri) ?? 1) - 1
      if (left > 0) this.#wanted.set(uri, left)
      else this.#wanted.delete(uri)
      return left === 0
    })
  }

  /** Asks for what the watcher wants, and keeps asking after each reconnect. Rejects when the backend refuses all of it. */
  async add(watcher: Watcher, connection: Connection): Promise<void> {
    this.note(watcher)
    try {
      await this.#ask(watcher.uris, connection)
    } catch (error) {
      this.#forget(watcher)
      throw error
    }
  }

  remove(watcher: Watcher, connection: Connection | undefined): void {
    const given = this.#forget(watcher)
    if (given.length === 0 || !connection) return
    if (connection.era === 'modern') void this.#listen(connection)
    else for (const uri of given) subscription('resources/unsubscribe', uri, connection).catch(() => {})
  }

  /** On a new connection nothing is subscribed to. */
  renew(connection: Connection): void {
    this.#streams.clear() // they ended with the connection before
    this.#ask([...this.#wanted.keys()], connection).catch(error => this.#onFailure(messageOf(error)))
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
    const uris = [...this.#wanted.keys()]
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
        if (isOpen) this.#announceAll()
        else endBefore()
        isOpen = true
        resolve()
      })
      this.#streams.add(stop)
    })
    this.#opening = undefined // what is wanted from here on needs another one
    await Promise.race([opened, wait(OPEN_MS, undefined, { ref: false })])
  }

  #announceAll(): void {
    for (const [{ onChange }, uris] of [...this.#watchers])
      for (const uri of uris) onChange({ kind: 'resource', uri, params: { uri } })
  }
}

/** The resources for which a change of this one may be announced: itself, and what it is a part of (2025-11-25, "Subscriptions"). */
function wholesOf(changed: string): readonly string[] {
  const wholes = [changed]
  for (const { index } of changed.matchAll(/[/?#]/g)) wholes.push(changed.slice(0, index), changed.slice(0, index + 1))
  return wholes
}

async function subscription(method: string, uri: string, connection: Connection): Promise<void> {
  const clock = new CallClock(SUBSCRIBE_MS, SUBSCRIBE_MS)
  try {
    await connection.request({ method, params: { uri } }, clock)
  } finally {
    clock.stop()
  }
}
