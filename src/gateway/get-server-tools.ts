import type { Tool } from '@modelcontextprotocol/server'
import { z } from 'zod'
import type { Backend } from '../backends/backend.js'
import type { ToolList } from '../backends/tool.js'
import { compileGlob } from '../rules/glob.js'
import { type Unavailable, unavailable } from './patience.js'
import { countTokens } from './tokens.js'
import {
  agentId,
  describeTool,
  type GatewayCall,
  type GatewayTool,
  notAvailable,
  parseArguments,
  toResult,
} from './tool.js'

const Arguments = z.strictObject({
  server: z.string().min(1).max(256).describe('Name of the server, as list_servers gives it'),
  names: z
    .union([z.array(z.string().max(256)).max(1_000), z.string().max(16_384)])
    .optional()
    .describe('Only these tools: a list, or names separated by commas'),
  pattern: z.string().max(256).optional().describe('Only tools whose name matches this glob, for example "get_*"'),
  max_schema_tokens: z
    .number()
    .int()
    .positive()
    .optional()
    .describe('Stop adding definitions when they cost more tokens than this'),
  agent_id: agentId,
})

export const getServerTools: GatewayTool = {
  definition: describeTool(
    'get_server_tools',
    'Gives the full definitions of the tools of one server that you may call. Then call execute_tool.',
    Arguments,
    { readOnlyHint: true },
  ),

  async run(call, args) {
    const {
      server,
      names,
      pattern,
      max_schema_tokens: budget = Number.POSITIVE_INFINITY,
      agent_id: requested,
    } = parseArguments(Arguments, args)
    call.server = server
    const { backends } = call.snapshot
    const agent = call.actAs(requested)
    const backend = backends.get(server)
    if (!call.decide(agent, server) || !backend) throw notAvailable(agent, server)

    const { tools, unavailable: down } = await listTools(call, backend)
    const visible = tools.filter(tool => call.permits(agent, server, tool))
    const isWanted = selector(names, pattern)
    const { returned, omitted, tokens } = await withinBudget(
      visible.filter(({ name }) => isWanted(name)),
      budget,
    )
    return toResult({
      server,
      tools: returned,
      total_available: visible.length,
      returned: returned.length,
      tokens_used: tokens,
      ...(omitted.length > 0 && { omitted }),
      ...(down && { unavailable: down }),
    })
  },
}

/** The tools of a server; those known from before, and why, where it cannot be had now. */
async function listTools(call: GatewayCall, backend: Backend): Promise<{ tools: Tool[]; unavailable?: Unavailable }> {
  const { owner, caller } = call
  const clock = backend.startClock({ signal: caller.signal })
  try {
    return { tools: definitionsIn(await backend.tools(owner, clock)) }
  } catch (error) {
    const known = backend.toolsKnownTo(owner)
    if (!known || caller.signal?.aborted) throw error
    return { tools: definitionsIn(known), unavailable: unavailable(backend, error) }
  } finally {
    clock.stop()
  }
}

const definitionsIn = ({ tools }: ToolList): Tool[] => tools.map(({ definition }) => definition)

/** What `names` and `pattern` ask for, read once for all tools. */
function selector(
  names: string | readonly string[] | undefined,
  pattern: string | undefined,
): (name: string) => boolean {
  const matches = pattern === undefined ? () => true : compileGlob(pattern)
  const listed = new Set(
    (typeof names === 'string' ? names.split(',') : (names ?? [])).map(name => name.trim()).filter(name => name !== ''),
  )
  return name => (listed.size === 0 || listed.has(name)) && matches(name)
}

/** As many definitions as the budget takes, in order; the names of the others. */
async function withinBudget(
  definitions: readonly Tool[],
  budget: number,
): Promise<{ returned: Tool[]; omitted: string[]; tokens: number }> {
  const returned: Tool[] = []
  const omitted: string[] = []
  let tokens = 0
  for (const definition of definitions) {
    const cost = await countTokens(definition)
    if (tokens + cost > budget) omitted.push(definition.name)
    else {
      returned.push(definition)
      tokens += cost
    }
  }
  return { returned, omitted, tokens }
}
