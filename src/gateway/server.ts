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
import { executeTool } from './execute-tool.js'
import { getGatewayStatus } from './get-gateway-status.js'
import { getServerTools } from './get-server-tools.js'
import { listServers } from './list-servers.js'
import type { Runtime } from './runtime.js'
import { type Caller, GatewayCall, type GatewayTool } from './tool.js'

export const serverInfo = { name: 'agent-mcp-gateway', title: 'Agent MCP Gateway', version }

const INSTRUCTIONS =
  'This gateway stands in front of several MCP servers. Call list_servers to see them, get_server_tools for the tools of one, then execute_tool to call a tool.'

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
}

export function createGatewayTools({ runtime, audit, logger, debug }: GatewayOptions): GatewayTools {
  const tools = new Map<string, GatewayTool>(
    [listServers, getServerTools, executeTool, ...(debug ? [getGatewayStatus] : [])].map(tool => [
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

  return {
    definitions: [...tools.values()].map(({ definition }) => definition),
    has: name => tools.has(name),
    call(name, args, caller) {
      const call = new GatewayCall(caller, runtime.current)
      return runtime.track(() =>
        answer(name.slice(0, 128), call, async () => {
          if (runtime.isDraining)
            throw new GatewayError('SHUTTING_DOWN', 'the gateway is shutting down: try again in a moment')
          const tool = tools.get(name)
          if (!tool) throw new GatewayError('TOOL_NOT_FOUND', `the gateway has no tool "${name.slice(0, 128)}"`)
          return tool.run(call, args)
        }),
      )
    },
  }
}

/** Builds the SDK's server for one exchange (HTTP) or one connection (stdio). */
export function createServerFactory(
  tools: GatewayTools,
  principalOf: (context: McpRequestContext) => Principal,
): McpServerFactory {
  return context => {
    const principal = principalOf(context)
    const server = new RelayServer(serverInfo, { capabilities: { tools: {} }, instructions: INSTRUCTIONS })
    server.setRequestHandler('tools/list', () => ({ tools: [...tools.definitions] }))
    server.setRequestHandler('tools/call', async ({ params }, { mcpReq }) => {
      const { name, arguments: args, _meta: meta } = params
      if (!tools.has(name)) {
        await tools.call(name, args, { principal, era: context.era }) // for its audit line
        throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Unknown tool: ${name.slice(0, 128)}`)
      }
      const progressToken = meta?.progressToken
      let lastNotice: Promise<void> | undefined
      const onProgress: Caller['onProgress'] = progress => {
        // One that is late finds the exchange closed; the result is what counts.
        lastNotice = mcpReq
          .notify({ method: 'notifications/progress', params: { ...progress, progressToken } })
          .catch(() => {})
      }
      const result = await tools.call(name, args, {
        principal,
        era: context.era,
        // Over HTTP a client of 2025 that hangs up has not cancelled, and stateless it cannot.
        signal: context.era === 'legacy' && context.requestInfo ? undefined : mcpReq.signal,
        meta,
        ...(progressToken !== undefined && { onProgress }),
      })
      await lastNotice // the result ends the stream that progress travels on
      return result
    })
    return server
  }
}

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
