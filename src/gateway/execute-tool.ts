import type { CallToolResult } from '@modelcontextprotocol/server'
import { distance } from 'fastest-levenshtein'
import { z } from 'zod'
import type { BackendTool, ToolList } from '../backends/tool.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { ConfirmedCall } from './confirmation.js'
import { isInputRequired } from './input-rounds.js'
import { toLoginElicitation, withoutLogin } from './login-elicitation.js'
import { toUrlElicitation } from './protocol-errors.js'
import { asOurs } from './provenance.js'
import { repairArguments, toolCandidates, unnestCall } from './repair-call.js'
import {
  agentId,
  describeTool,
  type GatewayCall,
  type GatewayTool,
  notAvailable,
  parseArguments,
  unavailableText,
} from './tool.js'

const NEAREST = 3

const Listed = z.strictObject({
  server: z.string().min(1).max(256).describe('Name of the server'),
  tool: z.string().min(1).max(512).describe('Name of the tool on that server'),
  args: z.record(z.string(), z.unknown()).optional().describe("The tool's own arguments, as its inputSchema says"),
  timeout_ms: z
    .number()
    .int()
    .positive()
    .optional()
    .describe('Give up after this many milliseconds without an answer or progress'),
  agent_id: agentId,
})

/** What is taken beyond what is listed: see repair-call.ts. */
const Accepted = Listed.extend({
  server: Listed.shape.server.optional(),
  args: z.unknown().optional(),
  arguments: z.unknown().optional(),
})

export const executeTool: GatewayTool = {
  definition: describeTool(
    'execute_tool',
    'Calls a tool of a server and gives back its result unchanged. Look up its inputSchema with search_tools or get_server_tools first.',
    Listed,
    { openWorldHint: true },
  ),

  async run(call, raw) {
    return callBackendTool(call, wantedCall(call, raw))
  },
}

/** Decides, checks and calls; what every way to a backend's tool comes down to. */
export async function callBackendTool(call: GatewayCall, wanted: WantedCall): Promise<CallToolResult> {
  const { backends } = call.snapshot
  const { server } = wanted
  call.server = server
  call.tool = wanted.names.at(-1)
  const agent = call.actAs(wanted.agentId)
  const permitted = wanted.names.filter(name => call.decide(agent, server, name))
  const backend = backends.get(server)
  if (permitted.length === 0 || !backend) throw notAvailable(agent, server, call.tool)

  const returned = call.confirmations.take(call.caller.retry)
  let confirmed: ConfirmedCall | undefined
  const clock = backend.startClock({ timeoutMs: wanted.timeoutMs, signal: call.caller.signal })
  try {
    const retry = await withoutLogin({ ...call.caller, retry: returned.retry }, backend, clock)
    const list = backend.freshTools(call.owner) ?? (await backend.tools(call.owner, clock))
    const tool = choose(permitted, list)
    if (!tool) throw notFound(call, agent, list)
    const { name } = tool.definition
    call.tool = name
    const { definition } = tool
    if (!call.decide(agent, server, name, { definition })) throw notAvailable(agent, server, name)
    requireScopes(call, server, name)
    if (call.snapshot.limits) await call.admit()
    const args = wanted.asIs ? asGiven(wanted.args) : repairArguments(wanted.args, tool)
    // A server may make of what its schema does not allow something else than the conditions do.
    if (!wanted.asIs || call.decision?.dependsOn) check(args, tool)
    if (!call.decide(agent, server, name, { definition, args })) throw refusedArguments(call, server, name)
    if (call.decision?.decision === 'ask') {
      const asked = { agent, server, tool: definition, args }
      const question = call.confirmations.settle(call, asked, returned)
      if (question) return question as unknown as CallToolResult
      confirmed = asked
    }
    const { onProgress, meta } = call.caller
    const outgoing = { name, arguments: args, meta, onProgress, retry, client: call.peer }
    const answer = asOurs(await backend.callTool(outgoing, tool, call.owner, clock))
    const result = confirmed && isInputRequired(answer) ? call.confirmations.carry(call, confirmed, answer) : answer
    return toCallToolResult(
      call.caller.era === 'legacy' ? toLegacyResult(result, wanted.isListed ? tool : undefined) : result,
    )
  } catch (error) {
    const elicitation =
      (call.caller.era === 'modern' ? toUrlElicitation(error) : undefined) ??
      (await toLoginElicitation(error, backend, call.caller))
    if (!elicitation) throw error
    const question = confirmed ? call.confirmations.carry(call, confirmed, elicitation) : elicitation
    return question as unknown as CallToolResult
  } finally {
    clock.stop()
  }
}

export interface WantedCall {
  readonly server: string
  /** What the tool may be called, the literal name first. */
  readonly names: readonly string[]
  readonly args: unknown
  readonly timeoutMs: number | undefined
  readonly agentId: string | undefined
  /**
   * Nothing is repaired, and checked only where a condition is about the arguments: the backend's own answer to bad ones is what the
   * caller wants.
   */
  readonly asIs?: boolean
  /** The caller has the tool's definition from `tools/list`, where the SDK fits its output schema to the era. */
  readonly isListed?: boolean
}

/** By name, the servers that the caller may use: of the others nothing shows, not even in how a call is understood. */
function permittedServers(call: GatewayCall, raw: unknown): ReadonlyMap<string, ToolList | undefined> {
  const requested = isJsonObject(raw) && typeof raw.agent_id === 'string' ? raw.agent_id : undefined
  const agent = call.actAs(requested)
  const permitted = [...call.snapshot.backends.values()].filter(({ name }) => call.permits(agent, name))
  return new Map(permitted.map(backend => [backend.name, backend.toolsKnownTo(call.owner)]))
}

const asGiven = (args: unknown): JsonObject => (isJsonObject(args) ? args : {})

/** What was decided by the name, and is decided otherwise by the arguments: the caller sees the tool, so it may know why. */
function refusedArguments({ decision }: GatewayCall, server: string, tool: string): GatewayError {
  const names = decision?.arguments ?? []
  const which = names.length > 0 ? ` (${names.map(name => `"${name}"`).join(', ')})` : ''
  const message = `the rules do not allow the tool "${tool}" on the server "${server}" with these arguments${which}`
  return new GatewayError('DENIED_BY_POLICY', message, { details: { server, tool, arguments: names } })
}

/** Over HTTP a call that lacks a scope ends in a challenge before it gets here; what is left are those that only here are known. */
function requireScopes(call: GatewayCall, server: string, tool: string): void {
  const lacking = call.lackingScopes(server, [tool])
  if (!lacking) return
  const message = `the token lacks the scope ${lacking.missing.join(' ')} for the tool "${tool}" on the server "${server}"`
  throw new GatewayError('DENIED_BY_POLICY', message, { details: { server, tool, required_scopes: lacking.required } })
}

/** The call that was meant. Throws INVALID_ARGUMENTS when that cannot be told. */
export const wantedCall = (call: GatewayCall, raw: unknown): WantedCall => readCall(raw, permittedServers(call, raw))

function readCall(raw: unknown, servers: ReadonlyMap<string, ToolList | undefined>): WantedCall {
  const isRealTool = (server: unknown, tool: unknown) =>
    typeof server === 'string' && servers.get(server)?.byName.has(String(tool)) === true
  const {
    server,
    tool,
    args,
    arguments: alias,
    timeout_ms,
    agent_id,
  } = parseArguments(Accepted, unnestCall(raw, isRealTool))
  const candidates = toolCandidates(server, tool, servers.keys())
  if (!candidates) {
    const details = { path: '/server', schema: z.toJSONSchema(Listed.shape.server) }
    throw new GatewayError('INVALID_ARGUMENTS', '/server: is missing: say which server has the tool', { details })
  }
  return {
    server: candidates.server,
    names: candidates.tools,
    args: args ?? alias,
    timeoutMs: timeout_ms,
    agentId: agent_id,
  }
}

function choose(names: readonly string[], { byName }: ToolList): BackendTool | undefined {
  for (const name of names) {
    const tool = byName.get(name)
    if (tool) return tool
  }
  return undefined
}

function check(args: Readonly<Record<string, unknown>>, { definition, checkArguments }: BackendTool): void {
  const problem = checkArguments(args)
  if (!problem) return
  const { path, message, schema, schemaPath } = problem
  const text = `${path === '' ? 'the arguments' : path} of "${definition.name}": ${message}`
  throw new GatewayError('INVALID_ARGUMENTS', text, {
    details: { tool: definition.name, path, schema, schema_path: schemaPath },
  })
}

/** The nearest names the agent may call; the denied ones stay unmentioned. */
function notFound(call: GatewayCall, agent: string, { tools }: ToolList): GatewayError {
  const { server = '', tool = '' } = call
  const nearest = tools
    .filter(({ definition }) => call.permits(agent, server, definition))
    .map(({ definition: { name } }) => ({ name, far: distance(name.toLowerCase(), tool.toLowerCase()) }))
    .sort((a, b) => a.far - b.far)
    .slice(0, NEAREST)
    .map(({ name }) => name)
  const hint = nearest.length > 0 ? ` Nearest: ${nearest.join(', ')}` : ''
  return new GatewayError('TOOL_NOT_FOUND', `${unavailableText(agent, server, tool)}.${hint}`, {
    details: { server, tool, nearest },
  })
}

/** The backend's result is relayed, not re-parsed; a legacy `content` that is missing is made an empty list, as the SDK does. */
function toCallToolResult(result: JsonObject): CallToolResult {
  return (
    Array.isArray(result.content) || isInputRequired(result) ? result : { ...result, content: [] }
  ) as CallToolResult
}

/** On the wire of 2025 `structuredContent` has to be an object, and the schema that `listed` was listed with says so too. */
function toLegacyResult(result: JsonObject, listed: BackendTool | undefined): JsonObject {
  const { structuredContent } = result
  if (structuredContent === undefined) return result
  const { outputSchema } = listed?.definition ?? {}
  const isWrapped = !isJsonObject(structuredContent) || (outputSchema !== undefined && outputSchema.type !== 'object')
  return isWrapped ? { ...result, structuredContent: { result: structuredContent } } : result
}
