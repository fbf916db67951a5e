import { existsSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import {
  Client,
  type JSONRPCMessage,
  type PriorDiscovery,
  SseError,
  StreamableHTTPClientTransport,
  type Transport,
} from '@modelcontextprotocol/client'
import type { Dispatcher } from 'undici'
import type { HttpServerConfig, ServerConfig, StdioServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { version } from '../version.js'
import type { BackendAuthorization } from './authorization.js'
import { type CallClock, type ClientPeer, ConnectionBroken, type OutgoingRequest, type RawResult } from './call.js'
import { httpLane, type Lane, sdkLane, stdioLane } from './lane.js'
import { createReopenScheduler, keepListening } from './listening.js'
import { fromSdkError } from './sdk-errors.js'
import { type BackendChange, type InFlight, ServerMessages } from './server-messages.js'
import { StdioTransport } from './stdio-transport.js'

// Long enough for a slow start, short enough for a server that ignores what it does not know.
const STDIO_PROBE_TIMEOUT_MS = 10_000
const GOODBYE_MS = 2_000
// How often is for createReopenScheduler to say.
const RECONNECT_FOR_EVER = {
  initialReconnectionDelay: 1_000,
  maxReconnectionDelay: 30_000,
  reconnectionDelayGrowFactor: 2,
  maxRetries: Number.POSITIVE_INFINITY,
}

/** One open connection to one backend, of either era. */
export interface Connection {
  readonly era: 'legacy' | 'modern'
  /** What to hand to the next connect, so that it need not probe again. */
  readonly verdict: PriorDiscovery
  /** What the backend says it has, and how it wants to be used. */
  readonly description: BackendDescription
  readonly pid: number | undefined
  /** True when parameters may have to travel as headers too. */
  readonly mirrorsParameters: boolean
  /** Rejects with BackendRefusal, SessionLost, Unreachable, ConnectionBroken or a GatewayError. */
  request(request: OutgoingRequest, clock: CallClock): Promise<RawResult>
  /** Sends a notification, as far as the connection can carry one. */
  notify(method: string, params: JsonObject): void
  /** Has changes of these resources announced until the returned function is called (2026-07-28; with 2025 it is a request). */
  listenTo(uris: readonly string[], onOpen: () => void): () => void
  /** Takes no new calls; resolves when those under way are done and everything is closed. */
  retire(): Promise<void>
  /** Ends everything now. */
  close(): Promise<void>
}

export interface BackendDescription {
  readonly capabilities: JsonObject
  readonly instructions: string | undefined
  readonly serverInfo: JsonObject | undefined
}

export interface ConnectOptions {
  readonly config: ServerConfig
  readonly authorization: BackendAuthorization | undefined
  readonly env: Env
  readonly prior: PriorDiscovery | undefined
  readonly logger: Logger
  /** The client that the connection is for alone; none where it is shared. */
  readonly client: Pick<ClientPeer, 'capabilities'> | undefined
  /** The session of that client, if it has one. */
  readonly sessionClient: ClientPeer | undefined
  readonly onChange: (change: BackendChange) => void
  /** The connection has ended by itself, or was closed; with the last words of a process. */
  readonly onClose: (reason: string, stderr: readonly string[]) => void
  /** Gives up connecting. */
  readonly signal: AbortSignal
}

/** Connects, negotiating era and transport. Rejects with a GatewayError or what fromSdkError makes of the failure. */
export async function openConnection(options: ConnectOptions): Promise<Connection> {
  const { config } = options
  if (config.transport === 'stdio') return connectStdio(config, options)
  if (config.transport === 'sse') return connectSse(config, options)
  return connectHttp(config, options)
}

async function connectStdio(config: StdioServerConfig, options: ConnectOptions): Promise<Connection> {
  const transport = new StdioTransport(config, options.env)
  const messages = new ServerMessages(options)
  try {
    const client = await connectClient(transport, messages, { ...options, probeTimeoutMs: STDIO_PROBE_TIMEOUT_MS })
    return toConnection({
      client,
      transport,
      messages,
      options,
      lane: stdioLane(transport, client),
      stderrTail: () => transport.stderrTail(),
      pid: () => transport.pid,
    })
  } catch (error) {
    const ending = transport.ending
    await transport.close()
    if (ending === undefined || options.prior || options.signal.aborted)
      throw withStderr(error, config, { transport, ending })
  }
  // Some servers exit on any request before `initialize`: that is a server of the 2025 era, spoken to in the wrong words.
  return connectStdio(config, { ...options, prior: { kind: 'legacy' } })
}

async function connectHttp(config: HttpServerConfig, options: ConnectOptions): Promise<Connection> {
  const { openPool, fetchOver, ownHeaders, toHttpTarget } = await import('./http-lane.js')
  const pool = openPool(config.url, options.env)
  const route = { pool, config, authorization: options.authorization }
  const wire = fetchOver(route)
  const transport = new StreamableHTTPClientTransport(new URL(config.url), {
    fetch: wire.fetch,
    requestInit: { headers: ownHeaders(config) },
    reconnectionOptions: RECONNECT_FOR_EVER,
    reconnectionScheduler: createReopenScheduler(),
  })
  const messages = new ServerMessages(options)
  try {
    const client = await connectClient(transport, messages, options)
    const lane = httpLane(toHttpTarget(route), transport, client)
    const goodbye = async () => {
      if (transport.sessionId !== undefined) await transport.terminateSession()
    }
    return toConnection({ client, transport, messages, options, lane, pool, goodbye })
  } catch (error) {
    await Promise.allSettled([transport.close(), pool.destroy()])
    const failure = fromSdkError(error, config, wire.lastRefusal())
    // The statuses the specification names for "this may be a server of the old HTTP+SSE transport".
    if (options.signal.aborted || !failure.status || ![400, 404, 405].includes(failure.status)) throw failure.error
    return connectSse(config, options).catch(() => {
      throw failure.error
    })
  }
}

async function connectSse(config: HttpServerConfig, options: ConnectOptions): Promise<Connection> {
  const [{ openPool, fetchOver, ownHeaders }, { SSEClientTransport }] = await Promise.all([
    import('./http-lane.js'),
    import('@modelcontextprotocol/client'),
  ])
  const pool = openPool(config.url, options.env)
  const wire = fetchOver({ pool, config, authorization: options.authorization })
  const init = { fetch: wire.fetch, requestInit: { headers: ownHeaders(config) } }
  const transport = new SSEClientTransport(new URL(config.url), init)
  const messages = new ServerMessages(options)
  try {
    const client = await connectClient(transport, messages, { ...options, prior: { kind: 'legacy' } })
    return toConnection({ client, transport, messages, options, lane: sdkLane(client, config), pool })
  } catch (error) {
    await Promise.allSettled([transport.close(), pool.destroy()])
    throw fromSdkError(error, config, wire.lastRefusal()).error
  }
}

async function connectClient(
  transport: Transport,
  messages: ServerMessages,
  { config, prior, client: peer, signal, probeTimeoutMs }: ConnectOptions & { probeTimeoutMs?: number },
): Promise<Client> {
  // A server that ignores the probe still needs time for the handshake it knows.
  const probe = probeTimeoutMs === undefined ? {} : { timeoutMs: Math.min(probeTimeoutMs, config.startupTimeoutMs / 2) }
  const client = new Client(
    { name: 'agent-mcp-gateway', version },
    { capabilities: { ...peer?.capabilities }, versionNegotiation: { mode: 'auto', probe } },
  )
  client.fallbackRequestHandler = ({ method, params = {} }, { mcpReq: { id, signal: abandoned, notify } }) =>
    messages.ask({
      id,
      method,
      params,
      signal: abandoned,
      notify: (name, about) => void notify({ method: name, params: about }).catch(() => {}),
    })
  client.fallbackNotificationHandler = async ({ method, params = {} }) => messages.tell(method, params)
  // One limit for all of it: the probe, the handshake, and a server that answers neither.
  const limit = AbortSignal.timeout(config.startupTimeoutMs)
  const giveUp = () => void transport.close().catch(() => {})
  for (const reason of [signal, limit]) reason.addEventListener('abort', giveUp, { once: true })
  if (signal.aborted) giveUp() // before anybody listened
  try {
    await client.connect(transport, { timeout: config.startupTimeoutMs, ...(prior && { prior }) })
    signal.throwIfAborted()
    return client
  } catch (error) {
    if (!limit.aborted) throw error
    const message = `the server did not answer within ${config.startupTimeoutMs} ms (startupTimeoutMs)`
    throw new GatewayError('SERVER_UNAVAILABLE', message, { cause: error })
  } finally {
    for (const reason of [signal, limit]) reason.removeEventListener('abort', giveUp)
  }
}

interface Parts {
  readonly client: Client
  readonly transport: Transport
  readonly messages: ServerMessages
  readonly options: ConnectOptions
  readonly lane: Lane
  readonly pool?: Dispatcher
  readonly goodbye?: () => Promise<void>
  readonly stderrTail?: () => string[]
  readonly pid?: () => number | undefined
}

function toConnection({
  client,
  transport,
  messages,
  options,
  lane,
  pool,
  goodbye,
  stderrTail,
  pid,
}: Parts): Connection {
  const { config, logger } = options
  const discover = client.getDiscoverResult()
  const era = client.getProtocolEra() === 'modern' ? 'modern' : 'legacy'
  if (era === 'modern') messages.share()
  const capabilities: JsonObject = { ...client.getServerCapabilities() }
  const closing = new AbortController()
  client.onerror = error => {
    // Never what a server answered: it may be anybody's.
    logger.debug(
      { server: config.name, reason: error.message.split('{')[0]?.slice(0, 200) },
      'backend connection reported',
    )
    // Answers come on this stream alone: without it every call would wait for its limit.
    if (error instanceof SseError) void transport.close()
  }
  client.onclose = () => {
    closing.abort()
    const ended = transport instanceof StdioTransport && transport.ending !== undefined
    options.onClose(ended ? `the process ${transport.ending}` : 'the connection was closed', stderrTail?.() ?? [])
  }
  const withLastWords = (error: unknown): never => {
    if (error instanceof ConnectionBroken) error.stderr = stderrTail?.() ?? []
    throw error
  }
  const toClient = (message: JSONRPCMessage): void => transport.onmessage?.(message)
  /** What comes on the stream of a request belongs to it. */
  const receive = (message: JSONRPCMessage, origin: InFlight): void => {
    if ('method' in message && 'id' in message) messages.noteOrigin(message.id, origin)
    const isLog = 'method' in message && message.method === 'notifications/message'
    if (isLog) messages.tell(message.method, message.params ?? {}, origin)
    else toClient(message)
  }
  const failToListen = (error: unknown) =>
    logger.debug({ server: config.name, err: error }, 'cannot listen for changes')
  const announced = announcedLists(capabilities)
  if (era === 'modern' && announced.length > 0) {
    void keepListening(client, Object.fromEntries(announced.map(kind => [`${kind}ListChanged`, true])), {
      // What changed before this moment was not announced.
      onOpen: () => announced.map(kind => options.onChange({ kind })),
      onFailure: failToListen,
      signal: closing.signal,
    })
  }

  return {
    era,
    verdict: discover ? { kind: 'modern', discover } : { kind: 'legacy' },
    description: {
      capabilities,
      instructions: client.getInstructions(),
      serverInfo: client.getServerVersion() && { ...client.getServerVersion() },
    },
    mirrorsParameters: era === 'modern' && pool !== undefined,
    get pid() {
      return pid?.()
    },
    request(given, clock) {
      const request = era === 'legacy' ? withoutRounds(given) : given
      const origin: InFlight = { client: request.client, clock }
      messages.enter(origin)
      return lane({ ...request, clock, onMessage: message => receive(message, origin) })
        .catch(withLastWords)
        .finally(() => messages.leave(origin))
    },
    notify(method, params) {
      void transport.send({ jsonrpc: '2.0', method, params }).catch(() => {})
    },
    listenTo(uris, onOpen) {
      const ended = new AbortController()
      const signal = AbortSignal.any([ended.signal, closing.signal])
      void keepListening(client, { resourceSubscriptions: [...uris] }, { onOpen, onFailure: failToListen, signal })
      return () => ended.abort()
    },
    async retire() {
      closing.abort()
      await Promise.allSettled([client.close(), pool ? pool.close() : transport.close()])
    },
    async close() {
      closing.abort()
      if (goodbye) await Promise.race([goodbye().catch(() => {}), wait(GOODBYE_MS, undefined, { ref: false })])
      await client.close()
      await transport.close()
      await pool?.destroy()
    },
  }
}

/** What belongs to multi round-trip requests means nothing to a backend of 2025. */
function withoutRounds(request: OutgoingRequest): OutgoingRequest {
  const { inputResponses, requestState, ...params } = request.params
  return inputResponses === undefined && requestState === undefined ? request : { ...request, params }
}

/** The lists whose changes the backend announces. */
export function announcedLists(capabilities: JsonObject): ('tools' | 'prompts' | 'resources')[] {
  return (['tools', 'prompts', 'resources'] as const).filter(kind => {
    const capability = capabilities[kind]
    return isJsonObject(capability) && capability.listChanged === true
  })
}

function withStderr(
  error: unknown,
  config: StdioServerConfig,
  { transport, ending }: { transport: StdioTransport; ending: string | undefined },
): GatewayError {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOENT' || code === 'EACCES')
    return new GatewayError('SERVER_UNAVAILABLE', cannotStart(code, config), { cause: error })
  const reason =
    ending === undefined ? fromSdkError(error, config).error.message : `the process ${ending} before it answered`
  const noise = transport.noise > 0 ? `; ${transport.noise} lines it wrote to stdout were no MCP messages` : ''
  return new GatewayError('SERVER_UNAVAILABLE', reason + noise, {
    cause: error,
    details: { stderr: transport.stderrTail() },
  })
}

function cannotStart(code: 'ENOENT' | 'EACCES', { command, cwd }: StdioServerConfig): string {
  if (cwd !== undefined && !existsSync(cwd)) return `the directory "${cwd}" (cwd) does not exist`
  if (code === 'EACCES')
    return `"${command}" is not executable: chmod +x it, or name the program that runs it as the command`
  if (/[/\\]/.test(command)) return `the command "${command}" does not exist`
  return `the command "${command}" was not found in PATH: install it, or write its full path`
}
