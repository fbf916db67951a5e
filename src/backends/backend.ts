import { LRUCache } from 'lru-cache'
import { type HttpServerConfig, hasOwnAuthorization, type ServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import type { Redactor } from '../observability/redactor.js'
import type { AuthorizationStatus, BackendAuthorization } from './authorization.js'
import { CallClock, type Cancellation, ConnectionBroken, type OutgoingCall, type RawResult } from './call.js'
import { EraVerdict } from './era-verdict.js'
import { explain } from './explain.js'
import { Session } from './session.js'
import type { BackendTool, ToolList } from './tool.js'

// With `session: per-agent` or `per-user`: how many connections one backend gets, and how long an unused one is kept.
const MAX_SESSIONS = 64
const SESSION_IDLE_MS = 30 * 60_000

export type BackendState = 'idle' | 'starting' | 'ready' | 'cooling' | 'login needed' | 'misconfigured' | 'disabled'

/** For whom a call is made; decides which connection it takes where connections are not shared. */
export interface CallOwner {
  readonly agent: string
  readonly principal: string
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

  constructor(config: ServerConfig, options: BackendOptions) {
    this.config = config
    this.#options = options
    this.#redact = options.redactor.scopedTo(config.name)
    this.#authorization = wantsOAuth(config) ? options.authorize?.(config) : undefined
    const idle = config.session === 'shared' ? {} : { ttl: SESSION_IDLE_MS, updateAgeOnGet: true, ttlAutopurge: true }
    this.#sessions = new LRUCache({ max: MAX_SESSIONS, ...idle, dispose: session => session.retire() })
  }

  get name(): string {
    return this.config.name
  }

  /** The tool list, if it can be had without waiting. */
  freshTools(owner: CallOwner): ToolList | undefined {
    return this.#session(owner).freshTools
  }

  /** The last tool list that anybody read; reading it starts nothing. */
  get knownTools(): ToolList | undefined {
    for (const session of this.#sessions.values()) if (session.knownTools) return session.knownTools
    return undefined
  }

  /** The last tool list that was read on this owner's connection; reading it starts nothing. */
  toolsKnownTo(owner: CallOwner): ToolList | undefined {
    return this.#sessions.get(this.#keyOf(owner))?.knownTools
  }

  /** Whether the tool list can be read without starting or connecting anything. */
  isConnectedFor(owner: CallOwner): boolean {
    return this.#sessions.get(this.#keyOf(owner))?.connection !== undefined
  }

  /** The tool list, connecting first where that is needed. Rejects with a GatewayError that names the server. */
  async tools(owner: CallOwner, clock?: CallClock): Promise<ToolList> {
    const list = this.#session(owner).tools()
    if (!clock) return list
    return clock.wait(list).catch(error => {
      throw this.#explain(error)
    })
  }

  /** Starts the clock of one call; whoever starts it stops it. */
  startClock({ timeoutMs, signal }: CallLimits): CallClock {
    return new CallClock(timeoutMs ?? this.config.timeoutMs, this.config.maxTimeoutMs, signal)
  }

  /** Calls a tool. Rejects with a GatewayError that names the server. */
  async callTool(call: OutgoingCall, tool: BackendTool, owner: CallOwner, clock: CallClock): Promise<RawResult> {
    const session = this.#session(owner)
    this.#inFlight++
    try {
      return complete(await this.#callOnce(session, call, tool, clock))
    } catch (error) {
      throw this.#explain(error)
    } finally {
      this.#inFlight--
      if (this.#retired && this.#inFlight === 0) void this.close()
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

  #keyOf({ agent, principal }: CallOwner): string {
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
    const session = new Session({
      config,
      authorization: this.#authorization,
      era: this.#era,
      env: this.#options.env,
      logger: this.#options.logger,
      explain: (error, retryAt) => this.#explain(error, retryAt),
    })
    this.#sessions.set(key, session)
    return session
  }

  /** Repeats a call whose outcome is unknown only where repeating does no harm. */
  async #callOnce(session: Session, call: OutgoingCall, tool: BackendTool, clock: CallClock): Promise<RawResult> {
    try {
      return await session.callTool(call, tool, clock)
    } catch (error) {
      if (!(error instanceof ConnectionBroken) || !tool.isRepeatable || clock.ended) throw error
      return session.callTool(call, tool, clock)
    }
  }

  #explain(error: unknown, retryAt?: number): GatewayError {
    return explain(error, { server: this.name, retryAt, redact: this.#redact })
  }
}

/** Without the discriminator of 2026-07-28, which belongs to the hop; the front that needs it writes its own. */
function complete(result: RawResult): RawResult {
  const { resultType, ...rest } = result
  if (resultType === undefined) return result
  if (resultType === 'complete') return rest
  throw new GatewayError(
    'BACKEND_ERROR',
    `answered with the result type ${JSON.stringify(resultType)}, which a call through execute_tool cannot carry`,
  )
}

/** Servers with credentials of their own never get into OAuth. */
const wantsOAuth = (config: ServerConfig): config is HttpServerConfig =>
  config.transport !== 'stdio' &&
  config.oauth !== false &&
  !hasOwnAuthorization(config) &&
  config.misconfigured.length === 0
