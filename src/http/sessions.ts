import { randomUUID } from 'node:crypto'
import { type Server, WebStandardStreamableHTTPServerTransport } from '@modelcontextprotocol/server'
import type { Principal } from '../identity/principal.js'
import type { VerifiedToken } from '../identity/token-verifier.js'
import type { Logger } from '../observability/logger.js'
import { toAuthInfo } from './bearer.js'
import { SessionEvents } from './event-store.js'
import type { Entry, Front } from './front.js'
import { type Admitted, whileGood, withEnds } from './streams.js'

const MINUTE_MS = 60_000
/** Clients almost never say goodbye, and so sessions end by themselves. */
const LIMITS = { idleMs: 30 * MINUTE_MS, ageMs: 24 * 60 * MINUTE_MS, perPrincipal: 100, all: 10_000 }
const RETRY_MS = 1_000

interface Session {
  readonly id: string
  /** Whose it is, and at which door. */
  readonly owner: string
  readonly entry: Entry
  readonly principal: Principal
  readonly transport: WebStandardStreamableHTTPServerTransport
  readonly server: Server
  readonly startedAt: number
  lastUsedAt: number
  /** Requests being answered, and streams that stay open. */
  answering: number
  listening: number
}

export interface SessionsOptions {
  readonly front: Front
  readonly logger: Logger
  /** Hears of somebody who names the session of somebody else. */
  readonly onStranger?: ((principal: Principal) => void) | undefined
  readonly limits?: Partial<typeof LIMITS>
  readonly now?: () => number
}

/** What a request to a session brings along. */
export interface SessionRequest extends Admitted {
  readonly request: Request
  readonly entry: Entry
  /** Of a POST. */
  readonly parsedBody?: unknown
}

/**
 * The sessions of clients of the 2025 era. A session id is a name, not a credential: every request brings a token, and only the
 * principal that began a session finds it (2025-11-25, "Session Management").
 */
export class Sessions {
  readonly #front: Front
  readonly #logger: Logger
  readonly #onStranger: SessionsOptions['onStranger']
  readonly #limits: typeof LIMITS
  readonly #now: () => number
  readonly #sessions = new Map<string, Session>()
  readonly #sweeper: NodeJS.Timeout
  readonly #unsubscribe: () => void

  constructor({ front, logger, onStranger, limits, now = Date.now }: SessionsOptions) {
    this.#front = front
    this.#logger = logger
    this.#onStranger = onStranger
    this.#limits = { ...LIMITS, ...limits }
    this.#now = now
    this.#sweeper = setInterval(() => this.sweep(), MINUTE_MS).unref()
    this.#unsubscribe = front.onSwap(() => this.#endUnwelcome())
  }

  get size(): number {
    return this.#sessions.size
  }

  /** Begins a session with an `initialize`. */
  async begin(asked: SessionRequest): Promise<Response> {
    const { request, entry, token } = asked
    if (!this.#makeRoom(token.principal.key)) return tooMany()
    const id = randomUUID()
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: () => id,
      eventStore: new SessionEvents(),
      retryInterval: RETRY_MS,
    })
    const context = { era: 'legacy', authInfo: toAuthInfo(token), requestInfo: request } as const
    const server = this.#front.createServer(entry, context)
    server.onerror = error => this.#logger.debug({ reason: error.message }, 'session')
    const now = this.#now()
    const session: Session = {
      id,
      owner: ownerOf(entry, token),
      entry,
      principal: token.principal,
      transport,
      server,
      startedAt: now,
      lastUsedAt: now,
      answering: 0,
      listening: 0,
    }
    server.onclose = () => this.#sessions.delete(id)
    this.#sessions.set(id, session) // before anything is waited for: it counts from here on
    await server.connect(transport)
    const response = await this.#answer(session, asked)
    if (response.status !== 200) await server.close() // what did not begin has no session
    return response
  }

  /** Passes a request on to the session it names; 404 for one that is not there, or not this caller's (the client then begins anew). */
  async answer(id: string, asked: SessionRequest): Promise<Response> {
    const session = this.#sessions.get(id)
    if (!session) return notFound()
    if (session.owner !== ownerOf(asked.entry, asked.token)) {
      if (session.principal.key !== asked.token.principal.key) this.#onStranger?.(asked.token.principal)
      return notFound()
    }
    if (this.#isOver(session)) {
      void session.server.close()
      return notFound()
    }
    return this.#answer(session, asked)
  }

  /** Ends what has been idle, or gone on, for too long. */
  sweep(): void {
    for (const session of [...this.#sessions.values()]) if (this.#isOver(session)) void session.server.close()
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper)
    this.#unsubscribe()
    await Promise.allSettled([...this.#sessions.values()].map(({ server }) => server.close()))
  }

  /** Who may not come in any more does not go on hearing what is said inside. */
  #endUnwelcome(): void {
    for (const { entry, principal, server } of [...this.#sessions.values()])
      if (this.#front.refusal(entry, principal)) void server.close()
  }

  async #answer(session: Session, { request, token, recheck, parsedBody }: SessionRequest): Promise<Response> {
    const kind = request.method === 'GET' ? 'listening' : 'answering'
    session[kind]++
    session.lastUsedAt = this.#now()
    const expiry = whileGood({ token, recheck })
    const onEnd = () => {
      session[kind]--
      session.lastUsedAt = this.#now()
      expiry.release()
    }
    try {
      const options = { authInfo: toAuthInfo(token), ...(parsedBody !== undefined && { parsedBody }) }
      const response = await session.transport.handleRequest(request, options)
      return withEnds(response, { onEnd, signal: expiry.signal })
    } catch (error) {
      onEnd()
      throw error
    }
  }

  #isOver({ startedAt, lastUsedAt, answering, listening }: Session): boolean {
    const now = this.#now()
    if (answering > 0) return false
    return now - startedAt > this.#limits.ageMs || (listening === 0 && now - lastUsedAt > this.#limits.idleMs)
  }

  /** Ends the session that has been idle longest where there are too many; false when all of them are at work. */
  #makeRoom(principal: string): boolean {
    const all = [...this.#sessions.values()]
    const own = all.filter(session => session.principal.key === principal)
    const isFull = own.length >= this.#limits.perPrincipal
    if (!isFull && all.length < this.#limits.all) return true
    const [oldest] = (isFull ? own : all)
      .filter(({ answering }) => answering === 0)
      .sort((a, b) => a.listening - b.listening || a.lastUsedAt - b.lastUsedAt)
    if (!oldest) return false
    this.#sessions.delete(oldest.id)
    void oldest.server.close()
    return true
  }
}

/** The principal with what it may do, and the door: never the token, which is another one tomorrow. */
const ownerOf = (entry: Entry, { principal }: VerifiedToken): string =>
  JSON.stringify([principal.key, [...principal.agents].sort(), 'server' in entry ? entry.server : null])

const refusal = (status: number, code: number, message: string, headers: Record<string, string> = {}): Response =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status, headers })

const notFound = (): Response => refusal(404, -32001, 'Session not found')

const tooMany = (): Response =>
  refusal(503, -32603, 'Too many sessions are at work: end one, or try again later', { 'Retry-After': '60' })
