import { describe, expect, test } from 'vitest'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'

const parse = (rules: unknown) => parseRulesFile(parseJsonDocument('r.json', JSON.stringify(rules)))
const pathsOf = (rules: unknown) => parse(rules).problems.map(({ path }) => path)

describe('a rules file', () => {
  test('is read as it is written', () => {
    const rules = {
      agents: {
        'team.role': {
          allow: { servers: ['a', 'b-*'], tools: { a: ['x', 'y_*'], 'b-*': [] } },
          deny: { servers: ['b-2'], tools: { '*': ['drop_*'] } },
          expose: 'direct',
          max_result_tokens: 1000,
        },
        default: {},
      },
      defaults: { deny_on_missing_agent: false },
    }
    expect(parse(rules)).toEqual({ rules, problems: [] })
  })

  test.each([
    ['an empty object', {}],
    ['no agents', { agents: {} }],
    ['empty defaults', { defaults: {} }],
  ])('grants nothing by default: %s', (_, rules) => {
    expect(parse(rules)).toEqual({ rules: { agents: {}, defaults: { deny_on_missing_agent: true } }, problems: [] })
  })
})

describe('a mistake names its path', () => {
  test.each<[mistake: string, rules: unknown, path: string]>([
    ['no object', [], ''],
    ['null', null, ''],
    ['agents that are a list', { agents: [] }, 'agents'],
    ['an agent that is null', { agents: { a: null } }, 'agents.a'],
    ['a text for a list', { agents: { a: { allow: { servers: 'x' } } } }, 'agents.a.allow.servers'],
    ['tools that are a list', { agents: { a: { deny: { tools: ['x'] } } } }, 'agents.a.deny.tools'],
    ['a tool that is a number', { agents: { a: { allow: { tools: { s: ['x', 1] } } } } }, 'agents.a.allow.tools.s[1]'],
    ['an empty pattern', { agents: { a: { deny: { servers: [''] } } } }, 'agents.a.deny.servers[0]'],
    ['expose nobody knows', { agents: { a: { expose: 'all' } } }, 'agents.a.expose'],
    ['a flag that is a text', { defaults: { deny_on_missing_agent: 'no' } }, 'defaults.deny_on_missing_agent'],
  ])('%s', (_, rules, path) => {
    expect(parse(rules).problems).toMatchObject([{ file: 'r.json', path }])
  })

  test.each(['a*', 'a b', '', '.a', 'a.', 'a..b', '[a]'])('the agent name %j', name => {
    expect(parse({ agents: { [name]: { allow: { servers: ['*'] } } } })).toMatchObject({
      rules: { agents: {} },
      problems: [{ file: 'r.json' }],
    })
  })

  test('a duplicate agent and __proto__ are mistakes', () => {
    const text = '{ "agents": { "a": { "deny": { "servers": ["*"] } }, "a": {}, "__proto__": {} } }'
    const { problems } = parseRulesFile(parseJsonDocument('r.json', text))
    expect(problems.map(({ path }) => path)).toEqual(['agents.a', 'agents.__proto__'])
  })
})

describe('a key nobody knows is answered with the nearest that would be right there', () => {
  test.each<[rules: unknown, path: string, nearest: string]>([
    [{ agent: {} }, 'agent', 'agents'],
    [{ agents: { a: { alow: {} } } }, 'agents.a.alow', 'allow'],
    [{ agents: { a: { allow: { server: [] } } } }, 'agents.a.allow.server', 'servers'],
    [{ defaults: { deny_on_missing: true } }, 'defaults.deny_on_missing', 'deny_on_missing_agent'],
  ])('%j', (rules, path, nearest) => {
    const { problems } = parse(rules)
    expect(problems).toMatchObject([{ path }])
    expect(problems[0]?.message).toContain(`"${nearest}"`)
  })

  test('a key of another level is not suggested to itself', () => {
    expect(parse({ agents: { a: { tools: {} } } }).problems[0]?.message).not.toContain('"tools"')
  })
})

test('an agent may have the name of a section', () => {
  expect(pathsOf({ agents: { roles: {}, limits: {}, identity: {}, tool: {}, when: {}, effect: {} } })).toEqual([])
})

describe('limits', () => {
  test('are read for agents, servers, tools and principals', () => {
    const limits = {
      agents: { reader: { requestsPerMinute: 60, concurrent: 4 } },
      servers: { 'db-*': { concurrent: 2 } },
      tools: { 'github/delete_*': { requestsPerMinute: 1 } },
      principals: { '*': { requestsPerMinute: 600 } },
    }
    expect(parse({ limits, auditRequired: true })).toMatchObject({
      rules: { limits, auditRequired: true },
      problems: [],
    })
  })

  test.each<[limits: unknown, path: string]>([
    [{ agent: {} }, 'limits.agent'],
    [{ agents: { a: {} } }, 'limits.agents.a'],
    [{ agents: { a: { requestsPerMinut: 1 } } }, 'limits.agents.a.requestsPerMinut'],
    [{ agents: { a: { requestsPerMinute: 0 } } }, 'limits.agents.a.requestsPerMinute'],
    [{ agents: { a: { concurrent: 1.5 } } }, 'limits.agents.a.concurrent'],
    [{ servers: { a: { concurrent: 'many' } } }, 'limits.servers.a.concurrent'],
  ])('%j', (limits, path) => {
    expect(pathsOf({ limits })).toContain(path)
  })
})

describe('roles, conditions and scopes', () => {
  test('are read as they are written', () => {
    const access = {
      allow: {
        servers: ['github'],
        tools: {
          github: [
            'get_*',
            { tool: 'create_issue', when: { repo: 'myorg/*', 'labels[*]': ['a', 'b'], draft: true }, effect: 'ask' },
            { tool: '*', annotations: { readOnlyHint: true } },
            { tool: 'write', when: { '["a.b"][0].c': '/home/${principal.name}/**' }, effect: 'allow' },
          ],
        },
      },
      deny: { tools: { github: [{ tool: 'merge', when: { branch: 'main', count: 3 } }] } },
    }
    const rules = {
      agents: { a: access },
      roles: { 'any name*': access },
      scopes: { 'github/delete_*': ['mcp:github:admin'], '*/a/b': ['x', 'y'] },
      defaults: { deny_on_missing_agent: true },
    }
    expect(parse(rules)).toEqual({ rules, problems: [] })
  })

  const inAllow = (entry: unknown) => ({ agents: { a: { allow: { tools: { s: [entry] } } } } })
  const inDeny = (entry: unknown) => ({ agents: { a: { deny: { tools: { s: [entry] } } } } })
  const entry = 'agents.a.allow.tools.s[0]'

  test.each<[rules: unknown, path: string, message: string]>([
    [inAllow(1), entry, 'neither the name or glob of a tool'],
    [inAllow({ tol: 'x' }), `${entry}.tol`, 'did you mean "tool"'],
    [inAllow({ tool: 'x', wen: {} }), `${entry}.wen`, 'did you mean "when"'],
    [inAllow({ tool: 'x', effect: 'deny' }), `${entry}.effect`, '"allow"|"ask"'],
    [
      inDeny({ tool: 'x', effect: 'ask' }),
      'agents.a.deny.tools.s[0].effect',
      'has no place in a list of what is denied',
    ],
    [inAllow({ tool: 'x', when: {} }), `${entry}.when`, 'is empty'],
    [inAllow({ tool: 'x', when: { a: [] } }), `${entry}.when.a`, 'can never match'],
    [inAllow({ tool: 'x', when: { a: null } }), `${entry}.when.a`, 'neither'],
    [inAllow({ tool: 'x', when: { a: { b: 1 } } }), `${entry}.when.a`, 'neither'],
    [inAllow({ tool: 'x', when: { a: '' } }), `${entry}.when.a`, ''],
    [inAllow({ tool: 'x', when: { 'a[b]': 'x' } }), `${entry}.when["a[b]"]`, 'not a path into the arguments'],
    [inAllow({ tool: 'x', when: { 'a..b': 'x' } }), `${entry}.when["a..b"]`, 'not a path into the arguments'],
    [inAllow({ tool: 'x', when: { '': 'x' } }), `${entry}.when[""]`, 'not a path into the arguments'],
    [inAllow({ tool: 'x', when: { '.a': 'x' } }), `${entry}.when[".a"]`, 'not a path into the arguments'],
    [inAllow({ tool: 'x', when: { a: '${principal.nam}' } }), `${entry}.when.a`, 'placeholder nobody knows'],
    [inAllow({ tool: 'x', when: { a: ['y', '${HOME}/x'] } }), `${entry}.when.a[1]`, 'placeholder nobody knows'],
    [inAllow({ tool: 'x', when: { a: '${principal.claims}' } }), `${entry}.when.a`, 'placeholder nobody knows'],
    [inAllow({ tool: 'x', when: { a: '/a/../b' } }), `${entry}.when.a`, 'can never match'],
    [inAllow({ tool: 'x', when: { a: '/a**/b' } }), `${entry}.when.a`, 'whole segments'],
    [inAllow({ tool: 'x', annotations: {} }), `${entry}.annotations`, 'is empty'],
    [inAllow({ tool: 'x', annotations: { readOnly: true } }), `${entry}.annotations.readOnly`, '"readOnlyHint"'],
    [{ roles: { r: { alow: {} } } }, 'roles.r.alow', '"allow"'],
    [{ role: {} }, 'role', '"roles"'],
    [{ scopes: { github: ['x'] } }, 'scopes.github', '"server/tool"'],
    [{ scopes: { 'a/b': [] } }, 'scopes["a/b"]', ''],
    [{ scopes: { 'a/b': ['two words'] } }, 'scopes["a/b"][0]', 'not a scope'],
  ])('%j is a mistake at %s', (rules, path, message) => {
    const { problems } = parse(rules)
    expect(problems.map(problem => problem.path)).toContain(path)
    expect(problems.find(problem => problem.path === path)?.message).toContain(message)
  })
})
