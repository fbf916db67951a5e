import type { Tool } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { decide } from '../rules/decide.js'
import { compileGlob, type Matcher } from '../rules/glob.js'
import { countTokens } from './tokens.js'
import { agentId, describeTool, type GatewayTool, notAvailable, parseArguments, toResult } from './tool.js'

const Arguments = z.strictObject({
  server: z.string().min(1).max(256).describe('Name of the server, as list_servers gives it'),
  names: z
    .union([z.array(z.string()), z.string()])
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
    const { rules, backends } = call.snapshot
    const agent = call.actAs(requested)
    const backend = backends.get(server)
    if (!call.decide(agent, server) || !backend) throw notAvailable(agent, server)

    const { tools } = await backend.tools(call.owner)
    const visible = tools
      .map(({ definition }) => definition)
      .filter(({ name: tool }) => decide(rules, { agent, server, tool }).decision === 'allow')
    const { returned, omitted, tokens } = await withinBudget(
      visible.filter(({ name }) => isWanted(name, names, pattern)),
      budget,
    )
    return toResult({
      server,
      tools: returned,
      total_available: visible.length,
      returned: returned.length,
      tokens_used: tokens,
      ...(omitted.length > 0 && { omitted }),
    })
  },
}

function isWanted(name: string, names: string | readonly string[] | undefined, pattern: string | undefined): boolean {
  const listed =
    typeof names === 'string'
      ? names
          .split(',')
          .map(part => part.trim())
          .filter(part => part !== '')
      : names
  if (listed !== undefined && listed.length > 0 && !listed.includes(name)) return false
  const matches: Matcher = pattern === undefined ? () => true : compileGlob(pattern)
  return matches(name)
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
