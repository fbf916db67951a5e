import { randomUUID } from 'node:crypto'
import {
  type AuthInfo,
  isJSONRPCResultResponse,
  type McpRequestContext,
  ProtocolError,
  type Result,
  Server,
  type ServerCapabilities,
  type ServerContext,
  type StandardSchemaV1,
} from '@modelcontextprotocol/server'
import { type BackendAsk, ClientRefusal, type RawResult } from '../backends/call.js'
import { isLogLevel, isSevereEnough } from '../backends/log-level.js'
import type { BackendChange } from '../backends/server-messages.js'
import type { Principal } from '../identity/principal.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { traceFieldsIn } from '../observability/trace-context.js'
import { version } from '../version.js'
import { relayedCapabilities } from './client-features.js'
import { type Description, type Entry, invalidParams, methodNotFound, type WatchFilter } from './endpoint.js'
import type { Front } from './front.js'
import { PARKED_MS } from './parked-calls.js'
import type { Caller, CallingClient, ClientSession } from './tool.js'

export const serverInfo = { name: 'agent-mcp-gateway', title: 'Agent MCP Gateway', version }

const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities'
const LOG_LEVEL = 'io.modelcontextprotocol/logLevel'
const INTERNAL_ERROR = -32603
const LISTS = ['tools', 'prompts', 'resources'] as const

/** Builds the SDK's server for one exchange (2026 over HTTP) or one connection (a session of 2025, or stdio). */
export class ServerFactory {
  readonly #front: Front
  readonly #principalOf: (context: McpRequestContext) => Principal

  constructor(front: Front, principalOf: (context: McpRequestContext) => Principal) {
    this.#front = front
    this.#principalOf = principalOf
  }

  create(entry: Entry, context: McpRequestContext, description?: Description): RelayServer {
    const { era, requestInfo } = context
    const principalOf: RelayOptions['principalOf'] = authInfo =>
      this.#principalOf(authInfo ? { ...context, authInfo } : context)
    const principal = principalOf()
    const front = this.#front
    const server = new RelayServer({ front, entry, principalOf, era, isOverHttp: !!requestInfo, description })
    // With no handler at all the SDK answers with the status that the specification wants (404).
    const method = era === 'modern' ? requestInfo?.headers.get('mcp-method') : undefined
    if (method && !front.has(entry, method, principal)) delete server.fallbackRequestHandler
    return server
  }

  /**
   * For what the SDK answers by what is declared: waits until that is known, or (milliseconds) as long as the client has patience.
   * A server that is slow to start may have everything.
   */
  async createDeclaring(entry: Entry, context: McpRequestContext, patienceMs: number): Promise<RelayServer> {
    const { era } = context
    const describing = this.#front.describe(entry, { principal: this.#principalOf(context), era })
    const late = new Promise<Description>(resolve => setTimeout(resolve, patienceMs, EVERYTHING).unref())
    return this.create(entry, context, await Promise.race([describing, late]).catch(() => undefined))
  }
}

const EVERYTHING: Description = {
  capabilities: {
    tools: { listChanged: true },
    prompts: { listChanged: true },
    resources: { listChanged: true, subscribe: true },
  },
}

interface RelayOptions {
  readonly front: Front
  readonly entry: Entry
  /** Who it is that a request comes from; without one, who it was that came first. */
  readonly principalOf: (authInfo?: AuthInfo) => Principal
  readonly era: 'legacy' | 'modern'
  readonly isOverHttp: boolean
  /** What the client would be told, where that is known. */
  readonly description: Description | undefined
}

/**
 * The SDK's server does handshakes, ids and cancellation; everything else is handed to the front as it came, and back as the
 * backend wrote it: the SDK's schemas would drop what they do not know.
 */
export class RelayServer extends Server {
  readonly #options: RelayOptions
  readonly #subscriptions = new Map<string, Promise<() => void>>()
  /** Of the transport, once it has one; over stdio the connection is the session. */
  #sessionId: string | undefined
  /** As its last token says: it may have another role or scope than when the session began. */
  #principal: Principal
  #description: Description
  #logLevel: string | undefined
  #stopWatching: Promise<() => void> | undefined

  constructor(options: RelayOptions) {
    super(serverInfo)
    this.#options = options
    this.#principal = options.principalOf()
    this.#description = options.description ?? { capabilities: { tools: {} } }
    this.#sessionId = options.isOverHttp || options.era === 'modern' ? undefined : randomUUID()
    this.fallbackRequestHandler = (request, context) => this.#answer(request.method, request.params ?? {}, context)
    this.fallbackNotificationHandler = async ({ method, params = {} }) => this.#notified(method, params)
    this.oninitialized = () => {
      if ('server' in options.entry) this.#watchLists()
    }
  }

  override getCapabilities(): ServerCapabilities {
    return this.#description.capabilities as ServerCapabilities
  }

  /** Tells a client with a stream open for it that something has changed. */
  announce(change: BackendChange): void {
    const isOfList = change.kind !== 'resource'
    const method = isOfList ? `notifications/${change.kind}/list_changed` : 'notifications/resources/updated'
    this.#tell(method, isOfList ? {} : change.params)
  }

  /** Has changes announced until the returned function is called. `meta` is that of the request for it, where there is one. */
  watch(filter: WatchFilter, meta?: JsonObject): Promise<() => void> {
    const { front, entry } = this.#options
    const caller = { ...this.#callerBesides(), ...(meta && { meta }) }
    return front.watch(entry, caller, filter, change => this.announce(change))
  }

  /** The connection is over: what was kept for its client goes too. */
  override _onclose(): void {
    super._onclose()
    for (const watching of [...this.#subscriptions.values(), this.#stopWatching]) void end(watching)
    this.#subscriptions.clear()
    const session = this.#sessionId
    if (session !== undefined) this.#options.front.release(session)
  }

  protected override _wrapHandler(
    method: string,
    handler: Parameters<Server['_wrapHandler']>[1],
  ): ReturnType<Server['_wrapHandler']> {
    if (method !== 'initialize' && method !== 'server/discover') return handler
    return async (request, context) => {
      const result = await handler(request, context)
      const { front, entry } = this.#options
      this.#description = await front.describe(entry, this.#callerOf({}, context)).catch(error => {
        this.#giveUp()
        throw error
      })
      const { capabilities, instructions, meta } = this.#description
      return {
        ...result,
        capabilities,
        ...(instructions !== undefined && { instructions }),
        ...(meta && { _meta: { ...(isJsonObject(result._meta) && result._meta), ...meta } }),
      }
    }
  }

  /** What did not begin has no session over HTTP; a client over stdio may try again. */
  #giveUp(): void {
    if (this.#options.isOverHttp && this.#options.era === 'legacy')
      setImmediate(() => void this.close().catch(() => {}))
  }

  // What may be said is for the two sides to agree upon.
  protected override assertNotificationCapability(): void {}
  protected override assertCapabilityForMethod(): void {}

  async #answer(method: string, { _meta: meta, ...params }: JsonObject, context: ServerContext): Promise<Result> {
    const { front, entry, era } = this.#options
    const notices: Promise<void>[] = []
    const caller = this.#callerOf(isJsonObject(meta) ? meta : {}, context, notices)
    if (era === 'legacy') {
      if (method === 'logging/setLevel') return this.#setLevel(params, caller)
      if (method === 'resources/subscribe') return this.#subscribe(params)
      if (method === 'resources/unsubscribe') return this.#unsubscribe(params)
    }
    const result = await front.request(entry, method, params, caller)
    if (method.endsWith('/list')) this.#watchLists()
    await Promise.all(notices) // the result ends the stream that they travel on
    // The SDK's transports let go of what they do not take for a response, and nobody would be answered.
    if (!isJSONRPCResultResponse({ jsonrpc: '2.0', id: 0, result }))
      throw new ProtocolError(INTERNAL_ERROR, 'the server answered with something that is not an MCP result')
    return result as Result
  }

  #callerOf(meta: JsonObject, { mcpReq, sessionId, http }: ServerContext, notices: Promise<void>[] = []): Caller {
    const { principalOf, era, isOverHttp } = this.#options
    const principal = principalOf(http?.authInfo)
    this.#principal = principal
    const { progressToken } = meta
    // One that is late finds the exchange closed; the result is what counts.
    const tell: CallingClient['tell'] = (method, params) => {
      if (this.#mayTell(method, params, caller.client?.logLevel))
        notices.push(mcpReq.notify({ method, params }).catch(() => {}))
    }
    this.#sessionId ??= sessionId
    const client = this.#clientOf(mcpReq, this.#sessionId, tell)
    const inputResponses = mcpReq.inputResponses
    const requestState = mcpReq.requestState()
    const caller: Caller = {
      principal,
      era,
      // A client of 2025 without a session that hangs up has not cancelled, and cannot.
      signal: era === 'legacy' && isOverHttp && this.#sessionId === undefined ? undefined : mcpReq.signal,
      meta,
      transportTrace: http?.req && traceFieldsIn(name => http.req?.headers.get(name)),
      client,
      ...(progressToken !== undefined && {
        onProgress: progress => tell('notifications/progress', { ...progress, progressToken }),
      }),
      ...((inputResponses !== undefined || requestState !== undefined) && {
        retry: { ...(inputResponses && { inputResponses }), ...(requestState !== undefined && { requestState }) },
      }),
    }
    return caller
  }

  #clientOf(
    mcpReq: ServerContext['mcpReq'],
    sessionId: string | undefined,
    tell: CallingClient['tell'],
  ): CallingClient | undefined {
    if (this.#options.era === 'modern') {
      const { [CAPABILITIES]: capabilities, [LOG_LEVEL]: level } = { ...mcpReq.envelope } as JsonObject
      return { capabilities: relayedCapabilities(capabilities), logLevel: isLogLevel(level) ? level : undefined, tell }
    }
    if (sessionId === undefined) return undefined
    return {
      capabilities: relayedCapabilities(this.getClientCapabilities()),
      logLevel: this.#logLevel,
      session: this.#session(sessionId),
      ask: ask => asClient(ask, (request, options) => mcpReq.send(request, AS_IT_IS, options)),
      tell,
    }
  }

  /** For what is said to the client beside any request of its own. */
  #session(id: string): ClientSession {
    const peer = {
      principal: this.#principal.key,
      capabilities: relayedCapabilities(this.getClientCapabilities()),
      takesLogs: 'server' in this.#options.entry,
      ask: (ask: BackendAsk) => asClient(ask, (request, options) => this.request(request, AS_IT_IS, options)),
      tell: (method: string, params: JsonObject) => this.#tell(method, params),
    }
    return { id, peer }
  }

  #callerBesides(): Caller {
    const { era } = this.#options
    const principal = this.#principal
    const id = this.#sessionId
    if (id === undefined) return { principal, era }
    const { peer, ...session } = this.#session(id)
    const { capabilities, ask, tell } = peer
    return {
      principal,
      era,
      client: { capabilities, ask, tell, logLevel: this.#logLevel, session: { ...session, peer } },
    }
  }

  async #setLevel({ level }: JsonObject, caller: Caller): Promise<Result> {
    if (!isLogLevel(level)) throw invalidParams(`Invalid log level: ${JSON.stringify(level)?.slice(0, 100)}`)
    const { front, entry } = this.#options
    const result = await front.request(entry, 'logging/setLevel', { level }, caller)
    this.#logLevel = level
    return result as Result
  }

  async #subscribe({ uri }: JsonObject): Promise<Result> {
    const { resources } = this.#description.capabilities
    if (this.#sessionId === undefined || !isJsonObject(resources) || resources.subscribe !== true)
      throw methodNotFound()
    if (typeof uri !== 'string') throw invalidParams('Invalid params: uri must be a string')
    if (this.#subscriptions.size >= MAX_SUBSCRIPTIONS) throw invalidParams('Too many subscriptions')
    const watching = this.#subscriptions.get(uri) ?? this.watch({ lists: [], uris: [uri] })
    this.#subscriptions.set(uri, watching)
    try {
      await watching
      return {}
    } catch (error) {
      if (this.#subscriptions.get(uri) === watching) this.#subscriptions.delete(uri)
      throw error
    }
  }

  #unsubscribe({ uri }: JsonObject): Result {
    if (typeof uri !== 'string') throw invalidParams('Invalid params: uri must be a string')
    void end(this.#subscriptions.get(uri))
    this.#subscriptions.delete(uri)
    return {}
  }

  /** A client of 2025 is told of changes without having asked. */
  #watchLists(): void {
    if (this.#options.era === 'modern' || this.#sessionId === undefined) return
    const announced = LISTS.filter(list => {
      const capability = this.#description.capabilities[list]
      return isJsonObject(capability) && capability.listChanged === true
    })
    if (announced.length === 0 || this.#stopWatching) return
    this.#stopWatching = this.watch({ lists: announced, uris: [] })
    this.#stopWatching.catch(() => {
      this.#stopWatching = undefined // the next list is another chance
    })
  }

  #notified(method: string, params: JsonObject): void {
    const { front, entry } = this.#options
    front.notify(entry, method, params, this.#callerBesides())
  }

  #tell(method: string, params: JsonObject): void {
    if (this.#mayTell(method, params, this.#logLevel)) void this.notification({ method, params }).catch(() => {})
  }

  #mayTell(method: string, params: JsonObject, level: string | undefined): boolean {
    return method !== 'notifications/message' || isSevereEnough(params.level, level)
  }
}

const MAX_SUBSCRIPTIONS = 1_000

/** Ends a watch, also one that is still beginning. */
async function end(watching: Promise<() => void> | undefined): Promise<void> {
  const stop = await watching?.catch(() => undefined)
  stop?.()
}

type SendRequest = (
  request: { readonly method: string; readonly params: Record<string, unknown> },
  options: Parameters<ServerContext['mcpReq']['send']>[2],
) => Promise<RawResult>

/** Puts a backend's request to the client. People take their time to answer. */
async function asClient({ method, params, signal, onProgress }: BackendAsk, send: SendRequest): Promise<RawResult> {
  try {
    return await send(
      { method, params: { ...params } },
      {
        signal,
        timeout: PARKED_MS,
        resetTimeoutOnProgress: true,
        ...(onProgress && { onprogress: onProgress }),
      },
    )
  } catch (error) {
    if (error instanceof ProtocolError) throw new ClientRefusal(error.code, error.message, error.data)
    throw new ClientRefusal(-32603, 'the client did not answer')
  }
}

/** A schema that takes everything: what only passes through is not parsed again. */
const AS_IT_IS: StandardSchemaV1<RawResult, RawResult> = {
  '~standard': { version: 1, vendor: 'agent-mcp-gateway', validate: value => ({ value: value as RawResult }) },
}
