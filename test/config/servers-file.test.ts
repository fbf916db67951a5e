// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of the configuration files look like this
import { describe, expect, test } from 'vitest'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseServersFile } from '../../src/config/servers-file.js'
import type { Env } from '../../src/config/variables.js'

const parseText = (text: string, env: Env = {}) => parseServersFile(parseJsonDocument('s.json', text), env)
const parse = (servers: Record<string, unknown>, env: Env = {}) =>
  parseText(JSON.stringify({ mcpServers: servers }), env)
const problemsOf = (entry: unknown, env: Env = {}) => parse({ a: entry }, env).problems
const serverOf = (entry: unknown, env: Env = {}) => {
  const { servers, problems } = parse({ a: entry }, env)
  expect(problems).toEqual([])
  return servers[0]
}

describe('a server', () => {
  test('over stdio, with its defaults', () => {
    expect(serverOf({ command: 'npx' })).toMatchObject({
      name: 'a',
      transport: 'stdio',
      command: 'npx',
      args: [],
      env: {},
      inheritEnv: [],
      disabled: false,
      timeoutMs: 60_000,
      maxTimeoutMs: 1_800_000,
      startupTimeoutMs: 120_000,
      tools: { deny: [] },
      session: 'shared',
      misconfigured: [],
    })
  })

  test('over HTTP, with its defaults', () => {
    expect(serverOf({ url: 'https://example.com/mcp' })).toMatchObject({
      transport: 'http',
      url: 'https://example.com/mcp',
      headers: {},
      oauth: {},
    })
  })

  test.each([
    [{ command: 'x', type: 'stdio' }, 'stdio'],
    [{ command: 'x', transport: 'stdio' }, 'stdio'],
    [{ url: 'https://x', transport: 'http' }, 'http'],
    [{ url: 'https://x', type: 'http' }, 'http'],
    [{ url: 'https://x', type: 'streamable-http' }, 'http'],
    [{ url: 'https://x', transport: 'sse' }, 'sse'],
  ])('%j is reached by %s', (entry, transport) => {
    expect(serverOf(entry)?.transport).toBe(transport)
  })

  test('keeps every key the format has', () => {
    const common = { description: 'd', disabled: true, timeoutMs: 5, maxTimeoutMs: 6, startupTimeoutMs: 7 }
    const more = { ...common, tools: { allow: ['a*'], deny: ['b'] }, session: 'per-user' }
    const stdio = { ...more, command: 'x', args: ['-y'], env: { A: 'b' }, cwd: '/', inheritEnv: ['LANG'] }
    const oauth = {
      clientId: 'abc',
      clientSecret: 'def',
      scopes: ['mcp'],
      callbackPort: 8976,
      redirectUri: 'http://127.0.0.1:8976/callback',
      resource: 'https://x/mcp',
      issuer: 'https://idp.example',
      clientMetadataUrl: 'https://x/client.json',
      tokenEndpointAuthMethod: 'client_secret_basic',
    }
    const http = { ...more, url: 'https://x/mcp', headers: { 'X-Key': 'v' }, oauth }
    expect(serverOf(stdio)).toMatchObject(stdio)
    expect(serverOf(http)).toMatchObject(http)
    expect(serverOf({ url: 'https://x', oauth: false })).toMatchObject({ oauth: false })
  })

  test('has a fingerprint that changes with its configuration and with nothing else', () => {
    const fingerprint = (args: string[], env: Env = {}) => serverOf({ command: 'x', args }, env)?.fingerprint
    expect(fingerprint(['1'])).toBe(fingerprint(['1'], { OTHER: '2' }))
    expect(fingerprint(['1'])).not.toBe(fingerprint(['2']))
    expect(fingerprint(['${A}'], { A: '1' })).not.toBe(fingerprint(['${A}'], { A: '2' }))
  })
})

describe('a mistake names its path', () => {
  test.each<[mistake: string, entry: unknown, path: string]>([
    ['both command and url', { command: 'x', url: 'https://x' }, ''],
    ['neither command nor url', { description: 'x' }, ''],
    ['no object', 'npx', ''],
    ['null', null, ''],
    ['a list', [], ''],
    ['both type and transport', { url: 'https://x', type: 'http', transport: 'sse' }, '.type'],
    ['a transport nobody knows', { url: 'https://x', transport: 'ws' }, '.transport'],
    ['a transport that needs a URL', { command: 'x', type: 'http' }, '.type'],
    ['a transport that needs a command', { url: 'https://x', transport: 'stdio' }, '.transport'],
    ['an empty command', { command: '' }, '.command'],
    ['a command that is no text', { command: ['npx'] }, '.command'],
    ['an argument that is no text', { command: 'x', args: ['a', 1] }, '.args[1]'],
    ['an env value that is no text', { command: 'x', env: { PORT: 1 } }, '.env.PORT'],
    ['a URL that is none', { url: 'example.com/mcp' }, '.url'],
    ['a URL of another kind', { url: 'file:///etc/passwd' }, '.url'],
    ['a header that ends the header', { url: 'https://x', headers: { A: 'b\r\nC: d' } }, '.headers.A'],
    ['a header name that is none', { url: 'https://x', headers: { 'a b': 'c' } }, '.headers["a b"]'],
    ['a time that is none', { command: 'x', timeoutMs: 0 }, '.timeoutMs'],
    ['a cap below the time', { command: 'x', timeoutMs: 10, maxTimeoutMs: 5 }, '.maxTimeoutMs'],
    ['a session nobody knows', { command: 'x', session: 'none' }, '.session'],
    [
      'one wrong key of oauth among others',
      { url: 'https://x', oauth: { callbackPort: 1, scope: [] } },
      '.oauth.scope',
    ],
    ['a scope that is none', { url: 'https://x', oauth: { clientId: 'x', scopes: 'a' } }, '.oauth.scopes'],
    ['a port that is none', { url: 'https://x', oauth: { callbackPort: 70_000 } }, '.oauth.callbackPort'],
  ])('%s', (_, entry, path) => {
    expect(problemsOf(entry)).toMatchObject([{ file: 's.json', path: `mcpServers.a${path}` }])
  })

  test.each(['a/b', 'a\\b', 'a\nb', '', 'x'.repeat(65)])('the server name %j', name => {
    expect(parse({ [name]: { command: 'x' } }).problems).toHaveLength(1)
  })

  test.each([
    ['no object', '[]', ''],
    ['null', 'null', ''],
    ['no mcpServers', '{}', 'mcpServers'],
    ['mcpServers that is a list', '{ "mcpServers": [] }', 'mcpServers'],
  ])('%s', (_, text, path) => {
    expect(parseText(text).problems).toMatchObject([{ file: 's.json', path }])
  })

  test('all mistakes are found at once, and what is right is kept', () => {
    const { servers, problems } = parse({
      a: { command: '', args: [1] },
      b: { command: 'x' },
      c: { url: 'nope' },
      d: { command: 'x', disabeld: true },
    })
    expect(problems.map(({ path }) => path).sort()).toEqual([
      'mcpServers.a.args[0]',
      'mcpServers.a.command',
      'mcpServers.c.url',
      'mcpServers.d.disabeld',
    ])
    expect(servers.map(({ name }) => name)).toEqual(['b'])
  })

  test('a duplicate name and __proto__ are mistakes', () => {
    const text =
      '{ "mcpServers": { "a": { "command": "x" }, "a": { "command": "y" }, "__proto__": { "command": "z" } } }'
    expect(parseText(text).problems.map(({ path }) => path)).toEqual(['mcpServers.a', 'mcpServers.__proto__'])
  })
})

describe('a key nobody knows is answered with the nearest that would be right there', () => {
  test.each<[entry: Record<string, unknown>, path: string, nearest: string]>([
    [{ command: 'x', arg: [] }, '.arg', 'args'],
    [{ command: 'x', disabeld: true }, '.disabeld', 'disabled'],
    [{ url: 'https://x', header: {} }, '.header', 'headers'],
    [{ url: 'https://x', tools: { alow: [] } }, '.tools.alow', 'allow'],
    [{ url: 'https://x', oauth: { clientID: 'x' } }, '.oauth.clientID', 'clientId'],
  ])('%j', (entry, path, nearest) => {
    const problems = problemsOf(entry)
    expect(problems).toMatchObject([{ path: `mcpServers.a${path}` }])
    expect(problems[0]?.message).toContain(`"${nearest}"`)
  })

  test('a key of the other transport is not suggested to itself', () => {
    expect(problemsOf({ command: 'x', headers: {} })[0]?.message).not.toContain('"headers"')
    expect(problemsOf({ url: 'https://x', env: {} })[0]?.message).not.toContain('"env"')
  })

  test('at the top', () => {
    const { problems } = parseText('{ "mcpServer": {} }')
    expect(problems).toContainEqual(
      expect.objectContaining({ path: 'mcpServer', message: expect.stringContaining('"mcpServers"') }),
    )
  })
})

describe('variables', () => {
  test('are expanded in every text, however deep', () => {
    const env = { A: '1', HOST: 'example.com' }
    expect(serverOf({ command: '${A}', args: ['x${A}'], env: { B: '${env:A}' }, cwd: '/${A}' }, env)).toMatchObject({
      command: '1',
      args: ['x1'],
      env: { B: '1' },
      cwd: '/1',
    })
    const http = { url: 'https://${HOST}/mcp', headers: { A: '${A}' }, oauth: { scopes: ['${A}'] } }
    expect(serverOf(http, env)).toMatchObject({
      url: 'https://example.com/mcp',
      headers: { A: '1' },
      oauth: { scopes: ['1'] },
    })
  })

  test('an unset one condemns its own server only, and names file, path and variable', () => {
    const { servers, problems } = parse({
      good: { command: 'x' },
      bad: { command: 'x', args: ['-k', '${MISSING_KEY}'] },
    })
    expect(problems).toEqual([])
    expect(servers).toMatchObject([
      { name: 'good', misconfigured: [] },
      { name: 'bad', misconfigured: [{ file: 's.json', path: 'mcpServers.bad.args[1]' }] },
    ])
    expect(servers[1]?.misconfigured[0]?.message).toContain('MISSING_KEY')
  })

  test.each<[where: string, entry: Record<string, unknown>, path: string]>([
    ['the command', { command: '${NO}' }, '.command'],
    ['the URL', { url: '${NO}', description: 'd' }, '.url'],
    ['a header', { url: 'https://x', headers: { Authorization: 'Bearer ${NO}' } }, '.headers.Authorization'],
    ['an oauth URL', { url: 'https://x', oauth: { issuer: '${NO}' } }, '.oauth.issuer'],
    ['a choice', { url: 'https://x', session: '${NO}' }, '.session'],
  ])('unset in %s', (_, entry, path) => {
    expect(serverOf(entry)).toMatchObject({ name: 'a', misconfigured: [{ path: `mcpServers.a${path}` }] })
  })

  test('another mistake beside an unset variable is still a mistake', () => {
    expect(problemsOf({ url: '${NO}', timeoutMs: -1 })).toMatchObject([{ path: 'mcpServers.a.timeoutMs' }])
  })
})

describe('secrets', () => {
  test.each<[what: string, entry: Record<string, unknown>, secret: string]>([
    ['a value from the environment', { command: 'x', args: ['${FROM_ENV}'] }, 'value-from-env'],
    ['a header', { url: 'https://x', headers: { 'X-Api': 'plain-value' } }, 'plain-value'],
    ['a token behind its scheme', { url: 'https://x', headers: { Authorization: 'Bearer abcdef' } }, 'abcdef'],
    ['env named like a secret', { command: 'x', env: { API_KEY: 'literal-key' } }, 'literal-key'],
    ['a client secret', { url: 'https://x', oauth: { clientSecret: 'cs' } }, 'cs'],
  ])('%s', (_, entry, secret) => {
    expect(parse({ a: entry }, { FROM_ENV: 'value-from-env' }).secrets).toContain(secret)
  })

  test('a setting is none', () => {
    expect(parse({ a: { command: 'x', env: { MODE: 'production' } } }).secrets).toEqual([])
  })
})
