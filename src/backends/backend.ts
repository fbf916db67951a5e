import { LRUCache } from 'lru-cache'
import { type HttpServerConfig, hasOwnAuthorization, type ServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import type { Redactor } from '../observability/redactor.js'
import type { AuthorizationStatus, BackendAuthorization } from './authorization.js'
import {
  CallClock,
  type Cancellation,
  type ClientPeer,
  ConnectionBroken,
  type OutgoingCall,
  type OutgoingRequest,
  type RawResult,
} from './call.js'
import type { BackendDescription, Connection } from './connection.js'
import { EraVerdict } from './era-verdict.js'
import { explain } from './explain.js'
import { toParameterHeaders } from './parameter-headers.js'
import { Session } from './session.js'
import type { BackendTool, HeldBackTool, ToolList } from './tool.js'
import type { Watcher } from './watchers.js'

// Where connections are not shared: how many one backend gets, and how long an unused one is kept.
const MAX_SESSIONS = { stdio: 64, remote: 1_000 }
const SESSION_IDLE_MS = 30 * 60_000

export type BackendState = 'idle' | 'starting' | 'ready' | 'cooling' | 'login needed' | 'misconfigured' | 'disabled'

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

export interface CallLimits {
  /** From the caller; the server's own `timeoutMs` otherwise, and never more than its `maxTimeoutMs`. */
  readonly timeoutMs?: number | undefined
  readonly signal?: Cancellation | undefined
}

export interface BackendStatus {
  readonly name: string
  readonly transport: ServerConfig['transport']
  readonly state: BackendState
  readonly era?: 'legacy' | 'modern'
  readonly tools?: number
  /** Tools that are not offered because of what is wrong with their definitions. */
  readonly held_back?: readonly HeldBackTool[]
  readonly auth: AuthorizationStatus
  readonly pid?: number
  readonly last_error?: string
}

export interface BackendOptions {
  readonly env: Env
  readonly logger: Logger
  readonly redactor: Redactor
  /** Called for servers that take part in OAuth. */
  readonly authorize?: ((config: HttpServerConfig) => BackendAuthorization) | undefined
}

/** One configured server: connected once on demand, called, described, closed. */
export class Backend {
  readonly config: ServerConfig
  readonly #options: BackendOptions
  readonly #era = new EraVerdict()
  readonly #sessions: LRUCache<string, Session>
  readonly #authorization: BackendAuthorization | undefined
  readonly #redact: (text: string) => string
  #inFlight = 0
  #retired = false
  #isClosed = false

  constructor(config: ServerConfig, options: BackendOptions) {
    this.config = config
    this.#options = options
    this.#redact = options.redactor.scopedTo(config.name)
    this.#authorization = wantsOAuth(config) ? options.authorize?.(config) : undefined
    this.#sessions = new LRUCache({
      max: config.transport === 'stdio' ? MAX_SESSIONS.stdio : MAX_SESSIONS.remote,
      ttl: SESSION_IDLE_MS,
      updateAgeOnGet: true,
      ttlAutopurge: true,
      disposeAfter: (session, key) => this.#letGo(session, key),
    })
  }

  get name(): string {
    return this.config.name
  }

  /** The tool list, if it can be had without waiting. */
  freshTools(owner: CallOwner): ToolList | undefined {
    return this.#listingSession(owner).freshTools
  }

  /** The last tool list that anybody read; reading it starts nothing. */
  get knownTools(): ToolList | undefined {
    for (const session of this.#sessions.values()) if (session.knownTools) return session.knownTools
    return undefined
  }

  /** The last tool list that was read on this owner's connection; reading it starts nothing. */
  toolsKnownTo(owner: CallOwner): ToolList | undefined {
    return this.#connectedSession(owner)?.knownTools ?? this.#sessions.get(this.#keyOf(owner))?.knownTools
  }

  /** Whether the tool list can be read without starting or connecting anything. */
  isConnectedFor(owner: CallOwner): boolean {
    return this.#connectedSession(owner) !== undefined
  }

  /** The tool list, connecting first where that is needed. Rejects with a GatewayError that names the server. */
  async tools(owner: CallOwner, clock?: CallClock): Promise<ToolList> {
    const list = this.#listingSession(owner).tools()
    if (!clock) return list
    return clock.wait(list).catch(error => {
      throw this.#explain(error)
    })
  }

  /** Starts the clock of one call; whoever starts it stops it. */
  startClock({ timeoutMs, signal }: CallLimits): CallClock {
    return new CallClock(timeoutMs ?? this.config.timeoutMs, this.config.maxTimeoutMs, signal)
  }

  /** Calls a tool. Rejects as `request` does. */
  callTool(call: OutgoingCall, tool: BackendTool, owner: CallOwner, clock: CallClock): Promise<RawResult> {
    const { name, arguments: args, retry, ...rest } = call
    const headers = tool.parameterHeaders.length > 0 ? toParameterHeaders(tool.parameterHeaders, args) : {}
    const request = { method: 'tools/call', params: { name, arguments: args, ...retry }, headers, ...rest }
    return this.request(request, tool, owner, clock)
  }

  /**
   * Sends a request; one whose outcome is unknown is repeated only if that does no harm. Rejects with a GatewayError that names the
   * server; its cause is a BackendRefusal when the backend answered with an error.
   */
  async request(
    request: OutgoingRequest,
    { isRepeatable }: { readonly isRepeatable: boolean },
    owner: CallOwner,
    clock: CallClock,
  ): Promise<RawResult> {
    this.#inFlight++
    try {
      return complete(await this.#requestOnce(request, isRepeatable, owner, clock), request.client !== undefined)
    } catch (error) {
      throw this.#explain(error)
    } finally {
      this.#inFlight--
      if (this.#retired && this.#inFlight === 0) void this.close()
    }
  }

  /** The client is gone, and with it what was kept for it alone. */
  release(clientKey: string): void {
    for (const [key, session] of [...this.#sessions]) {
      if (session.clientKey !== clientKey || key === session.group) continue // or it is everybody's by now
      this.#sessions.delete(key)
      session.retire()
    }
  }

  /** Sends a notification to the session of this client, if there is one. */
  notify(owner: CallOwner, method: string, params: JsonObject): void {
    this.#sessions.get(this.#keyOf(owner))?.notify(method, params)
  }

  /** What the backend says it has, connecting first where that is needed. Rejects with a GatewayError. */
  async describe(owner: CallOwner, clock: CallClock): Promise<BackendDescription & Pick<Connection, 'era'>> {
    try {
      const { description, era } = await clock.wait(this.#session(owner).connected())
      return { ...description, era }
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Calls back with what the backend announces until the returned function is called. Rejects as `request` does. */
  async watch(owner: CallOwner, watcher: Watcher): Promise<() => void> {
    try {
      return await this.#session(owner).watch(watcher)
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Connects, if it is not connected; for `gateway status` and `gateway tools`. */
  async connect(owner: CallOwner): Promise<void> {
    await this.#session(owner).connected()
  }

  /** Where the server is, for people and agents: without user info, query and known secrets, all of which carry keys. */
  get address(): { readonly command: string } | { readonly url: string } {
    const { config } = this
    if (config.transport === 'stdio') return { command: this.#redact(config.command) }
    const { origin, pathname } = URL.canParse(config.url) ? new URL(config.url) : { origin: '', pathname: '' }
    return { url: this.#redact(`${origin}${pathname}`) }
  }

  status(): BackendStatus {
    const { config } = this
    const sessions = [...this.#sessions.values()]
    const connection = sessions.find(session => session.connection)?.connection
    const failure = sessions.find(session => session.failure)?.failure
    const tools = this.knownTools
    const lastError = config.misconfigured[0]
      ? config.misconfigured.map(({ path, message }) => `${path}: ${message}`).join('; ')
      : (failure?.message ?? this.#authorization?.problem)
    return {
      name: config.name,
      transport: config.transport,
      state: this.#state(sessions),
      ...(connection && { era: connection.era }),
      ...(tools && { tools: tools.tools.length }),
      ...(tools && tools.rejected.length > 0 && { held_back: tools.rejected }),
      auth: this.#authStatus(failure),
      ...(connection?.pid !== undefined && { pid: connection.pid }),
      ...(lastError !== undefined && { last_error: this.#redact(lastError) }),
    }
  }

  /** No new calls are expected: closes as soon as the last one is done. */
  retire(): void {
    this.#retired = true
    if (this.#inFlight === 0) void this.close()
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#authorization?.close()
    const sessions = [...this.#sessions.values()]
    await Promise.all(
      sessions.map(session =>
        session.close().catch(error => this.#options.logger.warn({ err: error }, 'closing a backend')),
      ),
    )
  }

  #state(sessions: readonly Session[]): BackendState {
    if (this.config.disabled) return 'disabled'
    if (this.config.misconfigured.length > 0) return 'misconfigured'
    if (sessions.some(session => session.connection)) return 'ready'
    if (sessions.some(session => session.isConnecting)) return 'starting'
    const failed = sessions.find(session => session.failure)
    if (failed?.failure?.code === 'AUTH_REQUIRED') {
      return this.#authStatus(failed.failure).kind === 'logged in' ? 'idle' : 'login needed'
    }
    return failed || this.#authorization?.problem !== undefined ? 'cooling' : 'idle'
  }

  /** Somebody may have logged in since the failure. */
  #authStatus(failure: GatewayError | undefined): AuthorizationStatus {
    if (this.#authorization) {
      const status = this.#authorization.status()
      return failure?.code === 'AUTH_REQUIRED' && status.kind === 'none' ? { kind: 'login needed' } : status
    }
    if (failure?.code === 'AUTH_REQUIRED') return { kind: 'login needed' }
    return { kind: hasOwnAuthorization(this.config) ? 'header' : 'none' }
  }

  #keyOf(owner: CallOwner): string {
    const shared = this.#sharedKeyOf(owner)
    // Backends of 2026 keep nothing per connection, and so one is enough.
    return owner.client === undefined || this.#era.get()?.kind === 'modern' ? shared : ownKey(shared, owner.client)
  }

  #sharedKeyOf({ agent, principal }: CallOwner): string {
    const { session } = this.config
    return session === 'shared' ? '' : session === 'per-agent' ? agent : principal
  }

  #session(owner: CallOwner): Session {
    const { config, name } = this
    if (config.disabled)
      throw new GatewayError('SERVER_UNAVAILABLE', `the server "${name}" is disabled in the servers file`, {
        details: { server: name },
      })
    const [problem] = config.misconfigured
    if (problem) {
      throw new GatewayError(
        'SERVER_UNAVAILABLE',
        `the server "${name}" is misconfigured: ${problem.path}: ${problem.message}`,
        { details: { server: name, state: 'misconfigured' } },
      )
    }
    const key = this.#keyOf(owner)
    const existing = this.#sessions.get(key)
    if (existing) return existing
    const sharedKey = this.#sharedKeyOf(owner)
    const client = key === sharedKey ? undefined : owner.client
    const session: Session = new Session({
      config,
      group: sharedKey,
      client,
      sessionClient: client?.session,
      onConnected: ({ era }) => {
        if (era === 'modern' && client) this.#share(session, key, sharedKey)
      },
      authorization: this.#authorization,
      era: this.#era,
      env: this.#options.env,
      logger: this.#options.logger,
      explain: (error, retryAt) => this.#explain(error, retryAt),
    })
    this.#keep(key, session)
    return session
  }

  /** Where a list is read: every session with the same login sees the same one, so nothing is started for it that need not be. */
  #listingSession(owner: CallOwner): Session {
    return this.#connectedSession(owner) ?? this.#session(owner)
  }

  #connectedSession(owner: CallOwner): Session | undefined {
    const own = this.#sessions.get(this.#keyOf(owner))
    if (own?.connection) return own
    const group = this.#sharedKeyOf(owner)
    for (const session of this.#sessions.values()) if (session.group === group && session.connection) return session
    return undefined
  }

  #keep(key: string, session: Session): void {
    const isForEver = this.config.session === 'shared' && key === ''
    this.#sessions.set(key, session, { ttl: isForEver ? 0 : SESSION_IDLE_MS })
  }

  /** It was opened for one client, but its backend turned out to be one that has no such thing. */
  #share(session: Session, key: string, sharedKey: string): void {
    if (this.#sessions.has(sharedKey)) return
    this.#keep(sharedKey, session)
    this.#sessions.delete(key)
  }

  #letGo(session: Session, key: string): void {
    if ([...this.#sessions.values()].includes(session)) return // it has another key now
    if (session.isWatched && !this.#isClosed) this.#keep(key, session)
    else session.retire()
  }

  async #requestOnce(
    request: OutgoingRequest,
    isRepeatable: boolean,
    owner: CallOwner,
    clock: CallClock,
  ): Promise<RawResult> {
    const session = this.#session(owner)
    try {
      return await session.request(request, clock)
    } catch (error) {
      if (!(error instanceof ConnectionBroken) || !isRepeatable || clock.ended) throw error
      return session.request(request, clock)
    }
  }

  #explain(error: unknown, retryAt?: number): GatewayError {
    return explain(error, { server: this.name, retryAt, redact: this.#redact })
  }
}

/** Without the discriminator of a complete result, which belongs to the hop; the front that needs it writes its own. */
function complete(result: RawResult, mayAsk: boolean): RawResult {
  const { resultType, ...rest } = result
  if (resultType === undefined || (resultType === 'input_required' && mayAsk)) return result
  if (resultType === 'complete') return rest
  throw new GatewayError(
    'BACKEND_ERROR',
    `answered with the result type ${JSON.stringify(resultType)}, which this caller cannot carry on`,
  )
}

/** Shared connections have names of agents and principals for keys: this can be none of them. */
const ownKey = (shared: string, { key }: OwnClient): string => JSON.stringify([shared, key])

/** Servers with credentials of their own never get into OAuth. */
const wantsOAuth = (config: ServerConfig): config is HttpServerConfig =>
  config.transport !== 'stdio' &&
  config.oauth !== false &&
  !hasOwnAuthorization(config) &&
  config.misconfigured.length === 0
