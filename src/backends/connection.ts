import {
  Client,
  type PriorDiscovery,
  type StandardSchemaV1,
  StreamableHTTPClientTransport,
  type Transport,
} from '@modelcontextprotocol/client'
import type { HttpServerConfig, ServerConfig, StdioServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import { version } from '../version.js'
import { type CallClock, ConnectionBroken, type OutgoingCall, type RawResult } from './call.js'
import { type DirectLane, directLaneOver } from './direct-lane.js'
import { fromSdkError } from './sdk-errors.js'
import { StdioTransport } from './stdio-transport.js'
import type { BackendTool } from './tool.js'

// Long enough for a slow start, short enough for a server that ignores what it does not know.
const STDIO_PROBE_TIMEOUT_MS = 10_000
const RELISTEN_MS = { first: 1_000, max: 60_000 }
const GOODBYE_MS = 2_000

/** One open connection to one backend, of either era. */
export interface Connection {
  readonly era: 'legacy' | 'modern'
  /** What to hand to the next connect, so that it need not probe again. */
  readonly verdict: PriorDiscovery
  readonly hasTools: boolean
  /** True when the backend announces changes of its tool list. */
  readonly announcesToolChanges: boolean
  readonly pid: number | undefined
  /** Rejects with BackendRefusal, SessionLost, ConnectionBroken or a GatewayError. */
  callTool(call: OutgoingCall, tool: BackendTool, clock: CallClock): Promise<RawResult>
  /** One page of `tools/list`. */
  listTools(cursor: string | undefined): Promise<RawResult>
  close(): Promise<void>
}

export interface ConnectOptions {
  readonly config: ServerConfig
  readonly env: Env
  readonly prior: PriorDiscovery | undefined
  readonly logger: Logger
  readonly onToolsChanged: () => void
  readonly onClose: (reason: string) => void
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
  try {
    const client = await connectClient(transport, { ...options, probeTimeoutMs: STDIO_PROBE_TIMEOUT_MS })
    return toConnection({
      client,
      transport,
      options,
      lane: directLaneOver({ stdio: transport }, client),
      stderrTail: () => transport.stderrTail(),
      pid: () => transport.pid,
    })
  } catch (error) {
    const exitedByItself = transport.ending !== undefined
    await transport.close()
    if (!exitedByItself || options.prior || options.signal.aborted) throw withStderr(error, config, transport)
  }
  // Some servers exit on any request before `initialize`: that is a server of the 2025 era, spoken to in the wrong words.
  return connectStdio(config, { ...options, prior: { kind: 'legacy' } })
}

async function connectHttp(config: HttpServerConfig, options: ConnectOptions): Promise<Connection> {
  const { openPool, fetchOver, toHttpTarget } = await import('./http-lane.js')
  const pool = openPool()
  const target = toHttpTarget(config, pool)
  const transport = new StreamableHTTPClientTransport(new URL(config.url), {
    fetch: fetchOver(pool),
    requestInit: { headers: { ...config.headers } },
  })
  try {
    const client = await connectClient(transport, options)
    const lane = directLaneOver({ http: target, transport }, client)
    const goodbye = async () => {
      if (transport.sessionId !== undefined) await transport.terminateSession()
    }
    return toConnection({ client, transport, options, lane, goodbye, release: () => pool.destroy() })
  } catch (error) {
    await Promise.allSettled([transport.close(), pool.destroy()])
    const failure = fromSdkError(error, config)
    // The statuses the specification names for "this may be a server of the old HTTP+SSE transport".
    if (!options.signal.aborted && (failure.status === 400 || failure.status === 404 || failure.status === 405)) {
      return connectSse(config, options).catch(() => {
        throw failure.error
      })
    }
    throw failure.error
  }
}

async function connectSse(config: HttpServerConfig, options: ConnectOptions): Promise<Connection> {
  const [{ openPool, fetchOver }, { SSEClientTransport }] = await Promise.all([
    import('./http-lane.js'),
    import('@modelcontextprotocol/client'),
  ])
  const pool = openPool()
  const transport = new SSEClientTransport(new URL(config.url), {
    fetch: fetchOver(pool),
    requestInit: { headers: { ...config.headers } },
  })
  try {
    const client = await connectClient(transport, { ...options, prior: { kind: 'legacy' } })
    return toConnection({ client, transport, options, lane: undefined, release: () => pool.destroy() })
  } catch (error) {
    await Promise.allSettled([transport.close(), pool.destroy()])
    throw fromSdkError(error, config).error
  }
}

async function connectClient(
  transport: Transport,
  { config, prior, onToolsChanged, signal, probeTimeoutMs }: ConnectOptions & { probeTimeoutMs?: number },
): Promise<Client> {
  const probe = probeTimeoutMs === undefined ? {} : { timeoutMs: Math.min(probeTimeoutMs, config.startupTimeoutMs) }
  const client = new Client(
    { name: 'agent-mcp-gateway', version },
    { capabilities: {}, versionNegotiation: { mode: 'auto', probe } },
  )
  client.setNotificationHandler('notifications/tools/list_changed', onToolsChanged)
  const giveUp = () => void transport.close().catch(() => {})
  signal.addEventListener('abort', giveUp, { once: true })
  try {
    await client.connect(transport, { timeout: config.startupTimeoutMs, signal, ...(prior && { prior }) })
    signal.throwIfAborted()
    return client
  } finally {
    signal.removeEventListener('abort', giveUp)
  }
}

interface Parts {
  readonly client: Client
  readonly transport: Transport
  readonly options: ConnectOptions
  readonly lane: DirectLane | undefined
  readonly goodbye?: () => Promise<void>
  readonly release?: () => Promise<void>
  readonly stderrTail?: () => string[]
  readonly pid?: () => number | undefined
}

function toConnection({ client, transport, options, lane, goodbye, release, stderrTail, pid }: Parts): Connection {
  const { config, logger } = options
  const discover = client.getDiscoverResult()
  const era = client.getProtocolEra() === 'modern' ? 'modern' : 'legacy'
  const tools = client.getServerCapabilities()?.tools
  const closing = new AbortController()
  client.onerror = error => logger.debug({ server: config.name, reason: error.message }, 'backend connection reported')
  client.onclose = () => {
    closing.abort()
    options.onClose(
      transport instanceof StdioTransport && transport.ending !== undefined
        ? `the process ${transport.ending}`
        : 'the connection was closed',
    )
  }
  const withLastWords = (error: unknown): never => {
    if (error instanceof ConnectionBroken) error.stderr = stderrTail?.() ?? []
    throw error
  }
  if (era === 'modern' && tools?.listChanged === true) void keepListening(client, options, closing.signal)

  return {
    era,
    verdict: discover ? { kind: 'modern', discover } : { kind: 'legacy' },
    hasTools: tools !== undefined,
    announcesToolChanges: tools?.listChanged === true,
    get pid() {
      return pid?.()
    },
    callTool(call, tool, clock) {
      const direct = lane?.carries(call, tool) === true
      return (direct ? lane.call(call, clock) : callOverSdk(client, call, tool, clock, config)).catch(withLastWords)
    },
    async listTools(cursor) {
      const params = cursor === undefined ? {} : { cursor }
      return client
        .request({ method: 'tools/list', params }, RAW, { timeout: config.startupTimeoutMs })
        .catch(error => withLastWords(fromSdkError(error, config).error))
    },
    async close() {
      closing.abort()
      if (goodbye)
        await Promise.race([goodbye().catch(() => {}), new Promise(resolve => setTimeout(resolve, GOODBYE_MS).unref())])
      await client.close()
      await transport.close()
      await release?.()
    },
  }
}

/** For what the direct lane does not carry: tools whose parameters travel in headers too, and the old HTTP+SSE transport. */
async function callOverSdk(
  client: Client,
  call: OutgoingCall,
  { definition, hasParameterHeaders }: BackendTool,
  clock: CallClock,
  config: ServerConfig,
): Promise<RawResult> {
  const params = { name: call.name, arguments: { ...call.arguments }, ...(call.meta && { _meta: { ...call.meta } }) }
  const options = {
    signal: clock.signal,
    timeout: clock.remainingMs, // the clock is ours: it aborts the signal
    onprogress: (progress: Parameters<NonNullable<OutgoingCall['onProgress']>>[0]) => {
      clock.progress()
      call.onProgress?.(progress)
    },
  }
  try {
    if (!hasParameterHeaders) return await client.request({ method: 'tools/call', params }, RAW, options)
    const { outputSchema: _notChecked, ...toolDefinition } = definition
    return await client.callTool(params, { ...options, toolDefinition })
  } catch (error) {
    if (clock.signal.aborted) throw clock.signal.reason
    throw fromSdkError(error, config).error
  }
}

/** Keeps a `subscriptions/listen` stream open as long as the connection is (2026-07-28, "Subscriptions"). */
async function keepListening(
  client: Client,
  { config, logger, onToolsChanged }: ConnectOptions,
  signal: AbortSignal,
): Promise<void> {
  for (let delay = RELISTEN_MS.first; !signal.aborted; delay = Math.min(delay * 2, RELISTEN_MS.max)) {
    const openedAt = Date.now()
    try {
      const subscription = await client.listen({ toolsListChanged: true }, { signal })
      if ((await subscription.closed) === 'local') return
      if (Date.now() - openedAt > RELISTEN_MS.max) delay = RELISTEN_MS.first
    } catch (error) {
      if (signal.aborted) return
      logger.debug({ server: config.name, err: error }, 'cannot listen for changes')
    }
    onToolsChanged() // whatever was announced meanwhile was missed
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, delay * (0.5 + Math.random()))
      timer.unref()
      signal.addEventListener('abort', () => resolve(), { once: true })
    })
  }
}

function withStderr(error: unknown, config: StdioServerConfig, transport: StdioTransport): GatewayError {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') {
    const missing =
      config.cwd === undefined
        ? `the command "${config.command}" was not found in PATH`
        : `the command "${config.command}" or the directory "${config.cwd}" was not found`
    return new GatewayError('SERVER_UNAVAILABLE', `${missing}: install it, or write its full path`, { cause: error })
  }
  const { error: failure } = fromSdkError(error, config)
  const reason = transport.ending === undefined ? failure.message : `the process ${transport.ending} before it answered`
  return new GatewayError('SERVER_UNAVAILABLE', reason, { cause: error, details: { stderr: transport.stderrTail() } })
}

/** A schema that takes everything: what only passes through is not parsed again. */
const RAW: StandardSchemaV1<RawResult, RawResult> = {
  '~standard': { version: 1, vendor: 'agent-mcp-gateway', validate: value => ({ value: value as RawResult }) },
}
