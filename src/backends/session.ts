import type { ServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import type { BackendAuthorization } from './authorization.js'
import {
  BackendRefusal,
  type CallClock,
  ConnectionBroken,
  type OutgoingCall,
  type RawResult,
  SessionLost,
  Unreachable,
} from './call.js'
import type { Connection } from './connection.js'
import type { EraVerdict } from './era-verdict.js'
import type { BackendTool, ToolList } from './tool.js'

const RETRY_MS = { first: 1_000, max: 60_000 }
// A server may ask for more patience than our own, within reason.
const MAX_RETRY_AFTER_MS = 60 * 60_000
// A list without `ttlMs` from a backend that announces no changes is read again after this time.
const UNANNOUNCED_LIST_MS = 5 * 60_000
// A shorter `ttlMs` would mean to list before every call.
const MIN_LIST_MS = 1_000
const MAX_PAGES = 1_000
const MAX_TOOLS = 10_000
// Characters of all definitions together.
const MAX_LIST_SIZE = 32 * 1024 * 1024

export interface SessionOptions {
  readonly config: ServerConfig
  readonly authorization: BackendAuthorization | undefined
  readonly env: Env
  readonly logger: Logger
  readonly era: EraVerdict
  /** Adds what every error about this server says. */
  readonly explain: (error: Error, retryAt?: number) => GatewayError
}

/** One connection to a backend, made on demand and made again when it is lost. */
export class Session {
  readonly #options: SessionOptions
  #connection: Connection | undefined
  #connecting: Promise<Connection> | undefined
  #list: ToolList | undefined
  #listing: Promise<ToolList> | undefined
  #listIsStale = false
  #failures = 0
  #failure: GatewayError | undefined
  #retryAt = 0
  #inFlight = 0
  #isRetiring = false
  /** Dropped, but with calls still under way. */
  readonly #retired = new Set<Connection>()
  readonly #closing = new AbortController()

  constructor(options: SessionOptions) {
    this.#options = options
  }

  get connection(): Connection | undefined {
    return this.#connection
  }

  get isConnecting(): boolean {
    return this.#connecting !== undefined
  }

  /** The last failure to connect, until a connect succeeds. */
  get failure(): GatewayError | undefined {
    return this.#failure
  }

  get retryAt(): number {
    return this.#retryAt
  }

  /** The last tool list that was read, fresh or not. */
  get knownTools(): ToolList | undefined {
    return this.#list
  }

  /** Concurrent first callers share one connect. While cooling down, fails at once with the last failure. */
  async connected(): Promise<Connection> {
    if (this.#connection) return this.#connection
    if (this.#closing.signal.aborted) throw new GatewayError('SHUTTING_DOWN', 'the gateway is shutting down')
    if (this.#failure && Date.now() < this.#retryAt && !(await this.#mayTryNow(this.#failure))) throw this.#failure
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = undefined
    })
    return this.#connecting
  }

  /** The tool list if it can be had without waiting. */
  get freshTools(): ToolList | undefined {
    return this.#list && !this.#listIsStale && this.#connection && Date.now() < this.#list.expiresAt
      ? this.#list
      : undefined
  }

  /** The tool list: cached until the backend announces a change or its `ttlMs` ends. Concurrent readers share one read. */
  async tools(): Promise<ToolList> {
    if (this.freshTools) return this.freshTools
    this.#listing ??= this.#readTools().finally(() => {
      this.#listing = undefined
    })
    return this.#listing
  }

  /** Like Connection.callTool; a session the backend has forgotten is opened again, once. */
  async callTool(call: OutgoingCall, tool: BackendTool, clock: CallClock): Promise<RawResult> {
    this.#inFlight++
    try {
      return await this.#callOnce(call, tool, clock)
    } finally {
      this.#inFlight--
      if (this.#isRetiring && this.#inFlight === 0) void this.close()
    }
  }

  /** Closes as soon as no call is under way. */
  retire(): void {
    this.#isRetiring = true
    if (this.#inFlight === 0) void this.close()
  }

  async #callOnce(call: OutgoingCall, tool: BackendTool, clock: CallClock): Promise<RawResult> {
    const connection = this.#connection ?? (await clock.wait(this.connected()))
    try {
      return await connection.callTool(call, tool, clock)
    } catch (error) {
      if (isConnectFailure(error)) throw this.#fail(error, connection)
      if (!(error instanceof SessionLost)) throw error
      this.#drop(connection)
      return (await clock.wait(this.connected())).callTool(call, tool, clock)
    }
  }

  async close(): Promise<void> {
    this.#closing.abort()
    const connection = await (this.#connecting?.catch(() => undefined) ?? this.#connection)
    this.#connection = undefined
    await Promise.all([connection, ...this.#retired].map(open => open?.close()))
  }

  async #connect(): Promise<Connection> {
    const { config, authorization, env, logger, era } = this.#options
    let current: Connection | undefined
    try {
      const { openConnection } = await import('./connection.js')
      const connection = await openConnection({
        config,
        authorization,
        env,
        logger,
        prior: era.get(),
        signal: this.#closing.signal,
        onToolsChanged: () => {
          this.#listIsStale = true
        },
        onClose: reason => {
          if (!current || this.#connection !== current) return
          this.#connection = undefined
          if (!this.#closing.signal.aborted) logger.warn({ server: config.name, reason }, 'backend connection lost')
        },
      })
      current = connection
      era.set(connection.verdict)
      this.#failures = 0
      this.#failure = undefined
      this.#listIsStale = true // a new process may offer other tools
      if (this.#closing.signal.aborted) {
        await connection.close()
        throw new GatewayError('SHUTTING_DOWN', 'the gateway is shutting down')
      }
      this.#connection = connection
      logger.info({ server: config.name, era: connection.era, pid: connection.pid }, 'backend connected')
      return connection
    } catch (error) {
      // The server itself is well; only its login could not be renewed at this moment.
      if (isLoginKept(error)) throw this.#options.explain(error)
      // Whatever is wrong with what it says, a server that cannot be connected is not available.
      const isNonsense =
        error instanceof GatewayError && error.code === 'BACKEND_ERROR' && !('required_scopes' in error.details)
      throw this.#fail(isNonsense ? new GatewayError('SERVER_UNAVAILABLE', error.message, { cause: error }) : error)
    }
  }

  /**
   * Notes that the server cannot be had at the moment, and when it is tried again. Calls that fail together on one connection
   * count as one failure. Returns the error that callers see until then.
   */
  #fail(error: unknown, connection?: Connection): GatewayError {
    const { config, era, logger, explain } = this.#options
    if (connection && this.#connection !== connection) return this.#failure ?? explain(unavailable(error))
    if (connection) this.#drop(connection)
    era.forget()
    const backoff = Math.min(RETRY_MS.first * 2 ** this.#failures++, RETRY_MS.max)
    const reason = unavailable(error)
    const asked = reason instanceof GatewayError ? Number(reason.details.retry_after_ms ?? 0) : 0
    this.#retryAt = Date.now() + Math.max(backoff, Math.min(asked, MAX_RETRY_AFTER_MS))
    const failure = explain(reason, this.#retryAt)
    this.#failure = failure
    logger.warn({ server: config.name, code: failure.code, reason: failure.message }, 'backend cannot be connected')
    return failure
  }

  /** A server that wanted a login is worth another try as soon as somebody has logged in. */
  async #mayTryNow(failure: GatewayError): Promise<boolean> {
    return failure.code === 'AUTH_REQUIRED' && (await this.#options.authorization?.hasUntriedToken()) === true
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
      this.#listIsStale = false
      const list = await this.#readAllPages(connection)
      this.#list = list
      for (const reason of list.rejected) {
        this.#options.logger.warn({ server: this.#options.config.name, reason }, 'tool definition left out')
      }
      return list
    } catch (error) {
      this.#listIsStale = true
      if (error instanceof SessionLost && mayReconnect) {
        this.#drop(connection)
        return this.#readTools(false)
      }
      if (isConnectFailure(error) || error instanceof SessionLost) throw this.#fail(error, connection)
      throw this.#options.explain(unavailable(error))
    }
  }

  async #readAllPages(connection: Connection): Promise<ToolList> {
    const { config, logger } = this.#options
    // Loaded with the first list, as the connection is: a front that only greets its client needs neither.
    const { toToolList } = await import('./tool.js')
    const { mirrorsParameters } = connection
    if (!connection.hasTools) return toToolList([], { expiresAt: Number.POSITIVE_INFINITY, mirrorsParameters })
    let definitions: unknown[] = []
    const seen = new Set<string>()
    let cursor: string | undefined
    let ttlMs = 0
    let size = 0
    do {
      const page = await connection.listTools(cursor)
      if (!Array.isArray(page.tools)) throw new GatewayError('BACKEND_ERROR', 'its tools/list has no array "tools"')
      definitions = definitions.concat(page.tools)
      size += JSON.stringify(page.tools).length
      if (typeof page.ttlMs === 'number' && page.ttlMs > 0) ttlMs = page.ttlMs
      const next = page.nextCursor
      cursor = typeof next === 'string' ? next : undefined
      if (
        cursor !== undefined &&
        (seen.has(cursor) || seen.size >= MAX_PAGES || definitions.length > MAX_TOOLS || size > MAX_LIST_SIZE)
      ) {
        logger.warn(
          { server: config.name, pages: seen.size + 1, tools: definitions.length },
          'tool list does not end: the rest is ignored',
        )
        break
      }
      if (cursor !== undefined) seen.add(cursor)
    } while (cursor !== undefined)
    const lifetime =
      ttlMs > 0
        ? Math.max(ttlMs, MIN_LIST_MS)
        : connection.announcesToolChanges
          ? Number.POSITIVE_INFINITY
          : UNANNOUNCED_LIST_MS
    return toToolList(definitions.slice(0, MAX_TOOLS), { expiresAt: Date.now() + lifetime, mirrorsParameters })
  }
}

/**
 * Failures that say the connection is no good, although it looked established (the era was known from before, say). A login with
 * too little scope for one call is still good for others.
 */
const isConnectFailure = (error: unknown): boolean =>
  error instanceof Unreachable ||
  (error instanceof GatewayError && error.code === 'AUTH_REQUIRED' && !('required_scopes' in error.details))

const isLoginKept = (error: unknown): error is GatewayError =>
  error instanceof GatewayError && error.details.login === 'kept'

/** No call was under way, so nothing about its outcome is unknown: the server is not to be had at the moment. */
function unavailable(thrown: unknown): Error {
  if (thrown instanceof ConnectionBroken || thrown instanceof SessionLost || thrown instanceof BackendRefusal) {
    const details = thrown instanceof ConnectionBroken ? { stderr: thrown.stderr } : {}
    return new GatewayError('SERVER_UNAVAILABLE', thrown.message, { cause: thrown, details })
  }
  return thrown instanceof Error ? thrown : new Error(messageOf(thrown))
}
