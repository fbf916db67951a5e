import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { AccessPatterns, AgentRules, RulesConfig } from '../../src/config/rules-file.js'
import { compileRules } from '../../src/rules/compile.js'
import { decide } from '../../src/rules/decide.js'

// Few names and many patterns over them, so that rules meet often.
const name = fc.constantFrom('a', 'b', 'ab', 'ba')
const pattern: fc.Arbitrary<string> = fc.constantFrom('a', 'b', 'ab', 'ba', '*', 'a*', '*b', '?', '[ab]', '[!a]*', 'c')
const patterns = fc.array(pattern, { maxLength: 3 })
const access = fc.record(
  { servers: patterns, tools: fc.dictionary(pattern, patterns, { maxKeys: 3 }) },
  { requiredKeys: [] },
)
// Half of all patterns match nothing of a name: an entry that allows every server keeps the later steps in play.
const entry: fc.Arbitrary<AgentRules> = fc.record(
  { allow: fc.oneof(access, fc.constant<AccessPatterns>({ servers: ['*'] })), deny: access },
  { requiredKeys: ['allow'] },
)
// A parent is an agent with an entry: a name that merely has a dot in it limits nobody (see decide.test.ts).
const agents = fc
  .record({ team: entry, 'team.role': entry, 'team.role.sub': entry }, { requiredKeys: ['team'] })
  .map(entries => entries as Readonly<Record<string, AgentRules>>)
const agentName = fc.constantFrom('team', 'team.role', 'team.role.sub', 'team.x', 'other')

/** A pattern that matches the name, whatever the name is. */
const patternFor = (text: string) =>
  fc.constantFrom(text, '*', `${text}*`, `*${text.slice(1)}`, '?'.repeat(text.length))

const decided = (entries: Readonly<Record<string, AgentRules>>, agent: string, server: string, tool?: string) => {
  const rules: RulesConfig = { agents: entries, defaults: { deny_on_missing_agent: true } }
  return decide(compileRules(rules, []), { agent, server, tool }).decision
}

const withDeniedServer = (rules: AgentRules, server: string): AgentRules => ({
  ...rules,
  deny: { ...rules.deny, servers: [...(rules.deny?.servers ?? []), server] },
})

const withDeniedTool = (rules: AgentRules, server: string, tool: string): AgentRules => ({
  ...rules,
  deny: { ...rules.deny, tools: { ...rules.deny?.tools, [server]: [...(rules.deny?.tools?.[server] ?? []), tool] } },
})

/** The rules with one more deny, for the server or for one tool of it, in one of the entries. */
function withDeny(
  entries: Readonly<Record<string, AgentRules>>,
  { at, server, tool }: { at: string; server: string; tool: string | undefined },
) {
  const rules = entries[at] ?? {}
  return {
    ...entries,
    [at]: tool === undefined ? withDeniedServer(rules, server) : withDeniedTool(rules, server, tool),
  }
}

const request = fc.record({ agent: agentName, server: name, tool: name })

const lineage = (agent: string) => agent.split('.').map((_, at, parts) => parts.slice(0, at + 1).join('.'))

test('a deny always wins: a deny that matches, in the entry of the agent or above it, leaves nothing allowed', () => {
  const denied = request.chain(({ agent, server, tool }) =>
    fc.tuple(
      fc.constant({ agent, server, tool }),
      fc.record({
        at: fc.constantFrom(...lineage(agent)),
        server: patternFor(server),
        tool: fc.option(patternFor(tool), { nil: undefined }),
      }),
    ),
  )
  fc.assert(
    fc.property(agents, denied, (entries, [{ agent, server, tool }, deny]) => {
      expect(decided(withDeny(entries, deny), agent, server, tool)).toBe('deny')
    }),
    { numRuns: 2000 },
  )
})

test('a deny never allows more: with one more deny, nothing that was refused is allowed', () => {
  const deny = fc.record({
    at: fc.constantFrom('team', 'team.role', 'team.role.sub'),
    server: pattern,
    tool: fc.option(pattern, { nil: undefined }),
  })
  fc.assert(
    fc.property(agents, deny, request, (entries, added, { agent, server, tool }) => {
      fc.pre(added.at in entries) // a new entry takes the place of what was inherited, it is more than a deny
      fc.pre(decided(entries, agent, server, tool) === 'deny')
      expect(decided(withDeny(entries, added), agent, server, tool)).toBe('deny')
    }),
    { numRuns: 2000 },
  )
})

test('a child never exceeds its parent', () => {
  const line = fc.constantFrom(
    ['team.role', 'team'],
    ['team.role.sub', 'team.role'],
    ['team.role.sub', 'team'],
    ['team.x', 'team'],
  )
  fc.assert(
    fc.property(
      agents,
      line,
      name,
      fc.option(name, { nil: undefined }),
      (entries, [child = '', parent = ''], server, tool) => {
        fc.pre(decided(entries, child, server, tool) === 'allow')
        expect(decided(entries, parent, server, tool)).toBe('allow')
      },
    ),
    { numRuns: 2000 },
  )
})
