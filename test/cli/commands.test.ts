import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gateway, type RunOptions } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'

const rules = {
  agents: {
    reader: { allow: { servers: ['shop', 'absent', 'login'], tools: { shop: ['query', 'failing', 'silent'] } } },
    default: { allow: { servers: ['shop'] } },
  },
  defaults: { deny_on_missing_agent: false },
}

let files: Awaited<ReturnType<typeof writeFiles>>
let run: (args: readonly string[], options?: RunOptions) => ReturnType<typeof gateway>
beforeAll(async () => {
  const servers = {
    shop: nodeServer('shop.js', { description: 'Sells things' }),
    absent: { command: 'no-such-command-anywhere' },
    unset: nodeServer('shop.js', { env: { KEY: '${NOT_SET_ANYWHERE}' } }),
  }
  files = await writeFiles({ servers, rules })
  run = (args, options = {}) =>
    gateway(args, { cwd: files.directory, ...options, env: { ...files.env, ...options.env } })
})
afterAll(() => files.close())

describe('usage', () => {
  const commands = [
    'serve',
    'stdio',
    'connect',
    'status',
    'doctor',
    'tools',
    'call',
    'explain',
    'check',
    'init',
    'token',
  ]

  test('--help lists every command, and every command has its own', async () => {
    const { status, stdout } = await run(['--help'])
    expect(status).toBe(0)
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^ {2}${command}\\b`, 'm'))
    const helps = await Promise.all(commands.map(command => run([command, '--help'])))
    for (const help of helps)
      expect(help).toMatchObject({ status: 0, stdout: expect.stringContaining('Usage: gateway') })
  })

  test('--version is the package version', async () => {
    const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'))
    expect((await run(['--version'])).stdout.trim()).toBe(version)
  })

  test.each([
    [['no-such-command']],
    [['call', 'shop']],
    [['serve', '--port', '99999']],
    [['token', 'issue']],
    [['token', 'issue', '--agent', 'a', '--ttl', 'soon']],
  ])('%j is a usage error', async args => {
    const { status, stdout, stderr } = await run(args)
    expect([status, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^error: /)
  })
})

describe('check', () => {
  test('prints one problem a line with file, path and message, and exits 78', async () => {
    const config = join(files.directory, 'bad.json')
    await writeFile(
      config,
      '{ "mcpServers": { "a": { "comand": "x", "command": "y" }, "b": { "command": "x", "url": "http://h" }, "a": {} } }',
    )
    const { status, stdout } = await run(['check', '--config', config])
    expect(status).toBe(78)
    expect(stdout.trim().split('\n')).toEqual([
      `${config}:mcpServers.a: is there twice: rename or remove one of the two`,
      `${config}:mcpServers.a.comand: is not a key the gateway knows, did you mean "command"?`,
      `${config}:mcpServers.b: has both "command" and "url": keep the one that reaches the server`,
    ])
  })

  test('names file, path and variable of an unset one', async () => {
    const { status, stdout } = await run(['check'])
    expect(status).toBe(78)
    expect(stdout).toContain(`${files.config}:mcpServers.unset.env.KEY: the variable NOT_SET_ANYWHERE is not set`)
    expect(stdout).toContain(
      `${files.rules}:agents.reader.allow.servers[2]: warning: the server "login" is not configured`,
    )
  })

  test('says ok when all is well', async () => {
    expect(await run(['check'], { env: { NOT_SET_ANYWHERE: 'x' } })).toMatchObject({
      status: 0,
      stdout: expect.stringMatching(/^ok: 3 servers .*2 agents/m),
    })
  })

  test.each([
    ['missing', []],
    ['named but missing', ['--config', '/nonexistent/x.json']],
  ])('a file that is %s exits 78 with what to do', async (_, args) => {
    const { status, stdout } = await run(['check', ...args], { cwd: '/', env: { HOME: '/nonexistent' } })
    expect(status).toBe(78)
    expect(stdout).toMatch(/gateway init|cannot be read/)
  })
})

describe('explain', () => {
  test('exits 0 for allow and 1 for deny, with the rule', async () => {
    expect(await run(['explain', 'reader', 'shop', 'query'])).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('agents.reader.allow.tools.shop[0] ("query")'),
    })
    expect(await run(['explain', 'reader', 'shop', 'drop_table'])).toMatchObject({
      status: 1,
      stdout: expect.stringMatching(/^deny: /),
    })
    expect(await run(['explain', 'stranger', 'shop'])).toMatchObject({ status: 1 })
  })

  test('--json gives decision, rule and reason', async () => {
    const { stdout } = await run(['explain', 'reader', 'shop', 'query', '--json'])
    expect(JSON.parse(stdout)).toEqual({
      decision: 'allow',
      rule: 'agents.reader.allow.tools.shop[0] ("query")',
      reason: expect.any(String),
    })
  })

  describe('roles, conditions and scopes', () => {
    let file: string
    beforeAll(async () => {
      file = join(files.directory, 'conditional.json')
      const home = '/home/${principal.name}/**'
      const conditional = {
        agents: {
          clerk: {
            allow: {
              servers: ['shop'],
              tools: {
                shop: [
                  { tool: 'query', when: { sql: 'select *' } },
                  { tool: 'drop_table', effect: 'ask' },
                ],
              },
            },
          },
        },
        roles: { writer: { allow: { servers: ['shop'], tools: { shop: [{ tool: 'note', when: { text: home } }] } } } },
        scopes: { 'shop/drop_*': ['mcp:shop:admin'], 'gone/*': ['x'] },
        identity: { roles: { writer: { 'realm_access.roles': 'author' } } },
      }
      await writeFile(file, JSON.stringify(conditional))
    })
    const explain = async (...words: string[]) => {
      const { status, stdout } = await run(['explain', 'clerk', 'shop', ...words, '--json', '--rules', file])
      return [status, JSON.parse(stdout)]
    }

    test('--args', async () => {
      const rule = 'agents.clerk.allow.tools.shop[0] ("query")'
      const condition = 'sql: "select *"'
      const reason = expect.any(String)
      expect(await explain('query', '--args', '{"sql":"select 1"}')).toEqual([
        0,
        { decision: 'allow', rule, reason, condition },
      ])
      expect(await explain('query', '--args', '{"sql":"drop"}')).toEqual([
        1,
        { decision: 'deny', rule, reason, condition, arguments: ['sql'] },
      ])
      expect(await explain('query')).toEqual([0, { decision: 'allow', rule, reason, condition, depends_on: [rule] }])
    })

    test('ask, and the scopes a token needs', async () => {
      expect(await explain('drop_table')).toMatchObject([1, { decision: 'ask', scopes: ['mcp:shop:admin'] }])
      expect(await explain('drop_table', '--claims', '{"scope":"mcp"}')).toMatchObject([
        1,
        { missing_scopes: ['mcp:shop:admin'] },
      ])
      const words = ['explain', 'clerk', 'shop', 'drop_table', '--rules', file]
      const { stdout } = await run(words)
      expect(stdout).toMatch(/^ask: a person has to confirm/)
      expect(stdout).toContain('scopes: a token needs mcp:shop:admin')
    })

    test('--roles and --claims', async () => {
      const asked = ['note', '--roles', 'writer, other', '--args', '{"text":"/home/ann/x"}']
      expect(await explain(...asked, '--claims', '{"preferred_username":"ann"}')).toMatchObject([
        0,
        { rule: 'roles.writer.allow.tools.shop[0] ("note")' },
      ])
      expect(await explain(...asked, '--claims', '{"preferred_username":"bob"}')).toMatchObject([
        1,
        { decision: 'deny' },
      ])
      expect(await explain('note')).toMatchObject([1, { decision: 'deny' }])
    })

    test('--claims give the roles that a token with them has', async () => {
      const asked = (author: string) => {
        const claims = { preferred_username: 'ann', realm_access: { roles: [author] } }
        return explain('note', '--args', '{"text":"/home/ann/x"}', '--claims', JSON.stringify(claims))
      }
      expect(await asked('author')).toMatchObject([0, { rule: 'roles.writer.allow.tools.shop[0] ("note")' }])
      expect(await asked('reader')).toMatchObject([1, { decision: 'deny' }])
    })

    test.each([
      ['--args', 'no json'],
      ['--args', '[]'],
      ['--claims', '@no-such-file'],
    ])('%s %s is a usage error', async (...flag) => {
      expect(await run(['explain', 'clerk', 'shop', 'query', ...flag])).toMatchObject({ status: 2, stdout: '' })
    })

    test('check names what can never match', async () => {
      const { stdout } = await run(['check', '--rules', file])
      expect(stdout).toContain(`${file}:scopes["gone/*"]: warning: no configured server matches "gone"`)
    })
  })
})

describe('tools and call', () => {
  test('tools lists what the agent may call, servers that are down on stderr', async () => {
    const { status, stdout, stderr } = await run(['tools', '--agent', 'reader'])
    expect(status).toBe(0)
    expect(stdout.split('\n').map(line => line.trim().split(/\s+/).slice(0, 2).join(' '))).toEqual([
      'SERVER TOOL',
      'shop query',
      'shop failing',
      'shop silent',
      '',
    ])
    expect(stderr).toContain('"absent"')
  })

  test('tools NAME --json gives full definitions', async () => {
    const { stdout } = await run(['tools', 'shop', '--json'])
    const { tools } = JSON.parse(stdout)
    expect(tools).toContainEqual(
      expect.objectContaining({ server: 'shop', name: 'query', inputSchema: expect.any(Object) }),
    )
  })

  test.each<[string, string[], RunOptions]>([
    ['as JSON', ['--args', '{"sql":"a"}'], {}],
    ['from stdin', ['--args', '-'], { input: '{"sql":"a"}' }],
    ['from a file', ['--args', '@args.json'], {}],
  ])('call takes arguments %s', async (_, args, options) => {
    await writeFile(join(files.directory, 'args.json'), '{"sql":"a"}')
    const { status, stdout } = await run(['call', 'shop', 'query', ...args], options)
    expect(status).toBe(0)
    expect(JSON.parse(stdout).structuredContent).toEqual({ name: 'query', arguments: { sql: 'a' }, meta: {} })
  })

  test.each<[string, string[], number]>([
    ['the tool failed', ['shop', 'failing'], 1],
    ['denied', ['shop', 'drop_table', '--agent', 'reader'], 1],
    ['an unknown agent', ['shop', 'query', '--agent', 'stranger'], 1],
    ['bad arguments', ['shop', 'query', '--args', '{}'], 1],
    ['unavailable', ['absent', 'x', '--agent', 'reader'], 69],
  ])('call exits by what happened: %s', async (_, args, expected) => {
    const { status, stdout } = await run(['call', ...args])
    expect(status).toBe(expected)
    expect(JSON.parse(stdout)).toMatchObject({ isError: true })
  })

  test('call with arguments that are no JSON says so', async () => {
    expect(await run(['call', 'shop', 'query', '--args', 'sql=1'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: expect.stringContaining('--args is not valid JSON'),
    })
  })
})

test('status shows every server, the broken ones with the reason', async () => {
  const { status, stdout } = await run(['status', '--json'])
  expect(status).toBe(0)
  const { servers, config } = JSON.parse(stdout)
  expect(config).toEqual({ last_reload: expect.any(String) })
  expect(servers).toEqual([
    {
      name: 'shop',
      transport: 'stdio',
      state: 'ready',
      era: 'legacy',
      tools: 14,
      auth: { kind: 'none' },
      pid: expect.any(Number),
    },
    {
      name: 'absent',
      transport: 'stdio',
      state: 'cooling',
      auth: { kind: 'none' },
      last_error: expect.stringContaining('no-such-command-anywhere'),
    },
    {
      name: 'unset',
      transport: 'stdio',
      state: 'misconfigured',
      auth: { kind: 'none' },
      last_error: expect.stringContaining('NOT_SET_ANYWHERE'),
    },
  ])
  expect((await run(['status'])).stdout).toMatch(/^SERVER +STATE/)
})

describe('token issue', () => {
  test('prints the token alone', async () => {
    const { status, stdout } = await run(['token', 'issue', '--agent', 'reader', '--ttl', '15m', '--scope', 'a b'])
    expect(status).toBe(0)
    const token = stdout.trim()
    expect(stdout).toBe(`${token}\n`)
    expect(decodeProtectedHeader(token)).toMatchObject({ alg: 'ES256', typ: 'at+jwt' })
    const { agent_id, scope, iat = 0, exp } = decodeJwt(token)
    expect({ agent_id, scope, exp }).toEqual({ agent_id: 'reader', scope: 'a b', exp: iat + 900 })
  })

  test('is made out to the public URL when there is one', async () => {
    const { stdout } = await run(['token', 'issue', '--agent', 'reader'], {
      env: { MCP_RESOURCE_URI: 'https://g.example.com/mcp' },
    })
    expect(decodeJwt(stdout.trim()).aud).toBe('https://g.example.com/mcp')
  })

  test('warns about an agent the rules do not know', async () => {
    const { status, stderr } = await run(['token', 'issue', '--agent', 'reeder'])
    expect(status).toBe(0)
    expect(stderr).toContain('has no agent "reeder"')
  })

  test('the key is private', async () => {
    for (const name of ['credentials.json', 'credentials.key']) {
      expect((await stat(join(files.directory, 'state', name))).mode & 0o777).toBe(0o600)
    }
  })
})
