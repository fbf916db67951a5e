import { describe, expect, test } from 'vitest'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'
import { parseServersFile } from '../../src/config/servers-file.js'
import { compileRules, entriesFor } from '../../src/rules/compile.js'
import { decide } from '../../src/rules/decide.js'

function compile(agents: Record<string, unknown>, mcpServers: Record<string, unknown> = {}) {
  const { rules, problems } = parseRulesFile(parseJsonDocument('r.json', JSON.stringify({ agents })))
  const servers = parseServersFile(parseJsonDocument('s.json', JSON.stringify({ mcpServers })), {})
  expect([...problems, ...servers.problems]).toEqual([])
  return compileRules(rules, servers.servers)
}

type Row = readonly [
  agent: string,
  server: string,
  tool: string | undefined,
  decision: 'allow' | 'deny',
  rule: string,
  why: string,
]

// DESIGN.md section 2: for (agent, server, tool), in this order, the first that matches answers.
describe('the order of the decision', () => {
  const rules = compile({
    // Every step at once: what an earlier step answers, a later one would answer differently.
    dev: {
      allow: {
        servers: ['docs', 'db-*', 'secret', 'Shop', 'empty', 'free', 'node.js'],
        tools: {
          docs: ['read', 'list_*', 'drop_all'],
          'db-*': ['query'],
          'db-1': ['explain'],
          secret: ['*'],
          empty: [],
        },
      },
      deny: {
        servers: ['secret', 'db-prod*'],
        tools: { docs: ['list_keys', 'drop_*'], '*': ['shutdown'], 'db-[0-9]': ['query_raw'], 'node.js': ['e?al'] },
      },
    },
    nothing: {},
    'deny-only': { deny: { tools: { docs: ['x'] } } },
    'tools-only': { allow: { tools: { docs: ['read'] } } },
    'deny-all': { allow: { servers: ['*'] }, deny: { servers: ['*'] } },
    admin: { allow: { servers: ['*'] } },
  })

  const free = 'agents.dev.allow.servers[5] ("free")'
  const rows: readonly Row[] = [
    // 1. the agent has no entry → deny
    ['stranger', 'docs', 'read', 'deny', 'agents.stranger', 'step 1'],
    ['', 'docs', 'read', 'deny', 'agents[""]', 'step 1, no name'],
    ['Dev', 'docs', 'read', 'deny', 'agents.Dev', 'step 1, agents are case-sensitive'],
    ['constructor', 'docs', 'read', 'deny', 'agents.constructor', 'step 1, not what every object has'],
    ['dev*', 'docs', 'read', 'deny', 'agents["dev*"]', 'step 1, a caller sends names, not globs'],
    // 2. deny.servers matches → deny
    ['dev', 'secret', 'read', 'deny', 'agents.dev.deny.servers[0] ("secret")', 'step 2 before 3 and 5'],
    ['dev', 'db-prod-eu', 'query', 'deny', 'agents.dev.deny.servers[1] ("db-prod*")', 'step 2, glob'],
    ['dev', 'secret', undefined, 'deny', 'agents.dev.deny.servers[0] ("secret")', 'step 2, server alone'],
    ['deny-all', 'docs', 'read', 'deny', 'agents.deny-all.deny.servers[0] ("*")', 'step 2 beats an equal allow'],
    // 3. allow.servers does not match → deny
    ['dev', 'other', 'read', 'deny', 'agents.dev.allow.servers', 'step 3'],
    ['dev', 'Docs', 'read', 'deny', 'agents.dev.allow.servers', 'step 3, servers are case-sensitive'],
    ['dev', 'shop', 'read', 'deny', 'agents.dev.allow.servers', 'step 3, in the other direction'],
    ['dev', 'other', 'shutdown', 'deny', 'agents.dev.allow.servers', 'step 3 before 4'],
    ['dev', '', 'read', 'deny', 'agents.dev.allow.servers', 'step 3, no name'],
    ['nothing', 'docs', 'read', 'deny', 'agents.nothing.allow.servers', 'step 3, an empty entry grants nothing'],
    ['deny-only', 'docs', 'read', 'deny', 'agents.deny-only.allow.servers', 'step 3, a deny grants nothing else'],
    [
      'tools-only',
      'docs',
      'read',
      'deny',
      'agents.tools-only.allow.servers',
      'step 3, tools do not grant their server',
    ],
    // 4. deny.tools[server] matches, exact or glob → deny
    ['dev', 'docs', 'list_keys', 'deny', 'agents.dev.deny.tools.docs[0] ("list_keys")', 'step 4, exact before 5'],
    [
      'dev',
      'docs',
      'drop_all',
      'deny',
      'agents.dev.deny.tools.docs[1] ("drop_*")',
      'step 4, a glob beats an exact allow',
    ],
    ['dev', 'free', 'shutdown', 'deny', 'agents.dev.deny.tools["*"][0] ("shutdown")', 'step 4, glob as server key'],
    [
      'dev',
      'db-1',
      'query_raw',
      'deny',
      'agents.dev.deny.tools["db-[0-9]"][0] ("query_raw")',
      'step 4, set as server key',
    ],
    ['dev', 'node.js', 'eval', 'deny', 'agents.dev.deny.tools["node.js"][0] ("e?al")', 'step 4, question mark'],
    ['dev', 'docs', 'drop_a/../b\n', 'deny', 'agents.dev.deny.tools.docs[1] ("drop_*")', 'step 4, hostile tool name'],
    // 5. an allow.tools entry applies → allow if one of its patterns matches, else deny
    ['dev', 'docs', 'read', 'allow', 'agents.dev.allow.tools.docs[0] ("read")', 'step 5, exact'],
    ['dev', 'docs', 'list_pages', 'allow', 'agents.dev.allow.tools.docs[1] ("list_*")', 'step 5, glob'],
    ['dev', 'docs', 'write', 'deny', 'agents.dev.allow.tools.docs', 'step 5, not in the list'],
    ['dev', 'docs', 'Read', 'deny', 'agents.dev.allow.tools.docs', 'step 5, tools are case-sensitive'],
    ['dev', 'docs', '', 'deny', 'agents.dev.allow.tools.docs', 'step 5, no name'],
    ['dev', 'db-2', 'query', 'allow', 'agents.dev.allow.tools["db-*"][0] ("query")', 'step 5, glob as server key'],
    ['dev', 'db-2', 'explain', 'deny', 'agents.dev.allow.tools["db-*"]', 'step 5, another server has it'],
    ['dev', 'db-1', 'explain', 'allow', 'agents.dev.allow.tools.db-1[0] ("explain")', 'step 5, either list will do'],
    ['dev', 'db-1', 'write', 'deny', 'agents.dev.allow.tools["db-*"], agents.dev.allow.tools.db-1', 'step 5, neither'],
    ['dev', 'empty', 'read', 'deny', 'agents.dev.allow.tools.empty', 'step 5, an empty list allows nothing'],
    // 6. no allow.tools entry applies → allow
    ['dev', 'free', 'anything', 'allow', free, 'step 6'],
    ['dev', 'free', '../../etc', 'allow', free, 'step 6, any name'],
    [
      'dev',
      'node.js',
      'run',
      'allow',
      'agents.dev.allow.servers[6] ("node.js")',
      'step 6, a deny list is no allow list',
    ],
    ['admin', 'whatever', 'x', 'allow', 'agents.admin.allow.servers[0] ("*")', 'step 6, star'],
    // The server alone: steps 1 to 3.
    ['dev', 'docs', undefined, 'allow', 'agents.dev.allow.servers[0] ("docs")', 'server alone'],
    ['dev', 'empty', undefined, 'allow', 'agents.dev.allow.servers[4] ("empty")', 'server alone'],
    ['stranger', 'docs', undefined, 'deny', 'agents.stranger', 'server alone, step 1'],
  ]

  test.each(rows)('%j on %j, tool %j: %s by %s (%s)', (agent, server, tool, decision, rule) => {
    expect(decide(rules, { agent, server, tool })).toMatchObject({ decision, rule })
  })

  test('every decision says why in words', () => {
    const reasons = rows.map(([agent, server, tool]) => decide(rules, { agent, server, tool }).reason)
    expect(reasons.filter(reason => reason.trim() === '')).toEqual([])
  })
})

describe('hierarchical agents', () => {
  const rules = compile({
    team: {
      allow: { servers: ['docs', 'db'], tools: { db: ['query', 'list_*'] } },
      deny: { tools: { docs: ['delete'] } },
    },
    'team.role': {
      allow: { servers: ['*'], tools: { db: ['list_tables', 'drop'] } },
      deny: { tools: { docs: ['write'] } },
    },
    'team.silent': { deny: { servers: ['db'] } },
    'team.a.b': { allow: { servers: ['docs'] }, deny: { tools: { docs: ['x'] } } },
    // Its parent has no entry: there is nothing to inherit and nothing that limits it but its own entry.
    'orphan.role': { allow: { servers: ['docs'] } },
  })

  test.each<Row>([
    ['team.role', 'docs', 'read', 'allow', 'agents["team.role"].allow.servers[0] ("*")', 'both allow'],
    ['team.role', 'db', 'list_tables', 'allow', 'agents["team.role"].allow.tools.db[0] ("list_tables")', 'both allow'],
    ['team.role', 'db', 'query', 'deny', 'agents["team.role"].allow.tools.db', 'only the parent allows'],
    ['team.role', 'db', 'drop', 'deny', 'agents.team.allow.tools.db', 'only the child allows'],
    ['team.role', 'web', 'read', 'deny', 'agents.team.allow.servers', 'the child allows a server too many'],
    ['team.role', 'docs', 'delete', 'deny', 'agents.team.deny.tools.docs[0] ("delete")', 'the parent denies'],
    ['team.role', 'docs', 'write', 'deny', 'agents["team.role"].deny.tools.docs[0] ("write")', 'the child denies'],
    ['team', 'docs', 'write', 'allow', 'agents.team.allow.servers[0] ("docs")', 'a child does not limit its parent'],
    ['team.silent', 'docs', 'read', 'deny', 'agents["team.silent"].allow.servers', 'an entry that allows nothing'],
    ['team.other', 'docs', 'read', 'allow', 'agents.team.allow.servers[0] ("docs")', 'no entry: the parent’s rules'],
    [
      'team.other',
      'docs',
      'delete',
      'deny',
      'agents.team.deny.tools.docs[0] ("delete")',
      'no entry: the parent’s rules',
    ],
    ['team.role.sub', 'docs', 'write', 'deny', 'agents["team.role"].deny.tools.docs[0] ("write")', 'nearest ancestor'],
    ['team.role.sub', 'docs', 'delete', 'deny', 'agents.team.deny.tools.docs[0] ("delete")', 'and all above it'],
    ['team.a', 'docs', 'x', 'allow', 'agents.team.allow.servers[0] ("docs")', 'a gap in the line'],
    ['team.a.b', 'docs', 'x', 'deny', 'agents["team.a.b"].deny.tools.docs[0] ("x")', 'below a gap'],
    ['team.a.b', 'docs', 'delete', 'deny', 'agents.team.deny.tools.docs[0] ("delete")', 'above a gap'],
    ['teamrole', 'docs', 'read', 'deny', 'agents.teamrole', 'no dot, no child'],
    ['team2', 'docs', 'read', 'deny', 'agents.team2', 'a prefix is no parent'],
    ['role.team', 'docs', 'read', 'deny', 'agents["role.team"]', 'the wrong way round'],
    ['.team', 'docs', 'read', 'deny', 'agents[".team"]', 'an empty name is no ancestor'],
    ['orphan.role', 'docs', 'read', 'allow', 'agents["orphan.role"].allow.servers[0] ("docs")', 'no parent'],
    ['orphan', 'docs', 'read', 'deny', 'agents.orphan', 'a child makes no parent'],
  ])('%j on %j, tool %j: %s by %s (%s)', (agent, server, tool, decision, rule) => {
    expect(decide(rules, { agent, server, tool })).toMatchObject({ decision, rule })
  })

  test('the entries that decide, nearest first', () => {
    const namesFor = (agent: string) => entriesFor(rules, agent).map(({ name }) => name)
    expect(namesFor('team.a.b.c')).toEqual(['team.a.b', 'team'])
    expect(namesFor('team.role')).toEqual(['team.role', 'team'])
    expect(namesFor('stranger')).toEqual([])
  })
})

describe('the tools filter of a server’s own entry', () => {
  const rules = compile(
    {
      admin: { allow: { servers: ['*'] } },
      reader: { allow: { servers: ['*'] }, deny: { tools: { '*': ['read_secret'] } } },
    },
    {
      files: { command: 'x', tools: { allow: ['read_*', 'list'], deny: ['read_private*'] } },
      closed: { command: 'x', tools: { allow: [] } },
      open: { command: 'x' },
    },
  )

  test.each<Row>([
    ['admin', 'files', 'read_page', 'allow', 'agents.admin.allow.servers[0] ("*")', 'in the list'],
    ['admin', 'files', 'write', 'deny', 'mcpServers.files.tools.allow', 'not in the list'],
    ['admin', 'files', 'read_private_key', 'deny', 'mcpServers.files.tools.deny[0] ("read_private*")', 'a deny wins'],
    [
      'reader',
      'files',
      'read_secret',
      'deny',
      'agents.reader.deny.tools["*"][0] ("read_secret")',
      'agents stay limited',
    ],
    ['stranger', 'files', 'read_page', 'deny', 'agents.stranger', 'the filter grants nothing'],
    ['admin', 'closed', 'read', 'deny', 'mcpServers.closed.tools.allow', 'an empty list allows nothing'],
    ['admin', 'open', 'write', 'allow', 'agents.admin.allow.servers[0] ("*")', 'no filter'],
    ['admin', 'files', undefined, 'allow', 'agents.admin.allow.servers[0] ("*")', 'the server itself'],
  ])('%j on %j, tool %j: %s by %s (%s)', (agent, server, tool, decision, rule) => {
    expect(decide(rules, { agent, server, tool })).toMatchObject({ decision, rule })
  })
})
