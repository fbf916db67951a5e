import {
  type CallToolResult,
  type McpRequestContext,
  type McpServerFactory,
  ProtocolError,
  ProtocolErrorCode,
  Server,
  type Tool,
} from '@modelcontextprotocol/server'
import { toToolResult } from '../errors/faces.js'
import { GatewayError, toGatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import type { AuditLog } from '../observability/audit-log.js'
import type { Logger } from '../observability/logger.js'
import { version } from '../version.js'
import { findDirectTool, isExposedDirectly, listDirectTools } from './direct-mode.js'
import { callBackendTool, executeTool } from './execute-tool.js'
import { getGatewayStatus } from './get-gateway-status.js'
import { getServerTools } from './get-server-tools.js'
import { listServers } from './list-servers.js'
import type { Runtime } from './runtime.js'
import { searchTools } from './search-tools.js'
import { type Caller, GatewayCall, type GatewayTool } from './tool.js'

export const serverInfo = { name: 'agent-mcp-gateway', title: 'Agent MCP Gateway', version }

const INSTRUCTIONS =
  'This gateway stands in front of several MCP servers. Call search_tools with what you want to do, or list_servers to see the servers and get_server_tools for the tools of one; then execute_tool to call a tool.'

const DIRECT_INSTRUCTIONS =
  'This gateway stands in front of several MCP servers. Its tools are theirs, named SERVER__TOOL.'

export interface GatewayOptions {
  readonly runtime: Runtime
  readonly audit: AuditLog
  readonly logger: Logger
  /** Also offer get_gateway_status. */
  readonly debug: boolean
}

/** The gateway as both fronts see it. */
export interface GatewayTools {
  readonly definitions: readonly Tool[]
  has(name: string): boolean
  /** Never rejects: every failure is a tool result that a model can read. Leaves one audit line. */
  call(name: string, args: unknown, caller: Caller): Promise<CallToolResult>
  /** True when the rules show this caller the backends' own tools. */
  isDirect(caller: Pick<Caller, 'principal'>): boolean
  /** Every tool the caller may call, under its direct name. */
  listDirect(caller: Caller): Promise<Tool[]>
  /** Calls a tool by its direct name, as `call` does; undefined when the caller can have no such tool. */
  callDirect(name: string, args: unknown, caller: Caller): Promise<CallToolResult | undefined>
}

export function createGatewayTools({ runtime, audit, logger, debug }: GatewayOptions): GatewayTools {
  const tools = new Map<string, GatewayTool>(
    [listServers, searchTools, getServerTools, executeTool, ...(debug ? [getGatewayStatus] : [])].map(tool => [
      tool.definition.name,
      tool,
    ]),
  )

  /** The one place where a call is timed, audited and its failure turned into words. */
  async function answer(name: string, call: GatewayCall, run: () => Promise<CallToolResult>): Promise<CallToolResult> {
    const started = performance.now()
    const outcome = await run().then(
      result => ({ result, code: result.isError === true ? 'TOOL_ERROR' : 'OK' }),
      thrown => {
        const error = toGatewayError(thrown)
        if (error.code === 'INTERNAL')
          logger.error({ err: error.cause ?? error, operation: name, server: call.server }, 'call failed')
        return { result: toToolResult(error) as CallToolResult, code: error.code }
      },
    )
    audit.write({
      time: new Date().toISOString(),
      principal: call.caller.principal.id,
      agent: call.agent ?? null,
      operation: name,
      server: call.server ?? null,
      tool: call.tool ?? null,
      decision: call.decision?.decision ?? null,
      rule: call.decision?.rule ?? null,
      code: outcome.code,
      latency_ms: Math.round((performance.now() - started) * 100) / 100,
    })
    return call.caller.era === 'legacy' ? toLegacyResult(outcome.result) : outcome.result
  }

  const refuseWhenDraining = (): void => {
    if (!runtime.isDraining) return
    throw new GatewayError('SHUTTING_DOWN', 'the gateway is shutting down: try again in a moment')
  }

  return {
    definitions: [...tools.values()].map(({ definition }) => definition),
    has: name => tools.has(name),
    call(name, args, caller) {
      const call = new GatewayCall(caller, runtime.current)
      return runtime.track(() =>
        answer(name.slice(0, 128), call, async () => {
          refuseWhenDraining()
          const tool = tools.get(name)
          if (!tool) throw new GatewayError('TOOL_NOT_FOUND', `the gateway has no tool "${name.slice(0, 128)}"`)
          return tool.run(call, args)
        }),
      )
    },

    isDirect: caller => isExposedDirectly(runtime.current, caller),

    async listDirect(caller) {
      const call = new GatewayCall(caller, runtime.current)
      return listDirectTools(call, call.actAs(undefined))
    },

    async callDirect(name, args, caller) {
      const call = new GatewayCall(caller, runtime.current)
      let isUnknown = false
      const result = await runtime.track(() =>
        answer('tools/call', call, async () => {
          refuseWhenDraining()
          const found = await findDirectTool(call, call.actAs(undefined), name)
          isUnknown = found === undefined
          if (!found) throw new GatewayError('TOOL_NOT_FOUND', `no tool "${name.slice(0, 128)}"`)
          const wanted = { server: found.server, names: [found.tool], args, timeoutMs: undefined, agentId: undefined }
          return callBackendTool(call, wanted).catch(error => {
            // Denied and absent look the same, here as in the list.
            isUnknown = error instanceof GatewayError && HIDDEN.has(error.code)
            throw error
          })
        }),
      )
      return isUnknown ? undefined : result
    },
  }
}

const HIDDEN: ReadonlySet<string> = new Set(['DENIED_BY_POLICY', 'TOOL_NOT_FOUND'])

/** Builds the SDK's server for one exchange (HTTP) or one connection (stdio). */
export function createServerFactory(
  tools: GatewayTools,
  principalOf: (context: McpRequestContext) => Principal,
): McpServerFactory {
  return context => {
    const principal = principalOf(context)
    const { era } = context
    const isDirect = asksForDirect(context) || tools.isDirect({ principal })
    const instructions = isDirect ? DIRECT_INSTRUCTIONS : INSTRUCTIONS
    const server = new RelayServer(serverInfo, { capabilities: { tools: {} }, instructions })
    server.setRequestHandler('tools/list', async (_request, { mcpReq }) => ({
      tools: isDirect ? await tools.listDirect({ principal, era, signal: mcpReq.signal }) : [...tools.definitions],
    }))
    server.setRequestHandler('tools/call', async ({ params }, { mcpReq }) => {
      const { name, arguments: args, _meta: meta } = params
      const unknown = () => new ProtocolError(ProtocolErrorCode.InvalidParams, `Unknown tool: ${name.slice(0, 128)}`)
      if (!tools.has(name) && !isDirect) {
        await tools.call(name, args, { principal, era }) // for its audit line
        throw unknown()
      }
      const progressToken = meta?.progressToken
      let lastNotice: Promise<void> | undefined
      const onProgress: Caller['onProgress'] = progress => {
        // One that is late finds the exchange closed; the result is what counts.
        lastNotice = mcpReq
          .notify({ method: 'notifications/progress', params: { ...progress, progressToken } })
          .catch(() => {})
      }
      const caller: Caller = {
        principal,
        era,
        // Over HTTP a client of 2025 that hangs up has not cancelled, and stateless it cannot.
        signal: era === 'legacy' && context.requestInfo ? undefined : mcpReq.signal,
        meta,
        ...(progressToken !== undefined && { onProgress }),
      }
      const result = await (tools.has(name) ? tools.call(name, args, caller) : tools.callDirect(name, args, caller))
      await lastNotice // the result ends the stream that progress travels on
      if (!result) throw unknown()
      return result
    })
    return server
  }
}

/** `/mcp?expose=direct`, for clients whose rules nobody wants to touch. */
const asksForDirect = ({ requestInfo }: McpRequestContext): boolean =>
  requestInfo !== undefined && new URL(requestInfo.url).searchParams.get('expose') === 'direct'

/** Relays results of `tools/call` as they are: the SDK would run its schemas over them and drop what it does not know. */
class RelayServer extends Server {
  protected override _wrapHandler(
    method: string,
    handler: Parameters<Server['_wrapHandler']>[1],
  ): ReturnType<Server['_wrapHandler']> {
    return method === 'tools/call' ? handler : super._wrapHandler(method, handler)
  }
}

/** On the wire of 2025, `structuredContent` has to be an object. */
function toLegacyResult(result: CallToolResult): CallToolResult {
  const { structuredContent } = result
  if (
    structuredContent === undefined ||
    (typeof structuredContent === 'object' && structuredContent !== null && !Array.isArray(structuredContent))
  )
    return result
  return { ...result, structuredContent: { result: structuredContent } }
}
