import { describe, expect, test } from 'vitest'
import { GatewayError } from '../../src/errors/gateway-error.js'
import { localPrincipal, type Principal } from '../../src/identity/principal.js'
import { resolveAgent } from '../../src/identity/resolve-agent.js'
import { compileRules } from '../../src/rules/compile.js'

function rulesOf(agents: readonly string[], denyOnMissingAgent = true) {
  const entries = Object.fromEntries(agents.map(agent => [agent, {}]))
  return compileRules({ agents: entries, defaults: { deny_on_missing_agent: denyOnMissingAgent } }, [])
}

/** The agent, or the code of the refusal. */
function outcome(rules: ReturnType<typeof rulesOf>, principal: Principal, requested: string | undefined): string {
  try {
    return resolveAgent(rules, principal, requested)
  } catch (error) {
    if (error instanceof GatewayError) return error.code
    throw error
  }
}

const known = rulesOf(['team', 'team.role', 'teamx', 'other', 'admin'])

describe('with a token', () => {
  test.each<[agents: readonly string[], requested: string | undefined, outcome: string, why: string]>([
    [['team'], undefined, 'team', 'the only agent needs no naming'],
    [['team'], 'team', 'team', 'the agent itself'],
    [['team'], 'team.role', 'team.role', 'a descendant'],
    [['team'], 'team.new.deep', 'team.new.deep', 'a descendant without an entry has its ancestor’s'],
    [['team'], 'other', 'INVALID_AGENT_ID', 'another agent'],
    [['team'], 'teamx', 'INVALID_AGENT_ID', 'a sibling that starts alike'],
    [['team'], 'Team', 'INVALID_AGENT_ID', 'another case'],
    [['team'], '', 'INVALID_AGENT_ID', 'no name'],
    [['team'], 'team*', 'INVALID_AGENT_ID', 'a glob is not a name'],
    [['team'], '.team', 'INVALID_AGENT_ID', 'a leading dot'],
    [['team.role'], 'team', 'INVALID_AGENT_ID', 'its ancestor'],
    [['team.role'], 'team.role.sub', 'team.role.sub', 'below a role'],
    [['team.role'], 'team.other', 'INVALID_AGENT_ID', 'beside a role'],
    [['team', 'other'], undefined, 'INVALID_AGENT_ID', 'several need naming'],
    [['team', 'other'], 'other', 'other', 'one of several'],
    [['team', 'other'], 'admin', 'INVALID_AGENT_ID', 'none of several'],
    [['team*'], undefined, 'INVALID_AGENT_ID', 'a glob needs naming'],
    [['team*'], 'teamx', 'teamx', 'a glob that matches'],
    [['team.*'], 'team.role', 'team.role', 'a glob below a dot'],
    [['team.*'], 'team', 'INVALID_AGENT_ID', 'a glob below a dot has not its parent'],
    [['t?am'], 'team.role', 'team.role', 'a descendant of what a glob matches'],
    [['team*'], 'other', 'INVALID_AGENT_ID', 'a glob that does not match'],
    [['*'], 'admin', 'admin', 'any agent'],
    [['*'], 'stranger', 'INVALID_AGENT_ID', 'any agent that the rules know'],
    [['stranger'], undefined, 'INVALID_AGENT_ID', 'the rules do not know the only agent'],
    [['stranger'], 'stranger', 'INVALID_AGENT_ID', 'nor when it is named'],
    [['constructor'], undefined, 'INVALID_AGENT_ID', 'what every object has is no agent'],
    [[], undefined, 'INVALID_AGENT_ID', 'a token without agents'],
    [[], 'team', 'INVALID_AGENT_ID', 'a token without agents names one'],
  ])('%j and agent_id %j: %s (%s)', (agents, requested, expected) => {
    const principal: Principal = { id: 'sub', key: 'sub', agents }
    expect(outcome(known, principal, requested)).toBe(expected)
    // What is there for people without a token is nothing for people with one.
    const open = rulesOf([...known.agents.keys(), 'default'], false)
    expect(outcome(open, { ...principal, fallbackAgent: 'admin' }, requested)).toBe(expected)
  })
})

describe('as the local user', () => {
  const open = rulesOf(['team', 'other', 'default'], false)
  const openWithoutDefault = rulesOf(['team'], false)
  const closed = rulesOf(['team', 'other', 'default'])

  test.each<
    [
      rules: ReturnType<typeof rulesOf>,
      local: { pinnedAgent?: string; fallbackAgent?: string },
      requested: string | undefined,
      outcome: string,
      why: string,
    ]
  >([
    [closed, { pinnedAgent: 'team' }, undefined, 'team', 'pinned'],
    [closed, { pinnedAgent: 'team' }, 'team.role', 'team.role', 'pinned, a descendant'],
    [closed, { pinnedAgent: 'team' }, 'other', 'INVALID_AGENT_ID', 'pinned, another'],
    [closed, { pinnedAgent: 'team', fallbackAgent: 'other' }, undefined, 'team', 'pinned beats GATEWAY_DEFAULT_AGENT'],
    [open, { pinnedAgent: 'stranger' }, undefined, 'INVALID_AGENT_ID', 'pinned to a stranger, no fallback'],
    [closed, {}, 'other', 'other', 'free to choose'],
    [open, { fallbackAgent: 'team' }, 'other', 'other', 'the call beats GATEWAY_DEFAULT_AGENT'],
    [open, { fallbackAgent: 'team' }, 'stranger', 'INVALID_AGENT_ID', 'a stranger is refused, no fallback'],
    [open, {}, '', 'INVALID_AGENT_ID', 'an empty name is a name'],
    [closed, { fallbackAgent: 'team' }, undefined, 'team', 'GATEWAY_DEFAULT_AGENT'],
    [open, { fallbackAgent: 'team' }, undefined, 'team', 'GATEWAY_DEFAULT_AGENT beats "default"'],
    [open, { fallbackAgent: 'stranger' }, undefined, 'FALLBACK_AGENT_NOT_IN_RULES', 'GATEWAY_DEFAULT_AGENT unknown'],
    [open, { fallbackAgent: '' }, undefined, 'default', 'an empty GATEWAY_DEFAULT_AGENT is none'],
    [open, {}, undefined, 'default', 'deny_on_missing_agent is false'],
    [openWithoutDefault, {}, undefined, 'FALLBACK_AGENT_NOT_IN_RULES', 'the same without the agent "default"'],
    [closed, {}, undefined, 'NO_FALLBACK_CONFIGURED', 'deny_on_missing_agent is true'],
  ])('%# %j, %j and agent_id %j: %s (%s)', (rules, local, requested, expected) => {
    expect(outcome(rules, localPrincipal(local), requested)).toBe(expected)
  })

  test('is known to the audit log by name', () => {
    expect(localPrincipal({}).id).toMatch(/^local:./)
  })
})
