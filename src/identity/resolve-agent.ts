import { GatewayError } from '../errors/gateway-error.js'
import { type AccessRules, entriesFor, isKnown } from '../rules/compile.js'
import { compileGlob, isGlob } from '../rules/glob.js'
import type { Principal } from './principal.js'

/**
 * Which agent a call is made as (DESIGN section 2). `requested` is the tool parameter `agent_id`: it may pick one of the
 * principal's agents or a descendant of one, never anything else.
 */
export function resolveAgent(rules: AccessRules, principal: Principal, requested: string | undefined): string {
  if (requested !== undefined) {
    if (!mayActAs(principal, requested))
      throw new GatewayError('INVALID_AGENT_ID', `this caller may not act as the agent "${requested}"`)
    return known(rules, principal, requested)
  }
  if (principal.agents !== 'any') return known(rules, principal, onlyAgentOf(principal.agents))
  if (principal.fallbackAgent !== undefined)
    return fallback(rules, principal.fallbackAgent, 'GATEWAY_DEFAULT_AGENT names')
  if (!rules.denyOnMissingAgent) return fallback(rules, 'default', 'deny_on_missing_agent is false, which needs')
  throw new GatewayError(
    'NO_FALLBACK_CONFIGURED',
    'no agent was named: pass agent_id (on the command line --agent), or set GATEWAY_DEFAULT_AGENT',
  )
}

/** True when the agent itself or one of its ancestors is among those the principal may act as. */
function mayActAs({ agents }: Principal, agent: string): boolean {
  if (agents === 'any') return true
  const lineage = agent.split('.').map((_, index, parts) => parts.slice(0, index + 1).join('.'))
  return agents.some(pattern => lineage.some(compileGlob(pattern)))
}

function onlyAgentOf(agents: readonly string[]): string {
  const [only, ...others] = agents
  if (only === undefined)
    throw new GatewayError(
      'INVALID_AGENT_ID',
      'the token names no agent: it needs the claim "agent_id" or "agents", or claims that the rules give to one (identity.agents)',
    )
  if (others.length > 0 || isGlob(only)) {
    throw new GatewayError(
      'INVALID_AGENT_ID',
      `the token may act as several agents: pass agent_id, one of ${agents.join(', ')}`,
    )
  }
  return only
}

/** An agent without an entry may have the rules of its roles. */
function known(rules: AccessRules, principal: Principal, agent: string): string {
  if (isKnown(rules, agent, principal)) return agent
  throw new GatewayError('INVALID_AGENT_ID', `the rules do not know the agent "${agent}"`)
}

function fallback(rules: AccessRules, agent: string, source: string): string {
  if (entriesFor(rules, agent).length > 0) return agent
  throw new GatewayError('FALLBACK_AGENT_NOT_IN_RULES', `${source} the agent "${agent}", which the rules do not know`)
}
