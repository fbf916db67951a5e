import { z } from 'zod'
import type { Backend } from '../backends/backend.js'
import type { ToolList } from '../backends/tool.js'
import { Patience, type Unavailable, unavailable } from './patience.js'
import { rankTools } from './rank-tools.js'
import {
  agentId,
  describeTool,
  type GatewayCall,
  type GatewayTool,
  notAvailable,
  parseArguments,
  toResult,
} from './tool.js'
import { indexOf } from './tool-index.js'

const DEFAULT_LIMIT = 5

const Arguments = z.strictObject({
  query: z.string().trim().min(1).max(2_000).describe('What you want to do, in plain words'),
  server: z.string().min(1).max(256).optional().describe('Only tools of this server'),
  limit: z
    .number()
    .int()
    .min(1)
    .max(50)
    .optional()
    .describe(`How many tools to give at most, ${DEFAULT_LIMIT} if not said`),
  agent_id: agentId,
})

export const searchTools: GatewayTool = {
  definition: describeTool(
    'search_tools',
    'Finds the tools for a task among all servers you may use, best first, with their definitions. Then call execute_tool.',
    Arguments,
    { readOnlyHint: true },
  ),

  async run(call, args) {
    const { query, server, limit = DEFAULT_LIMIT, agent_id: requested } = parseArguments(Arguments, args)
    call.server = server
    const agent = call.actAs(requested)
    const patience = new Patience(call)
    const outcomes = await Promise.all(
      wantedBackends(call, agent, server).map(backend => knownOrAsked(call, backend, patience)),
    )
    const indexes = await Promise.all(
      outcomes.flatMap(({ name, list }) => (list === undefined ? [] : [indexOf(name, list)])),
    )
    const hits = rankTools(indexes, query, (name, tool) => call.permits(agent, name, tool)).slice(0, limit)
    const down = outcomes.flatMap(({ unavailable: reason }) => (reason === undefined ? [] : [reason]))
    return toResult({
      tools: hits.map(({ server: name, tool: { definition }, score }) => ({
        server: name,
        name: definition.name,
        ...(definition.description !== undefined && { description: definition.description }),
        inputSchema: definition.inputSchema,
        score: Math.round(score * 100) / 100,
      })),
      ...(down.length > 0 && { unavailable: down }),
    })
  },
}

/** The servers to search. Without being asked for, one that is switched off or misconfigured is no news. */
function wantedBackends(call: GatewayCall, agent: string, server: string | undefined): Backend[] {
  const { backends } = call.snapshot
  if (server === undefined) {
    return [...backends.values()].filter(
      ({ name, config }) => !config.disabled && config.misconfigured.length === 0 && call.permits(agent, name),
    )
  }
  const backend = backends.get(server)
  if (!call.decide(agent, server) || !backend) throw notAvailable(agent, server)
  return [backend]
}

interface Outcome {
  readonly name: string
  readonly list?: ToolList | undefined
  readonly unavailable?: Unavailable
}

/**
 * The tool list as far as it can be had soon. What is known is good enough where finding out more would mean to start or to
 * connect something; only a list that is not known at all is worth that. A server that is known to be down is named.
 */
async function knownOrAsked(call: GatewayCall, backend: Backend, patience: Patience): Promise<Outcome> {
  const { name } = backend
  const { owner } = call
  const known = backend.toolsKnownTo(owner)
  if (known && !backend.isConnectedFor(owner)) {
    const { failure } = backend
    patience.answered()
    return { name, list: known, ...(failure && { unavailable: unavailable(backend, failure) }) }
  }
  try {
    const fresh = backend.freshTools(owner)
    if (fresh) patience.answered()
    return { name, list: fresh ?? (await patience.ask(backend, clock => backend.tools(owner, clock))) }
  } catch (error) {
    return { name, list: known, unavailable: unavailable(backend, error) }
  }
}
