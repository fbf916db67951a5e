import { setTimeout as wait } from 'node:timers/promises'
import type { ServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import type { BackendAuthorization } from './authorization.js'
import {
  type CallClock,
  type ClientPeer,
  type OutgoingRequest,
  type RawResult,
  SessionLost,
  Unreachable,
} from './call.js'
import type { CircuitBreaker } from './circuit-breaker.js'
import type { Connection } from './connection.js'
import type { EraVerdict } from './era-verdict.js'
import { isSevereEnough } from './log-level.js'
import type { BackendChange } from './server-messages.js'
import { type Supervision, unavailable } from './supervision.js'
import type { ToolList } from './tool.js'
import { type Watcher, Watchers } from './watchers.js'

const LISTS = ['tools', 'prompts', 'resources'] as const

// Soon enough for who waits, and late enough not to be in the way of a call that starts it itself.
const RESTART_MS = 500

export interface SessionOptions {
  readonly config: ServerConfig
  readonly authorization: BackendAuthorization | undefined
  readonly env: Env
  readonly logger: Logger
  readonly era: EraVerdict
  /** Sessions of one group have one login. */
  readonly group: string
  /** Who began it. */
  readonly principal: string
  /** The client that the session is for alone; none where it is shared. */
  readonly client?: { readonly key: string; readonly capabilities: JsonObject } | undefined
  /** That client's own session, if it has one: for what the backend says beside any request. */
  readonly sessionClient?: ClientPeer | undefined
  readonly onConnected?: (connection: Connection) => void
  readonly supervision: Supervision
  /** For a remote server: it may be there and still not well. */
  readonly breaker: CircuitBreaker | undefined
  /** How long a server that is away is waited for; 0 where callers had better hear of it at once. */
  readonly patienceMs: number
  /** Adds what every error about this server says. */
  readonly explain: (error: unknown) => GatewayError
}

/** One connection to a backend, made on demand and made again when it is lost. */
export class Session {
  readonly #options: SessionOptions
  #connection: Connection | undefined
  #connecting: Promise<Connection> | undefined
  #list: ToolList | undefined
  #listing: Promise<ToolList> | undefined
  /** Grows with each change that is announced; a list is as new as it was when the list was asked for. */
  #changes = 0
  #listedAt = 0
  #inFlight = 0
  #isRetiring = false
  /** Dropped, but with calls still under way. */
  readonly #retired = new Set<Connection>()
  readonly #closing = new AbortController()
  readonly #watchers: Watchers
  #idle: NodeJS.Timeout | undefined
  #logLevel: { readonly connection: Connection; readonly level: string } | undefined

  constructor(options: SessionOptions) {
    this.#options = options
    const { config, logger } = options
    this.#watchers = new Watchers(reason => logger.warn({ server: config.name, reason }, 'cannot subscribe again'))
  }

  get group(): string {
    return this.#options.group
  }

  get principal(): string {
    return this.#options.principal
  }

  get isBusy(): boolean {
    return this.#inFlight > 0
  }

  get clientKey(): string | undefined {
    return this.#options.client?.key
  }

  get connection(): Connection | undefined {
    return this.#connection
  }

  get isConnecting(): boolean {
    return this.#connecting !== undefined
  }

  /** The last tool list that was read, fresh or not. */
  get knownTools(): ToolList | undefined {
    return this.#list
  }

  /** The connection, waiting for a server that is away as long as the options say. */
  async connected(): Promise<Connection> {
    const until = Date.now() + this.#options.patienceMs
    for (;;) {
      try {
        return await this.#connectedNow()
      } catch (error) {
        const isAway = error instanceof GatewayError && error.code === 'SERVER_UNAVAILABLE'
        if (!isAway || Date.now() >= until || this.#closing.signal.aborted) throw error
        await wait(Math.max(RESTART_MS, this.#options.supervision.delayMs), undefined, { ref: false })
      }
    }
  }

  /** Concurrent first callers share one connect. While cooling down, fails at once with the last failure. */
  async #connectedNow(): Promise<Connection> {
    if (this.#connection) return this.#connection
    if (this.#closing.signal.aborted) throw closed()
    if (!this.#connecting) await this.#options.supervision.admit()
    if (this.#connection) return this.#connection
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  /** The tool list if it can be had without waiting. */
  get freshTools(): ToolList | undefined {
    return this.#list && this.#listedAt === this.#changes && this.#connection && Date.now() < this.#list.expiresAt
      ? this.#list
      : undefined
  }

  /** The tool list: cached until the backend announces a change or its `ttlMs` ends. Concurrent readers share one read. */
  async tools(): Promise<ToolList> {
    if (this.freshTools) {
      this.#waitForIdle() // looking is use
      return this.freshTools
    }
    const asOf = this.#changes
    for (;;) {
      this.#listing ??= this.#busyWith(() => this.#readTools()).finally(() => {
        this.#listing = undefined
      })
      const list = await this.#listing
      if (this.#listedAt >= asOf) return list // else it was asked for before the change that this caller knows of
    }
  }

  /** Like Connection.request; a session the backend has forgotten is opened again, once. */
  async request(request: OutgoingRequest, clock: CallClock): Promise<RawResult> {
    return this.#busyWith(() => this.#requestOnce(request, clock))
  }

  async #busyWith<T>(work: () => Promise<T>): Promise<T> {
    this.#inFlight++
    clearTimeout(this.#idle)
    try {
      return await work()
    } finally {
      this.#inFlight--
      if (this.#isRetiring && this.#inFlight === 0) void this.close()
      else this.#waitForIdle()
    }
  }

  /** Sends a notification if a connection is there; for one that is not, nothing has happened yet. */
  notify(method: string, params: JsonObject): void {
    this.#connection?.notify(method, params)
  }

  /**
   * Calls back with what the backend announces, from now on and after each reconnect, until the returned function is called. Waits
   * for the backend only where it has to be asked for something.
   */
  async watch(watcher: Watcher): Promise<() => void> {
    if (watcher.uris.length > 0) await this.#watchers.add(watcher, await this.connected())
    else {
      this.#watchers.note(watcher)
      if (!this.#connection) this.connected().catch(() => this.#restart()) // nobody waits; callers will hear of it
    }
    return () => {
      this.#watchers.remove(watcher, this.#connection)
      if (this.#isRetiring && this.#inFlight === 0) void this.close()
    }
  }

  get isWatched(): boolean {
    return !this.#watchers.isEmpty
  }

  /** Closes as soon as no call is under way. */
  retire(): void {
    this.#isRetiring = true
    if (this.#inFlight === 0) void this.close()
  }

  async #requestOnce(request: OutgoingRequest, clock: CallClock): Promise<RawResult> {
    const connection = this.#connection ?? (await clock.wait(this.connected()))
    try {
      if (request.client?.logLevel !== undefined) await this.#setLogLevel(request.client.logLevel, connection, clock)
      const { breaker } = this.#options
      if (!breaker) return await connection.request(request, clock)
      return await breaker(() => connection.request(request, clock))
    } catch (error) {
      if (isConnectFailure(error)) {
        const failure = this.#fail(error, connection)
        if (failure.code !== 'SERVER_UNAVAILABLE' || this.#options.patienceMs === 0) throw failure
      } else if (error instanceof SessionLost) this.#drop(connection)
      else throw error
      return (await clock.wait(this.connected())).request(request, clock)
    }
  }

  /** With 2025 the level is a matter of the session; later it travels with each request. */
  async #setLogLevel(level: string, connection: Connection, clock: CallClock): Promise<void> {
    if (connection.era !== 'legacy' || connection.description.capabilities.logging === undefined) return
    // Requests of several clients may be under way: the most talkative of them decides, and each gets what it wants of it.
    if (this.#logLevel?.connection === connection && isSevereEnough(level, this.#logLevel.level)) return
    this.#logLevel = { connection, level }
    await connection.request({ method: 'logging/setLevel', params: { level } }, clock)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#idle)
    const connection = await (this.#connecting?.catch(() => undefined) ?? this.#connection)
    this.#connection = undefined
    await Promise.all([connection, ...this.#retired].map(open => open?.close()))
  }

  async #connect(): Promise<Connection> {
    const { config, authorization, env, logger, era, supervision } = this.#options
    let current: Connection | undefined
    let connectedAt = 0
    try {
      const { openConnection } = await import('./connection.js')
      const connection = await openConnection({
        config,
        authorization,
        env,
        logger,
        prior: era.get(),
        signal: this.#closing.signal,
        client: this.#options.client,
        sessionClient: this.#options.sessionClient,
        onChange: change => this.#onChange(change),
        onClose: (reason, stderr) => {
          if (!current || this.#connection !== current) return
          this.#connection = undefined
          if (this.#closing.signal.aborted) return
          logger.warn({ server: config.name, reason }, 'backend connection lost')
          // What happens in a session of one client's own is no news to the others.
          const isEverybodys = config.transport === 'stdio' && this.#options.client === undefined
          if (isEverybodys) supervision.onCrash(reason, { startedAt: connectedAt, stderr })
          this.#restart()
        },
      })
      current = connection
      era.set(connection.verdict)
      connectedAt = Date.now()
      supervision.onConnected()
      this.#changes++ // a new process may offer other tools
      if (this.#closing.signal.aborted) {
        await connection.close()
        throw closed()
      }
      this.#connection = connection
      logger.info({ server: config.name, era: connection.era, pid: connection.pid }, 'backend connected')
      this.#options.onConnected?.(connection)
      this.#waitForIdle()
      if (this.isWatched) {
        this.#watchers.renew(connection)
        const { capabilities } = connection.description
        for (const kind of LISTS) if (capabilities[kind] !== undefined) this.#watchers.announce({ kind })
      }
      return connection
    } catch (error) {
      // Given up by us: that says nothing about the server, and is no news to its other sessions.
      if (this.#closing.signal.aborted) throw closed()
      // The server itself is well; only its login could not be renewed at this moment.
      if (isLoginKept(error)) throw this.#options.explain(error)
      // Whatever is wrong with what it says, a server that cannot be connected is not available.
      const isNonsense =
        error instanceof GatewayError && error.code === 'BACKEND_ERROR' && !('required_scopes' in error.details)
      throw this.#fail(isNonsense ? new GatewayError('SERVER_UNAVAILABLE', error.message, { cause: error }) : error)
    }
  }

  /**
   * Notes that the server cannot be had at the moment. Calls that fail together on one connection count as one failure. Returns the
   * error that callers see until the next try.
   */
  #fail(error: unknown, connection?: Connection): GatewayError {
    const { era, supervision, explain } = this.#options
    if (connection && this.#connection !== connection) return supervision.failure ?? explain(unavailable(error))
    era.forget()
    const failure = supervision.onFailure(error)
    if (connection) {
      this.#drop(connection)
      this.#restart() // its own end is not heard of any more
    }
    return failure
  }

  #onChange(change: BackendChange): void {
    if (change.kind === 'tools') this.#changes++
    this.#watchers.announce(change)
  }

  /** Starts a process that has ended again, and connects for those who watch; a connection to elsewhere is made when it is needed. */
  #restart(): void {
    const { config, client, supervision } = this.#options
    const isWanted = () => (config.transport === 'stdio' && client === undefined) || this.isWatched
    if (!isWanted() || this.#isRetiring) return
    const again = () => {
      if (!isWanted() || this.#isRetiring || this.#connection || this.#closing.signal.aborted) return
      this.connected().catch(() => this.#restart())
    }
    setTimeout(again, Math.max(RESTART_MS, supervision.delayMs)).unref()
  }

  /** Ends a connection that nobody has used for as long as the configuration says. The next call makes another one. */
  #waitForIdle(): void {
    const { config } = this.#options
    clearTimeout(this.#idle)
    if (config.idleTimeoutMs === undefined || this.#inFlight > 0) return
    this.#idle = setTimeout(() => {
      const connection = this.#connection
      if (!connection || this.#inFlight > 0) return
      if (this.#watchers.hasResources) return this.#waitForIdle()
      this.#connection = undefined
      this.#options.logger.info({ server: config.name }, 'backend stopped: nobody has used it for a while')
      this.#retired.add(connection)
      void connection.close().finally(() => this.#retired.delete(connection))
    }, config.idleTimeoutMs).unref()
  }

  /** The next call connects anew; calls under way on this connection may still end well. */
  #drop(connection: Connection): void {
    if (this.#connection !== connection) return
    this.#connection = undefined
    this.#retired.add(connection)
    void connection.retire().finally(() => this.#retired.delete(connection))
  }

  async #readTools(mayReconnect = true): Promise<ToolList> {
    const connection = await this.connected()
    try {
      const asOf = this.#changes
      const { config, logger } = this.#options
      // Loaded with the first list, as the connection is: a front that only greets its client needs neither.
      const { readTools } = await import('./tool-pages.js')
      const list = await readTools(connection, { server: config.name, timeoutMs: config.startupTimeoutMs, logger })
      this.#list = list
      this.#listedAt = asOf
      for (const { tool, reason } of list.rejected)
        logger.warn({ server: config.name, tool, reason }, 'tool definition held back')
      return list
    } catch (error) {
      if (error instanceof SessionLost && mayReconnect) {
        this.#drop(connection)
        return this.#readTools(false)
      }
      if (isConnectFailure(error) || error instanceof SessionLost) throw this.#fail(error, connection)
      throw this.#options.explain(unavailable(error))
    }
  }
}

const closed = () => new GatewayError('SHUTTING_DOWN', 'the connection is being closed')

/**
 * Failures that say the connection is no good, although it looked established (the era was known from before, say). A login with
 * too little scope for one call is still good for others.
 */
const isConnectFailure = (error: unknown): boolean =>
  error instanceof Unreachable ||
  (error instanceof GatewayError && error.code === 'AUTH_REQUIRED' && !('required_scopes' in error.details))

const isLoginKept = (error: unknown): error is GatewayError =>
  error instanceof GatewayError && error.details.login === 'kept'
