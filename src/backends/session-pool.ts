import { LRUCache } from 'lru-cache'
import { GatewayError } from '../errors/gateway-error.js'
import type { JsonObject } from '../json.js'
import type { ClientPeer } from './call.js'
import { Session, type SessionOptions } from './session.js'

// Where connections are not shared: how many one backend gets, each of which may be a process, and how long an unused one is kept.
const MAX_SESSIONS = { stdio: 64, remote: 1_000 }
const MAX_PER_PRINCIPAL = { stdio: 16, remote: 200 }
const SESSION_IDLE_MS = 30 * 60_000

/** For whom a call is made; decides which connection it takes where connections are not shared. */
export interface CallOwner {
  readonly agent: string
  readonly principal: string
  /** Present when a backend of the 2025 era, which knows one client per session, needs a session for this client alone. */
  readonly client?: OwnClient | undefined
}

/** A client with capabilities or state of its own. */
export interface OwnClient {
  /** The same for what may share a session. */
  readonly key: string
  readonly capabilities: JsonObject
  /** Its session with the gateway, if it has one. */
  readonly session?: ClientPeer | undefined
}

export type SessionPoolOptions = Omit<
  SessionOptions,
  'group' | 'principal' | 'client' | 'sessionClient' | 'onConnected'
>

/** The sessions of one backend: the shared one, or one for each agent or person, and those that clients have for themselves. */
export class SessionPool {
  readonly #options: SessionPoolOptions
  readonly #sessions: LRUCache<string, Session>
  #isClosed = false

  constructor(options: SessionPoolOptions) {
    this.#options = options
    this.#sessions = new LRUCache({
      ttl: SESSION_IDLE_MS,
      updateAgeOnGet: true,
      ttlAutopurge: true,
      disposeAfter: (session, key, reason) => {
        if (reason === 'expire') this.#letGo(session, key)
      },
    })
  }

  get all(): readonly Session[] {
    return [...this.#sessions.values()]
  }

  /** The session for a call, made if there is none; connecting it is another matter. */
  get(owner: CallOwner): Session {
    const key = this.#keyOf(owner)
    const existing = this.#sessions.get(key)
    if (existing) return existing
    const group = this.#groupOf(owner)
    const client = key === group ? undefined : owner.client
    if (client) this.#makeRoom(owner.principal)
    const session: Session = new Session({
      ...this.#options,
      group,
      principal: owner.principal,
      client,
      sessionClient: client?.session,
      onConnected: ({ era }) => {
        if (era === 'modern' && client) this.#share(session, key)
      },
    })
    this.#keep(key, session)
    return session
  }

  find(owner: CallOwner): Session | undefined {
    return this.#sessions.get(this.#keyOf(owner))
  }

  /** The session that this client has for itself, if it has one. */
  own(owner: CallOwner): Session | undefined {
    const session = owner.client && this.find(owner)
    return session && session.clientKey === owner.client?.key && this.#keyOf(owner) !== session.group
      ? session
      : undefined
  }

  /** Where lists are read: the owner's own session, or the one that is shared with it; never another client's. */
  connected(owner: CallOwner): Session | undefined {
    return [this.find(owner), this.#sessions.get(this.#groupOf(owner))].find(session => session?.connection)
  }

  /** The same, connected or not. */
  known(owner: CallOwner): Session | undefined {
    return [this.find(owner), this.#sessions.get(this.#groupOf(owner))].find(session => session?.knownTools)
  }

  /** The client is gone, and with it what was kept for it alone. */
  release(clientKey: string): void {
    for (const [key, session] of [...this.#sessions]) {
      if (session.clientKey !== clientKey || key === session.group) continue // or it is everybody's by now
      this.#sessions.delete(key)
      session.retire()
    }
  }

  /** Sessions are closed by whoever closes the pool; none is brought back any more. */
  close(): readonly Session[] {
    this.#isClosed = true
    return this.all
  }

  #keyOf(owner: CallOwner): string {
    const group = this.#groupOf(owner)
    // Backends of 2026 keep nothing per connection, and so one is enough.
    if (owner.client === undefined || this.#options.era.get()?.kind === 'modern') return group
    // Groups have names of agents and principals: this can be none of them.
    return JSON.stringify([group, owner.client.key])
  }

  #groupOf({ agent, principal }: CallOwner): string {
    const { session } = this.#options.config
    return session === 'shared' ? '' : session === 'per-agent' ? agent : principal
  }

  #keep(key: string, session: Session): void {
    const isForEver = this.#options.config.session === 'shared' && key === ''
    this.#sessions.set(key, session, { ttl: isForEver ? 0 : SESSION_IDLE_MS })
  }

  /** It was opened for one client, but its backend turned out to be one that has no such thing. */
  #share(session: Session, key: string): void {
    if (this.#sessions.has(session.group)) return
    this.#keep(session.group, session)
    this.#sessions.delete(key)
  }

  /**
   * Where a principal has its share of the sessions that clients have for themselves, its own that was used longest ago ends; where
   * there are too many altogether, one of whoever has the most. Rejects when all of them are at work.
   */
  #makeRoom(principal: string): void {
    const { transport, name } = this.#options.config
    const kind = transport === 'stdio' ? 'stdio' : 'remote'
    const own = [...this.#sessions].reverse().filter(([, session]) => session.clientKey !== undefined)
    const counts = new Map<string, number>()
    for (const [, session] of own) counts.set(session.principal, (counts.get(session.principal) ?? 0) + 1)
    const hasItsShare = (counts.get(principal) ?? 0) >= MAX_PER_PRINCIPAL[kind]
    if (!hasItsShare && own.length < MAX_SESSIONS[kind]) return
    const most = Math.max(...counts.values())
    const isGiving = (session: Session) =>
      hasItsShare ? session.principal === principal : counts.get(session.principal) === most
    const victim = own.find(([, session]) => !session.isBusy && isGiving(session))
    if (!victim) {
      const message = `all sessions of the server "${name}" for this caller are at work: try again in a moment`
      throw new GatewayError('RATE_LIMITED', message, { details: { server: name } })
    }
    const [key, session] = victim
    this.#sessions.delete(key)
    session.retire()
  }

  /** Nobody has used it for a while; somebody may still listen to it. */
  #letGo(session: Session, key: string): void {
    if (this.all.includes(session)) return // it has another key now
    if (session.isWatched && !this.#isClosed) this.#keep(key, session)
    else session.retire()
  }
}
