import { formatPath } from '../config/problem.js'
import { type AccessRules, type CompiledAgent, type CompiledPattern, entriesFor, type ServerFilter } from './compile.js'

/** What an agent wants to reach. Without `tool`: may it see the server at all? */
export interface Wanted {
  readonly agent: string
  readonly server: string
  readonly tool?: string | undefined
}

/** `rule` is the place in the configuration that answered, `reason` the same in words. */
export interface Decision {
  readonly decision: 'allow' | 'deny'
  readonly rule: string
  readonly reason: string
}

/**
 * Decides by name alone, before anything is asked whether it exists (DESIGN section 2). A `team.role` needs the consent of its
 * own entry and of every ancestor's, so a child never exceeds its parent; a server's own `tools` filter holds for everybody.
 */
export function decide(rules: AccessRules, { agent, server, tool }: Wanted): Decision {
  const entries = entriesFor(rules, agent)
  if (entries.length === 0) return deny(ruleOf(agent), `the rules have no entry for the agent "${agent}"`)
  let allowed: Decision | undefined
  for (const entry of entries) {
    const decision = decideByEntry(entry, server, tool)
    if (decision.decision === 'deny') return decision
    allowed ??= decision
  }
  const filtered = tool === undefined ? undefined : decideByFilter(rules.filters.get(server), server, tool)
  return filtered ?? allowed ?? deny(ruleOf(agent), 'no rule allows it')
}

/** The order of DESIGN section 2, steps 2 to 6; the first that matches answers. */
function decideByEntry(
  { name, allow: allowed, deny: denied }: CompiledAgent,
  server: string,
  tool: string | undefined,
): Decision {
  const deniedServer = firstMatch(denied.servers, server)
  if (deniedServer) return deny(deniedServer.rule, `the server "${server}" is denied to "${name}"`)
  const allowedServer = firstMatch(allowed.servers, server)
  if (!allowedServer)
    return deny(ruleOf(name, 'allow', 'servers'), `the server "${server}" is not among those allowed to "${name}"`)
  if (tool === undefined) return allow(allowedServer.rule, `the server "${server}" is allowed to "${name}"`)

  for (const { server: key, tools } of denied.tools) {
    const deniedTool = key.matches(server) ? firstMatch(tools, tool) : undefined
    if (deniedTool) return deny(deniedTool.rule, `the tool "${tool}" of "${server}" is denied to "${name}"`)
  }
  const lists = allowed.tools.filter(({ server: key }) => key.matches(server))
  if (lists.length === 0) return allow(allowedServer.rule, `"${name}" may call every tool of "${server}"`)
  for (const { tools } of lists) {
    const allowedTool = firstMatch(tools, tool)
    if (allowedTool) return allow(allowedTool.rule, `the tool "${tool}" of "${server}" is allowed to "${name}"`)
  }
  return deny(
    lists.map(({ server: key }) => key.rule).join(', '),
    `the tool "${tool}" of "${server}" is not among those allowed to "${name}"`,
  )
}

function decideByFilter(filter: ServerFilter | undefined, server: string, tool: string): Decision | undefined {
  if (!filter) return undefined
  const denied = firstMatch(filter.deny, tool)
  if (denied) return deny(denied.rule, `the tool "${tool}" of "${server}" is denied to everybody`)
  if (filter.allow && !firstMatch(filter.allow, tool))
    return deny(filter.allowRule, `the tool "${tool}" of "${server}" is not offered to anybody`)
  return undefined
}

const ruleOf = (agent: string, ...rest: string[]): string => formatPath(['agents', agent, ...rest])

const firstMatch = (patterns: readonly CompiledPattern[], name: string): CompiledPattern | undefined =>
  patterns.find(({ matches }) => matches(name))

const allow = (rule: string, reason: string): Decision => ({ decision: 'allow', rule, reason })
const deny = (rule: string, reason: string): Decision => ({ decision: 'deny', rule, reason })
