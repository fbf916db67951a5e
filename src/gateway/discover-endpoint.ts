import type { CallToolResult, Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { RawResult } from '../backends/call.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { resultBudgetOf } from '../rules/compile.js'
import type { Audited } from './audited.js'
import { permittedBackends } from './direct-lists.js'
import {
  type CallTarget,
  type CutResult,
  type Description,
  type Endpoint,
  invalidParams,
  methodNotFound,
  unknownTool,
} from './endpoint.js'
import { executeTool, wantedCall } from './execute-tool.js'
import { refusalIn, toProtocolError, URL_ELICITATION_REQUIRED } from './protocol-errors.js'
import type { Runtime } from './runtime.js'
import type { GatewayCall, GatewayTool } from './tool.js'

const INSTRUCTIONS =
  'This gateway stands in front of several MCP servers. Call search_tools with what you want to do, or list_servers to see the servers and get_server_tools for the tools of one; then execute_tool to call a tool.'

export interface DiscoverEndpointOptions {
  readonly runtime: Runtime
  readonly audited: Audited
  readonly tools: readonly GatewayTool[]
  readonly cut: CutResult
  /** Offered to agents with a budget for results only. */
  readonly readResult: GatewayTool
}

/** The few small tools (DESIGN section 3), whatever stands behind them. */
export class DiscoverEndpoint implements Endpoint {
  readonly methods: ReadonlySet<string> = new Set(['tools/list', 'tools/call'])
  readonly #options: DiscoverEndpointOptions
  readonly #tools: ReadonlyMap<string, GatewayTool>

  constructor(options: DiscoverEndpointOptions) {
    this.#options = options
    this.#tools = new Map([...options.tools, options.readResult].map(tool => [tool.definition.name, tool]))
  }

  has(name: string): boolean {
    return this.#tools.has(name)
  }

  async describe(): Promise<Description> {
    return { capabilities: { tools: {} }, instructions: INSTRUCTIONS }
  }

  async request(call: GatewayCall, method: string, params: JsonObject): Promise<RawResult> {
    if (method === 'tools/list') return { tools: this.#listed(call).map(({ definition }) => definition) }
    if (method !== 'tools/call') throw methodNotFound()
    if (typeof params.name !== 'string') throw invalidParams('Invalid params: name must be a string')
    return this.callTool(call, params.name, params.arguments)
  }

  /** Rejects with ProtocolError for a tool that the gateway does not have. */
  callTool(call: GatewayCall, name: string, args: unknown): Promise<CallToolResult> {
    const { runtime, audited, cut } = this.#options
    const run = () =>
      runtime.track(async () => {
        const tool = this.#tools.get(name)
        if (!tool) throw new GatewayError('TOOL_NOT_FOUND', `the gateway has no tool "${name.slice(0, 128)}"`)
        if (call.snapshot.limits && tool !== executeTool) {
          call.actAs(agentIdIn(args))
          await call.admit()
        }
        const result = await tool.run(call, args)
        return tool === executeTool ? cut(result, call, agentIdIn(args)) : result
      })
    const asRefusal = (error: GatewayError) => {
      if (!this.#tools.has(name)) return unknownTool(name)
      // Clients of 2025 know what to do about this error, and about no tool result in its place.
      const isForClient = call.caller.era === 'legacy' && refusalIn(error)?.code === URL_ELICITATION_REQUIRED
      return isForClient ? toProtocolError(error, 'legacy') : undefined
    }
    return audited.tool(name.slice(0, 128), call, run, asRefusal)
  }

  /** The tool behind `execute_tool` is what counts; the others reach none. */
  async target(call: GatewayCall, name: string, args: unknown): Promise<CallTarget | undefined> {
    if (name !== executeTool.definition.name) return undefined
    const { server, names, agentId } = wantedCall(call, args)
    return { operation: name, server, tools: names, agentId }
  }

  /** No parameter of theirs travels as a header. */
  async inputSchema(): Promise<undefined> {}

  async visibleTools(call: GatewayCall): Promise<readonly Tool[]> {
    return this.#listed(call).map(({ definition }) => definition)
  }

  /** Whatever changes behind them, these tools stay what they are. */
  backends(): readonly Backend[] {
    return []
  }

  ownUris(): readonly string[] {
    return []
  }

  publicUri(_server: string, uri: string): string {
    return uri
  }

  notify(call: GatewayCall, method: string, params: JsonObject): void {
    for (const backend of permittedBackends(call, call.actAs(undefined))) backend.notify(call.owner, method, params)
  }

  /** The tool for reading on in results, for agents that get them cut. */
  readResultFor(call: GatewayCall): GatewayTool | undefined {
    return hasBudget(call) ? this.#options.readResult : undefined
  }

  #listed(call: GatewayCall): readonly GatewayTool[] {
    const readResult = this.readResultFor(call)
    return readResult ? [...this.#options.tools, readResult] : this.#options.tools
  }
}

const agentIdIn = (args: unknown): string | undefined =>
  isJsonObject(args) && typeof args.agent_id === 'string' ? args.agent_id : undefined

function hasBudget(call: GatewayCall): boolean {
  try {
    return resultBudgetOf(call.snapshot.rules, call.actAs(undefined), call.caller.principal) !== undefined
  } catch {
    return false // which agent it is has to be said with each call
  }
}
