import type { Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { CallClock, RawResult } from '../backends/call.js'
import type { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Audited } from './audited.js'
import type { DiscoverEndpoint } from './discover-endpoint.js'
import {
  type CallTarget,
  type CutResult,
  type Description,
  type Endpoint,
  invalidParams,
  methodNotFound,
  unknownTool,
} from './endpoint.js'
import { callBackendTool } from './execute-tool.js'
import { refusalIn, toProtocolError } from './protocol-errors.js'
import { asOurs, BACKEND_INFO } from './provenance.js'
import type { Runtime } from './runtime.js'
import type { SealedState } from './sealed-state.js'
import { type GatewayCall, hidesExistence, notAvailable } from './tool.js'

const READ_RESULT = 'read_result'
const CURSOR_MS = 60 * 60_000

/** Methods that go through as they are. */
const RELAYED: ReadonlySet<string> = new Set([
  'resources/list',
  'resources/templates/list',
  'resources/read',
  'prompts/list',
  'prompts/get',
  'completion/complete',
])
const METHODS: ReadonlySet<string> = new Set([...RELAYED, 'tools/list', 'tools/call', 'logging/setLevel'])
/** Worth a line in the audit log: something was looked at. */
const AUDITED: ReadonlySet<string> = new Set(['resources/read', 'prompts/get'])

export interface ServerEndpointOptions {
  readonly runtime: Runtime
  readonly audited: Audited
  readonly sealed: SealedState
  readonly cut: CutResult
  /** Where a result that was cut is read on in. */
  readonly small: DiscoverEndpoint
}

/** One backend, unprefixed, with everything it has (DESIGN section 3); the rules decide by the names of its tools. */
export class ServerEndpoint implements Endpoint {
  readonly methods: ReadonlySet<string> = METHODS
  readonly #server: string
  readonly #options: ServerEndpointOptions

  constructor(server: string, options: ServerEndpointOptions) {
    this.#server = server
    this.#options = options
  }

  async describe(call: GatewayCall): Promise<Description> {
    const backend = this.#permitted(call)
    const clock = backend.startClock({ timeoutMs: backend.config.startupTimeoutMs, signal: call.caller.signal })
    const describing = backend.describe(call.owner, clock).finally(() => clock.stop())
    const { capabilities, instructions, serverInfo } = await describing
    const { tasks: _notRelayed, ...relayed } = capabilities
    return { capabilities: relayed, instructions, ...(serverInfo && { meta: { [BACKEND_INFO]: serverInfo } }) }
  }

  async request(call: GatewayCall, method: string, params: JsonObject): Promise<RawResult> {
    if (method === 'tools/call') return this.#callTool(call, params)
    const backend = this.#permitted(call)
    if (method === 'tools/list') return this.#listTools(call, backend, params)
    if (method === 'logging/setLevel') return this.#setLogLevel(call, backend, params)
    if (!RELAYED.has(method)) throw methodNotFound()
    const { runtime, audited } = this.#options
    const relay = () => runtime.track(() => this.#relay(call, backend, method, params))
    return AUDITED.has(method) ? audited.run(method, call, relay) : relay()
  }

  async inputSchema(call: GatewayCall, name: string): Promise<unknown> {
    const backend = this.#permitted(call)
    if (!call.permits(call.agent ?? '', this.#server, name)) return undefined
    const list =
      backend.freshTools(call.owner) ?? (await withClock(backend, call, clock => backend.tools(call.owner, clock)))
    const definition = list.byName.get(name)?.definition
    return definition && call.permits(call.agent ?? '', this.#server, definition) ? definition.inputSchema : undefined
  }

  async target(_call: GatewayCall, name: string): Promise<CallTarget> {
    return { operation: 'tools/call', server: this.#server, tools: [name] }
  }

  backends(call: GatewayCall): readonly Backend[] {
    return [this.#permitted(call)]
  }

  ownUris(_server: string, uris: readonly string[]): readonly string[] {
    return uris
  }

  publicUri(_server: string, uri: string): string {
    return uri
  }

  notify(call: GatewayCall, method: string, params: JsonObject): void {
    const backend = this.#permitted(call)
    backend.notify(call.owner, method, params)
  }

  /** Throws as for a server that does not exist when the agent may not use it. */
  #permitted(call: GatewayCall): Backend {
    const agent = call.actAs(undefined)
    call.server = this.#server
    const backend = call.snapshot.backends.get(this.#server)
    if (!call.decide(agent, this.#server) || !backend) throw notAvailable(agent, this.#server)
    return backend
  }

  async #callTool(call: GatewayCall, { name, arguments: args }: JsonObject): Promise<RawResult> {
    if (typeof name !== 'string') throw invalidParams('Invalid params: name must be a string')
    if (args !== undefined && !isJsonObject(args)) throw invalidParams('Invalid params: arguments must be an object')
    const { runtime, audited, cut, small } = this.#options
    if (name === READ_RESULT && (await this.#readsResults(call))) return small.callTool(call, name, args)
    const wanted = {
      server: this.#server,
      names: [name],
      args,
      timeoutMs: undefined,
      agentId: undefined,
      asIs: true,
      isListed: true,
    }
    const asRefusal = (error: GatewayError) => {
      if (hidesExistence(error)) return unknownTool(name)
      return refusalIn(error) && toProtocolError(error, call.caller.era)
    }
    const run = () => runtime.track(async () => cut(await callBackendTool(call, wanted), call))
    return audited.tool('tools/call', call, run, asRefusal)
  }

  async #listTools(call: GatewayCall, backend: Backend, { cursor }: JsonObject): Promise<RawResult> {
    if (cursor !== undefined) throw invalidParams('Invalid cursor') // all of it is on the first page
    const { tools, ttlMs, beside } = await withClock(backend, call, clock => backend.tools(call.owner, clock))
    // The rules make the list the caller's own, whatever the backend says about it.
    const other = beside && asOurs(beside)
    const cacheable = call.caller.era === 'modern' && ttlMs !== undefined && { ttlMs, cacheScope: 'private' }
    const permitted = this.#permittedTools(call, tools)
    const readResult = this.#options.small.readResultFor(call)
    if (!readResult) return { ...other, tools: permitted, ...cacheable }
    // Results that may be cut are not what an output schema promises.
    const listed = permitted.map(({ outputSchema: _, ...tool }) => tool)
    return {
      ...other,
      tools: (await this.#readsResults(call)) ? [...listed, readResult.definition] : listed,
      ...cacheable,
    }
  }

  /** The backend's own tool of that name comes first. */
  async #readsResults(call: GatewayCall): Promise<boolean> {
    if (!this.#options.small.readResultFor(call)) return false
    const backend = this.#permitted(call)
    const { byName } = await withClock(backend, call, clock => backend.tools(call.owner, clock))
    return !byName.has(READ_RESULT)
  }

  async visibleTools(call: GatewayCall): Promise<readonly Tool[]> {
    const backend = this.#permitted(call)
    const { tools } = await withClock(backend, call, clock => backend.tools(call.owner, clock))
    return this.#permittedTools(call, tools)
  }

  #permittedTools(call: GatewayCall, tools: readonly { readonly definition: Tool }[]): Tool[] {
    return tools
      .map(({ definition }) => definition)
      .filter(definition => call.permits(call.agent ?? '', this.#server, definition))
  }

  /** With a backend of 2025 the level is a matter of the session; later it goes along with each request. */
  async #setLogLevel(call: GatewayCall, backend: Backend, params: JsonObject): Promise<RawResult> {
    if (!call.owner.client) return {} // a session that others share is not one caller's to set
    const { era } = await withClock(backend, call, clock => backend.describe(call.owner, clock))
    return era === 'legacy' ? this.#relay(call, backend, 'logging/setLevel', params) : {}
  }

  async #relay(call: GatewayCall, backend: Backend, method: string, given: JsonObject): Promise<RawResult> {
    if (call.snapshot.limits) await call.admit()
    const { sealed } = this.#options
    const { client: _client, onProgress, meta, retry } = call.caller
    const binding = [call.caller.principal.key, call.agent, this.#server, method]
    const { cursor, ...params } = given
    const opened = cursor === undefined ? undefined : sealed.open(cursor, binding)
    if (cursor !== undefined && !opened) throw invalidParams('Invalid cursor')
    const outgoing = { ...params, ...(opened && { cursor: opened.value }), ...retry }
    const request = { method, params: outgoing, meta, onProgress, client: call.peer }
    const result = asOurs(
      await withClock(backend, call, clock => backend.request(request, { isRepeatable: true }, call.owner, clock)),
    )
    const { nextCursor, ttlMs, cacheScope, ...rest } = result
    const isCacheable = call.caller.era === 'modern' // clients of 2025 know no such fields
    return {
      ...rest,
      ...(nextCursor !== undefined && { nextCursor: sealed.seal(nextCursor, CURSOR_MS, binding) }),
      ...(isCacheable && ttlMs !== undefined && { ttlMs }),
      ...(isCacheable && cacheScope !== undefined && { cacheScope: 'private' }),
    }
  }
}

/** Within the time that a call to the backend may take. */
async function withClock<T>(backend: Backend, call: GatewayCall, run: (clock: CallClock) => Promise<T>): Promise<T> {
  const clock = backend.startClock({ signal: call.caller.signal })
  try {
    return await run(clock)
  } finally {
    clock.stop()
  }
}
