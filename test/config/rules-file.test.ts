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

describe('rules this version cannot enforce', () => {
  test.each(['roles', 'scopes', 'limits'])('%s is refused', key => {
    expect(parse({ [key]: {}, agents: { a: { allow: { servers: ['*'] } } } })).toMatchObject({
      rules: { agents: {} },
      problems: [{ file: 'r.json', path: key }],
    })
  })

  test.each([
    ['a condition', { tool: 'create_issue', when: { repo: 'myorg/*' } }],
    ['an effect', { tool: 'create_issue', effect: 'ask' }],
  ])('%s is refused', (_, entry) => {
    expect(pathsOf({ agents: { a: { allow: { tools: { github: ['get_*', entry] } } } } })).toEqual([
      'agents.a.allow.tools.github[1]',
    ])
  })

  test('an agent may have the name of one of those keys', () => {
    expect(pathsOf({ agents: { roles: {}, limits: {}, tool: {}, when: {}, effect: {} } })).toEqual([])
  })

  test('the other mistakes of the file are listed beside them', () => {
    expect(pathsOf({ limits: {}, agents: { a: { alow: {} } } }).sort()).toEqual(['agents.a.alow', 'limits'])
  })
})
