import { describe, expect, test } from 'vitest'
import type { Principal } from '../../src/identity/principal.js'
import { resolveAgent } from '../../src/identity/resolve-agent.js'
import { exposureOf, resultBudgetOf } from '../../src/rules/compile.js'
import { decide } from '../../src/rules/decide.js'
import { compiled } from './compiled.js'

const rules = compiled({
  agents: {
    dev: { allow: { servers: ['docs', 'git'], tools: { git: ['read'] } }, deny: { tools: { git: ['purge'] } } },
    'dev.intern': { allow: { servers: ['docs'] } },
    careful: { allow: { servers: ['git'], tools: { git: [{ tool: 'write', effect: 'ask' }] } } },
  },
  roles: {
    writer: { allow: { servers: ['git'], tools: { git: ['write', 'purge'] } } },
    ops: { allow: { servers: ['db'] }, deny: { tools: { git: ['read'] } } },
    asker: { allow: { servers: ['db'], tools: { db: [{ tool: '*', effect: 'ask' }] } } },
    outcast: { deny: { servers: ['*'] } },
    direct: { expose: 'direct', max_result_tokens: 10 },
  },
})

describe('an agent has its own rules and those of the caller’s roles', () => {
  test.each<[agent: string, roles: string[], server: string, tool: string | undefined, decision: string, rule: string]>(
    [
      ['dev', [], 'git', 'write', 'deny', 'agents.dev.allow.tools.git'],
      ['dev', ['writer'], 'git', 'write', 'allow', 'roles.writer.allow.tools.git[0] ("write")'],
      ['dev', ['writer'], 'git', 'read', 'allow', 'agents.dev.allow.tools.git[0] ("read")'],
      // A deny of any of them wins.
      ['dev', ['writer'], 'git', 'purge', 'deny', 'agents.dev.deny.tools.git[0] ("purge")'],
      ['dev', ['writer', 'ops'], 'git', 'read', 'deny', 'roles.ops.deny.tools.git[0] ("read")'],
      ['dev', ['writer', 'outcast'], 'docs', undefined, 'deny', 'roles.outcast.deny.servers[0] ("*")'],
      // An ancestor narrows what is the agent's own; what it denies is denied.
      ['dev.intern', ['writer'], 'git', 'write', 'allow', 'roles.writer.allow.tools.git[0] ("write")'],
      ['dev.intern', ['writer'], 'git', 'purge', 'deny', 'agents.dev.deny.tools.git[0] ("purge")'],
      ['dev.intern', ['ops'], 'db', 'x', 'allow', 'roles.ops.allow.servers[0] ("db")'],
      // What has to be asked is asked, whoever else allows it.
      ['careful', ['writer'], 'git', 'write', 'ask', 'agents.careful.allow.tools.git[0] ("write")'],
      ['dev', ['ops', 'asker'], 'db', 'x', 'ask', 'roles.asker.allow.tools.db[0] ("*")'],
      // Roles alone.
      ['stranger', ['writer'], 'git', 'write', 'allow', 'roles.writer.allow.tools.git[0] ("write")'],
      ['stranger', ['writer'], 'docs', 'read', 'deny', 'roles.writer.allow.servers'],
      ['stranger', ['unknown'], 'git', 'write', 'deny', 'agents.stranger'],
      ['stranger', ['toString', '__proto__'], 'git', 'write', 'deny', 'agents.stranger'],
      ['writer', [], 'git', 'write', 'deny', 'agents.writer'],
    ],
  )('%s with %j, %s %s: %s', (agent, roles, server, tool, decision, rule) => {
    expect(decide(rules, { agent, server, tool, caller: { id: 'u', roles } })).toMatchObject({ decision, rule })
  })

  test('what it sees, and what a result may cost it', () => {
    const caller = { roles: ['direct'] }
    expect([exposureOf(rules, 'dev'), exposureOf(rules, 'dev', caller)]).toEqual(['discover', 'direct'])
    expect([resultBudgetOf(rules, 'dev'), resultBudgetOf(rules, 'dev', caller)]).toEqual([undefined, 10])
  })
})

test('an agent without an entry may act where a role of the caller is known', () => {
  const principal: Principal = { id: 'u', key: 'u', agents: ['stranger'] }
  expect(() => resolveAgent(rules, principal, undefined)).toThrow('do not know the agent "stranger"')
  expect(() => resolveAgent(rules, { ...principal, roles: ['unknown'] }, undefined)).toThrow('do not know')
  expect(resolveAgent(rules, { ...principal, roles: ['writer'] }, undefined)).toBe('stranger')
})
