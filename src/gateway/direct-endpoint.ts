import { type CallToolResult, ProtocolError, type Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { RawResult } from '../backends/call.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Audited } from './audited.js'
import { DIRECT_LISTS, entriesOf, permittedBackends } from './direct-lists.js'
import { findDirectTool, listDirectTools } from './direct-mode.js'
import { splitDirectName, splitDirectUri, toDirectName, toDirectUri } from './direct-names.js'
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
import { Patience } from './patience.js'
import { refusalIn, toProtocolError, URL_ELICITATION_REQUIRED } from './protocol-errors.js'
import type { Runtime } from './runtime.js'
import { type GatewayCall, hidesExistence } from './tool.js'

const INSTRUCTIONS =
  'This gateway stands in front of several MCP servers. Its tools and prompts are theirs, named SERVER__NAME; their resources are found under gateway://SERVER/URI.'

const CAPABILITIES = {
  tools: { listChanged: true },
  prompts: { listChanged: true },
  resources: { listChanged: true, subscribe: true },
  completions: {},
}

export interface DirectEndpointOptions {
  readonly runtime: Runtime
  readonly audited: Audited
  readonly cut: CutResult
  /** Its tools can be called here too, by those who know them. */
  readonly small: DiscoverEndpoint
}

/** Something of a backend's, by the name it has there. */
interface Found {
  readonly backend: Backend
  readonly name: string
}

/** Every tool, prompt and resource of every permitted server, under names of the gateway's (DESIGN section 3, direct mode). */
export class DirectEndpoint implements Endpoint {
  readonly methods: ReadonlySet<string> = new Set([
    'tools/list',
    'tools/call',
    'prompts/get',
    'resources/read',
    'completion/complete',
    ...DIRECT_LISTS.map(({ method }) => method),
  ])
  readonly #options: DirectEndpointOptions

  constructor(options: DirectEndpointOptions) {
    this.#options = options
  }

  async describe(): Promise<Description> {
    return { capabilities: CAPABILITIES, instructions: INSTRUCTIONS }
  }

  async request(call: GatewayCall, method: string, params: JsonObject): Promise<RawResult> {
    const agent = call.actAs(undefined)
    const list = DIRECT_LISTS.find(candidate => candidate.method === method)
    if (list) {
      if (params.cursor !== undefined) throw invalidParams('Invalid cursor') // all of it is on the first page
      const patience = new Patience(call)
      const lists = permittedBackends(call, agent).map(async backend => {
        const entries = await entriesOf(call, backend, list, patience)
        return entries.map(entry => list.rename(backend.name, entry))
      })
      return { [list.field]: (await Promise.all(lists)).flat() }
    }
    switch (method) {
      case 'tools/list':
        if (params.cursor !== undefined) throw invalidParams('Invalid cursor')
        return { tools: this.#listed(call, await listDirectTools(call, agent)) }
      case 'tools/call':
        return this.#callTool(call, params)
      case 'prompts/get':
        return this.#audited(method, call, async () => {
          const { backend, name } = await this.#findPrompt(call, agent, params.name)
          return this.#forward(call, backend, method, { ...params, name })
        })
      case 'resources/read':
        return this.#audited(method, call, async () => {
          const { backend, name: uri } = await this.#findResource(call, agent, params.uri)
          const reading = this.#forward(call, backend, method, { ...params, uri })
          return renamed(await reading.catch(error => askedFor(error, uri, params.uri)), backend.name)
        })
      case 'completion/complete':
        return this.#complete(call, agent, params)
      default:
        throw methodNotFound()
    }
  }

  async inputSchema(call: GatewayCall, name: string): Promise<unknown> {
    const agent = call.actAs(undefined)
    const found = this.#options.small.has(name) ? undefined : await findDirectTool(call, agent, name)
    if (!found || !call.permits(agent, found.server, found.tool)) return undefined
    const definition = call.snapshot.backends
      .get(found.server)
      ?.toolsKnownTo(call.owner)
      ?.byName.get(found.tool)?.definition
    return definition && call.permits(agent, found.server, definition) ? definition.inputSchema : undefined
  }

  async target(call: GatewayCall, name: string, args: unknown): Promise<CallTarget | undefined> {
    if (this.#options.small.has(name)) return this.#options.small.target(call, name, args)
    const found = await findDirectTool(call, call.actAs(undefined), name)
    return found && { operation: 'tools/call', server: found.server, tools: [found.tool] }
  }

  async visibleTools(call: GatewayCall): Promise<readonly Tool[]> {
    return this.#listed(call, await listDirectTools(call, call.actAs(undefined)))
  }

  backends(call: GatewayCall): readonly Backend[] {
    return permittedBackends(call, call.actAs(undefined))
  }

  ownUris(server: string, uris: readonly string[]): readonly string[] {
    return uris.flatMap(uri => {
      const found = splitDirectUri(uri)
      return found?.server === server ? [found.uri] : []
    })
  }

  publicUri(server: string, uri: string): string {
    return toDirectUri(server, uri)
  }

  notify(call: GatewayCall, method: string, params: JsonObject): void {
    this.#options.small.notify(call, method, params)
  }

  /** Results that may be cut are not what an output schema promises. */
  #listed(call: GatewayCall, tools: readonly Tool[]): readonly Tool[] {
    const readResult = this.#options.small.readResultFor(call)
    return readResult ? [...tools.map(({ outputSchema: _, ...tool }) => tool), readResult.definition] : tools
  }

  async #callTool(call: GatewayCall, { name, arguments: args }: JsonObject): Promise<CallToolResult> {
    if (typeof name !== 'string') throw invalidParams('Invalid params: name must be a string')
    const { runtime, audited, cut, small } = this.#options
    if (small.has(name)) return small.callTool(call, name, args)
    const run = () =>
      runtime.track(async () => {
        const found = await findDirectTool(call, call.actAs(undefined), name)
        if (!found) throw new GatewayError('TOOL_NOT_FOUND', `no tool "${name.slice(0, 128)}"`)
        const wanted = { server: found.server, names: [found.tool], args, timeoutMs: undefined, agentId: undefined }
        return cut(await callBackendTool(call, { ...wanted, isListed: true }), call)
      })
    return audited.tool('tools/call', call, run, error => {
      // Denied and absent look the same, here as in the list.
      if (hidesExistence(error)) return unknownTool(name)
      const isForClient = call.caller.era === 'legacy' && refusalIn(error)?.code === URL_ELICITATION_REQUIRED
      return isForClient ? toProtocolError(error, 'legacy') : undefined
    })
  }

  #audited(method: string, call: GatewayCall, run: () => Promise<RawResult>): Promise<RawResult> {
    return this.#options.audited.run(method, call, () => this.#options.runtime.track(run))
  }

  async #findPrompt(call: GatewayCall, agent: string, name: unknown): Promise<Found> {
    if (typeof name !== 'string') throw invalidParams('Invalid params: name must be a string')
    const unknown = invalidParams(`Unknown prompt: ${name.slice(0, 128)}`)
    const backends = permittedBackends(call, agent)
    const plain = splitDirectName(name)
    const owner = plain && backends.find(backend => backend.name === plain.server)
    if (plain && owner && toDirectName(plain.server, plain.tool) === name) return { backend: owner, name: plain.tool }
    const [prompts] = DIRECT_LISTS
    for (const backend of backends) {
      const entries = prompts ? await entriesOf(call, backend, prompts) : []
      const found = entries.find(entry => toDirectName(backend.name, String(entry.name)) === name)
      if (found) return { backend, name: String(found.name) }
    }
    throw unknown
  }

  /** A URI of the gateway's says which server is meant; one that a tool's result named may be that of any, but of one only. */
  async #findResource(call: GatewayCall, agent: string, uri: unknown): Promise<Found> {
    if (typeof uri !== 'string') throw invalidParams('Invalid params: uri must be a string')
    const unknown = () => invalidParams(`Resource not found: ${uri.slice(0, 256)}`, { uri })
    const backends = permittedBackends(call, agent)
    const direct = splitDirectUri(uri)
    if (direct) {
      const backend = backends.find(({ name }) => name === direct.server)
      if (!backend) throw unknown()
      return { backend, name: direct.uri }
    }
    const lists = DIRECT_LISTS.filter(({ method }) => method === 'resources/list')
    const owners = await Promise.all(
      backends.map(async backend => {
        const entries = (await Promise.all(lists.map(list => entriesOf(call, backend, list)))).flat()
        return entries.some(entry => entry.uri === uri) ? [backend] : []
      }),
    )
    const [owner, ...others] = owners.flat()
    if (!owner) throw unknown()
    if (others.length === 0) return { backend: owner, name: uri }
    const candidates = [owner, ...others].map(({ name }) => toDirectUri(name, uri))
    throw invalidParams(`Several servers have this resource; say which one is meant: ${candidates.join(', ')}`, { uri })
  }

  async #complete(call: GatewayCall, agent: string, params: JsonObject): Promise<RawResult> {
    const { ref } = params
    if (!isJsonObject(ref)) throw invalidParams('Invalid params: ref must be an object')
    if (ref.type === 'ref/prompt') {
      const { backend, name } = await this.#findPrompt(call, agent, ref.name)
      return this.#forward(call, backend, 'completion/complete', { ...params, ref: { ...ref, name } })
    }
    const { backend, name: uri } = await this.#findResource(call, agent, ref.uri)
    return this.#forward(call, backend, 'completion/complete', { ...params, ref: { ...ref, uri } })
  }

  async #forward(call: GatewayCall, backend: Backend, method: string, params: JsonObject): Promise<RawResult> {
    const { onProgress, meta, retry, signal } = call.caller
    call.server = backend.name
    call.decide(call.agent ?? '', backend.name)
    if (call.snapshot.limits) await call.admit()
    const clock = backend.startClock({ signal })
    try {
      const request = { method, params: { ...params, ...retry }, meta, onProgress, client: call.peer }
      return await backend.request(request, { isRepeatable: true }, call.owner, clock)
    } finally {
      clock.stop()
    }
  }
}

/** What the backend says about a resource, about the name it was asked for. */
function askedFor(error: unknown, own: string, asked: unknown): never {
  const refusal = error instanceof GatewayError ? refusalIn(error) : undefined
  if (!refusal || !isJsonObject(refusal.data) || refusal.data.uri !== own) throw error
  throw new ProtocolError(refusal.code, refusal.message, { ...refusal.data, uri: asked })
}

/** The contents under the names they were asked for. */
function renamed(result: RawResult, server: string): RawResult {
  const { contents } = result
  if (!Array.isArray(contents)) return result
  return {
    ...result,
    contents: contents.map(content =>
      isJsonObject(content) && typeof content.uri === 'string'
        ? { ...content, uri: toDirectUri(server, content.uri) }
        : content,
    ),
  }
}
