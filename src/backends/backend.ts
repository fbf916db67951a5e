import { type HttpServerConfig, hasOwnAuthorization, type ServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import type { Redactor } from '../observability/redactor.js'
import type { Tracing } from '../observability/tracing.js'
import type { AuthorizationStatus, BackendAuthorization } from './authorization.js'
import {
  CallClock,
  type Cancellation,
  ConnectionBroken,
  type OutgoingCall,
  type OutgoingRequest,
  type RawResult,
} from './call.js'
import { createCircuitBreaker } from './circuit-breaker.js'
import type { BackendDescription, Connection } from './connection.js'
import { EraVerdict } from './era-verdict.js'
import { explain } from './explain.js'
import { toParameterHeaders } from './parameter-headers.js'
import type { Session } from './session.js'
import { type CallOwner, SessionPool } from './session-pool.js'
import { toClientSpan } from './spans.js'
import { Supervision } from './supervision.js'
import type { BackendTool, HeldBackTool, ToolList } from './tool.js'
import type { Watcher } from './watchers.js'

// How soon a login is noticed by who waits for it.
const LOGIN_POLL_MS = 250

export type BackendState = 'idle' | 'starting' | 'ready' | 'cooling' | 'login needed' | 'misconfigured' | 'disabled'

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
  readonly tracing?: Tracing | undefined
  /** Called for servers that take part in OAuth. */
  readonly authorize?: ((config: HttpServerConfig) => BackendAuthorization) | undefined
  /** How long a server that is away is waited for, and how long a pause between two tries may be. Default: not at all, a minute. */
  readonly patience?: { readonly waitMs: number; readonly maxRetryMs: number } | undefined
}

/** One configured server: connected once on demand, called, described, closed. */
export class Backend {
  readonly config: ServerConfig
  readonly #options: BackendOptions
  readonly #sessions: SessionPool
  readonly #supervision: Supervision
  readonly #authorization: BackendAuthorization | undefined
  readonly #redact: (text: string) => string
  #inFlight = 0
  #whenDone: (() => void) | undefined

  constructor(config: ServerConfig, options: BackendOptions) {
    this.config = config
    this.#options = options
    this.#redact = options.redactor.scopedTo(config.name)
    this.#authorization = wantsOAuth(config) ? options.authorize?.(config) : undefined
    const { env, logger, patience } = options
    this.#supervision = new Supervision({
      server: config.name,
      logger,
      authorization: this.#authorization,
      isProcess: config.transport === 'stdio',
      maxRetryMs: patience?.maxRetryMs,
      explain: (error, retryAt) => this.#explain(error, retryAt),
    })
    this.#sessions = new SessionPool({
      config,
      env,
      logger,
      authorization: this.#authorization,
      era: new EraVerdict(),
      supervision: this.#supervision,
      breaker: config.transport === 'stdio' ? undefined : createCircuitBreaker(),
      patienceMs: patience?.waitMs ?? 0,
      explain: error => this.#explain(error),
    })
  }

  get name(): string {
    return this.config.name
  }

  /** The tool list, if it can be had without waiting. */
  freshTools(owner: CallOwner): ToolList | undefined {
    return (this.#sessions.connected(owner) ?? this.#session(owner)).freshTools
  }

  /** The last tool list that anybody read; reading it starts nothing. */
  get knownTools(): ToolList | undefined {
    return this.#sessions.all.find(session => session.knownTools)?.knownTools
  }

  /** The last tool list that was read on this owner's connection; reading it starts nothing. */
  toolsKnownTo(owner: CallOwner): ToolList | undefined {
    return (this.#sessions.connected(owner) ?? this.#sessions.known(owner))?.knownTools
  }

  /** Why the server cannot be had at the moment, if it is known that it cannot. */
  get failure(): GatewayError | undefined {
    return this.#supervision.failure
  }

  /** Whether the backend was seen to have lists of this kind; reading it starts nothing. */
  has(kind: 'prompts' | 'resources'): boolean {
    return this.#sessions.all.some(({ connection }) => connection?.description.capabilities[kind] !== undefined)
  }

  /** Whether the tool list can be read without starting or connecting anything. */
  isConnectedFor(owner: CallOwner): boolean {
    return this.#sessions.connected(owner) !== undefined
  }

  /** The tool list, connecting first where that is needed. Rejects with a GatewayError that names the server. */
  async tools(owner: CallOwner, clock?: CallClock): Promise<ToolList> {
    const list = (this.#sessions.connected(owner) ?? this.#session(owner)).tools()
    if (!clock) return list
    return clock.wait(list).catch(error => {
      throw this.#explain(error)
    })
  }

  /** Starts the clock of one call; whoever starts it stops it, and until then the backend is not closed by a new configuration. */
  startClock({ timeoutMs, signal }: CallLimits): CallClock {
    this.#inFlight++
    return new CallClock(timeoutMs ?? this.config.timeoutMs, this.config.maxTimeoutMs, signal, this.#onStop)
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
    try {
      const { tracing } = this.#options
      const send = (outgoing: OutgoingRequest) => this.#requestOnce(outgoing, isRepeatable, owner, clock)
      const result = tracing
        ? await tracing.span(toClientSpan(request, this.config), ({ meta }) => send({ ...request, meta }))
        : await send(request)
      return complete(result, request.client !== undefined)
    } catch (error) {
      throw this.#explain(error)
    }
  }

  /** Starts a login for a person who is there; gives the URL to open, if there is a login to be had this way. */
  async offerLogin(): Promise<string | undefined> {
    return this.#authorization?.offerLogin()
  }

  /** Waits until somebody has logged in. Rejects when the clock ends first. */
  async untilLoggedIn(clock: CallClock): Promise<void> {
    const release = clock.hold()
    try {
      while (this.#authorization && !(await clock.wait(this.#authorization.hasUntriedToken())))
        await clock.wait(new Promise(resolve => setTimeout(resolve, LOGIN_POLL_MS)))
    } finally {
      release()
    }
  }

  /** The client is gone, and with it what was kept for it alone. */
  release(clientKey: string): void {
    this.#sessions.release(clientKey)
  }

  /** Passes on what a client says about itself, to the session it has for itself: on a shared one it would be said for all. */
  notify(owner: CallOwner, method: string, params: JsonObject): void {
    this.#sessions.own(owner)?.notify(method, params)
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
    const sessions = this.#sessions.all
    const connection = sessions.find(session => session.connection)?.connection
    const { failure } = this.#supervision
    const tools = this.knownTools
    const lastError = config.misconfigured[0]
      ? config.misconfigured.map(({ path, message }) => `${path}: ${message}`).join('; ')
      : (failure?.message ?? this.#authorization?.problem ?? this.#supervision.recentCrash)
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

  /** No new calls are expected: closes as soon as the last one is done, and resolves then. */
  retire(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#whenDone = () => void this.close().then(resolve, reject)
      if (this.#inFlight === 0) this.#whenDone()
    })
  }

  async close(): Promise<void> {
    this.#authorization?.close()
    await Promise.all(
      this.#sessions
        .close()
        .map(session => session.close().catch(error => this.#options.logger.warn({ err: error }, 'closing a backend'))),
    )
  }

  #state(sessions: readonly Session[]): BackendState {
    if (this.config.disabled) return 'disabled'
    if (this.config.misconfigured.length > 0) return 'misconfigured'
    if (sessions.some(session => session.connection)) return 'ready'
    if (sessions.some(session => session.isConnecting)) return 'starting'
    const { failure } = this.#supervision
    if (failure?.code === 'AUTH_REQUIRED') {
      return this.#authStatus(failure).kind === 'logged in' ? 'idle' : 'login needed'
    }
    return failure || this.#authorization?.problem !== undefined ? 'cooling' : 'idle'
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
    return this.#sessions.get(owner)
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

  readonly #onStop = (): void => {
    this.#inFlight--
    if (this.#inFlight === 0) this.#whenDone?.()
  }

  #explain(error: unknown, retryAt?: number): GatewayError {
    return explain(error, { server: this.name, retryAt, redact: this.#redact })
  }
}

/** Without the discriminator of a complete result, which belongs to the hop; the front that needs it writes its own. */
function complete(given: RawResult, mayAsk: boolean): RawResult {
  const result = withProperMeta(given)
  const { resultType, ...rest } = result
  if (resultType === undefined || (resultType === 'input_required' && mayAsk)) return result
  if (resultType === 'complete') return rest
  throw new GatewayError(
    'BACKEND_ERROR',
    `answered with the result type ${JSON.stringify(resultType)}, which this caller cannot carry on`,
  )
}

/** Many a serializer writes `null` for what is not there; with such a `_meta` it would be no result to anybody. */
function withProperMeta(result: RawResult): RawResult {
  if (result._meta === undefined || isJsonObject(result._meta)) return result
  const { _meta, ...rest } = result
  return rest
}

/** Servers with credentials of their own never get into OAuth. */
const wantsOAuth = (config: ServerConfig): config is HttpServerConfig =>
  config.transport !== 'stdio' &&
  config.oauth !== false &&
  !hasOwnAuthorization(config) &&
  config.misconfigured.length === 0
