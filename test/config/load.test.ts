import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type GatewayConfig, loadConfig } from '../../src/config/load.js'
import { ConfigError } from '../../src/config/problem.js'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-load-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const filesIn = () => ({ servers: join(directory, 's.json'), rules: join(directory, 'r.json') })

async function load(servers: string | object, rules: string | object): Promise<GatewayConfig> {
  const files = filesIn()
  const toText = (content: string | object) => (typeof content === 'string' ? content : JSON.stringify(content))
  await writeFile(files.servers, toText(servers))
  await writeFile(files.rules, toText(rules))
  return loadConfig(files, {})
}

const problemsOf = async (loading: Promise<GatewayConfig>) => {
  const error = await loading.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof ConfigError)) throw new Error('expected a ConfigError', { cause: error })
  expect(error.code).toBe('CONFIG_INVALID')
  return error.problems
}

const servers = { mcpServers: { docs: { command: 'x', env: { A: 'b' } } } }
const rules = { agents: { a: { allow: { servers: ['docs'], tools: { docs: ['read'] } } } } }

describe('loadConfig', () => {
  test('returns both files, frozen all the way down', async () => {
    const config = await load(servers, rules)
    expect(config).toMatchObject({ files: filesIn(), servers: [{ name: 'docs' }], rules, warnings: [] })
    expect(thawedIn(config)).toEqual([])
  })

  test('lists the problems of both files at once', async () => {
    const problems = await problemsOf(load({ mcpServers: { a: {} } }, { agents: { a: { alow: {} } } }))
    const { servers: serversFile, rules: rulesFile } = filesIn()
    expect(problems).toMatchObject([
      { file: serversFile, path: 'mcpServers.a' },
      { file: rulesFile, path: 'agents.a.alow' },
    ])
  })

  test('lists the problems of one file when the other is not even JSON', async () => {
    const problems = await problemsOf(load('{', { agents: { a: { alow: {} } } }))
    expect(problems.map(({ path }) => path)).toEqual(['1:2', 'agents.a.alow'])
  })

  test.each([
    ['empty', ''],
    ['null', 'null'],
    ['a directory listing', '<html>'],
  ])('a file that is %s is an error of that file', async (_, text) => {
    const files = new Set((await problemsOf(load(text, text))).map(({ file }) => file))
    expect(files).toEqual(new Set(Object.values(filesIn())))
  })

  test('files that are not there are errors that name them', async () => {
    const { servers: serversFile, rules: rulesFile } = filesIn()
    expect(await problemsOf(loadConfig(filesIn(), {}))).toMatchObject([{ file: serversFile }, { file: rulesFile }])
  })

  test('the fingerprint changes with either file, and not with comments', async () => {
    const { fingerprint } = await load(servers, rules)
    expect((await load(`// hello\n${JSON.stringify(servers)}`, rules)).fingerprint).toBe(fingerprint)
    expect((await load({ mcpServers: {} }, rules)).fingerprint).not.toBe(fingerprint)
    expect((await load(servers, {})).fingerprint).not.toBe(fingerprint)
  })
})

describe('warnings', () => {
  const agent = (entry: object) => ({ agents: { a: entry } })

  test.each<[what: string, rules: object, path: string]>([
    [
      'an allowed server that is not configured',
      agent({ allow: { servers: ['docs', 'gone'] } }),
      'agents.a.allow.servers[1]',
    ],
    ['a denied server that is not configured', agent({ deny: { servers: ['gone'] } }), 'agents.a.deny.servers[0]'],
    [
      'tools of a server that is not configured',
      agent({ deny: { tools: { gone: ['x'] } } }),
      'agents.a.deny.tools.gone',
    ],
    ['a server in another case', agent({ allow: { servers: ['Docs'] } }), 'agents.a.allow.servers[0]'],
    ['an empty allow list', agent({ allow: { servers: ['docs'], tools: { docs: [] } } }), 'agents.a.allow.tools.docs'],
    ['claims for an agent that is not there', { identity: { agents: { gone: { sub: 'x' } } } }, 'identity.agents.gone'],
    ['a fallback that is not there', { defaults: { deny_on_missing_agent: false } }, 'defaults.deny_on_missing_agent'],
  ])('%s', async (_, written, path) => {
    expect((await load(servers, written)).warnings).toMatchObject([{ file: filesIn().rules, path }])
  })

  test.each<[what: string, rules: object]>([
    ['a glob that matches nothing now', agent({ allow: { servers: ['gone-*'] }, deny: { tools: { '*': ['x'] } } })],
    ['claims for a role of an agent', { ...agent({}), identity: { agents: { 'a.b': { sub: 'x' } } } }],
    ['a budget for results', agent({ max_result_tokens: 1_000 })],
    ['an empty deny list', agent({ deny: { tools: { docs: [] } } })],
    ['a fallback that is there', { agents: { default: {} }, defaults: { deny_on_missing_agent: false } }],
  ])('none for %s', async (_, written) => {
    expect((await load(servers, written)).warnings).toEqual([])
  })
})

/** Paths of everything inside that can still be changed. */
function thawedIn(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return []
  const inside = Object.entries(value).flatMap(([key, child]) => thawedIn(child, `${path}.${key}`))
  return Object.isFrozen(value) ? inside : [path, ...inside]
}
