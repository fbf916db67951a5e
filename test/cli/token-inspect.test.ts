import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gateway, type RunOptions } from '../fixtures/cli.js'
import { writeFiles } from '../fixtures/gateway.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'

const RESOURCE = 'https://gateway.example.com/mcp'
const SECRET = 'the secret of the introspection'

let issuer: TestIssuer
let files: Awaited<ReturnType<typeof writeFiles>>
let env: Record<string, string | undefined>
beforeAll(async () => {
  const active = { active: true, sub: 'ann', aud: RESOURCE, agent_id: 'team', email: 'ann@example.com' }
  issuer = await openIssuer({ path: '/realms/mcp', introspection: { 'opaque-good': active, 'opaque-broken': 500 } })
  const introspection = { endpoint: `${issuer.issuer}/introspect`, clientId: 'gateway', clientSecret: '${SECRET}' }
  const identity = {
    issuers: [{ issuer: issuer.issuer, requiredClaims: ['email'], introspection }],
    agents: { team: { groups: 'mcp-*' } },
  }
  files = await writeFiles({ servers: {}, rules: { agents: { team: { allow: { servers: ['*'] } } }, identity } })
  env = { ...files.env, MCP_RESOURCE_URI: RESOURCE, SECRET }
})
afterAll(async () => {
  await issuer.stop()
  await files.close()
})

const run = (args: readonly string[], options: RunOptions = {}) =>
  gateway(args, { cwd: files.directory, ...options, env: { ...env, ...options.env } })

const good = { aud: RESOURCE, email: 'ann@example.com', groups: ['mcp-users'] }

interface Report {
  readonly ok: boolean
  readonly checks: readonly { check: string; ok: boolean; got: string; wanted: string; change?: string }[]
}

async function inspect(token: string, flags: readonly string[] = []) {
  const { status, stdout, stderr } = await run(['token', 'inspect', '-', '--json', ...flags], { input: `${token}\n` })
  expect(stdout + stderr).not.toContain(token)
  const report = JSON.parse(stdout) as Report
  expect(status).toBe(report.ok ? 0 : 1)
  return { ...report, failed: report.checks.filter(({ ok }) => !ok) }
}

describe('token inspect', () => {
  test('has a line for every check of a good token', async () => {
    const token = await issuer.sign(good)
    const { status, stdout } = await run(['token', 'inspect', token])
    expect(status).toBe(0)
    const lines = stdout.trim().split('\n')
    expect(lines.map(line => line.split(/\s+/).slice(0, 2).join(' '))).toEqual(
      ['signature', 'iss', 'aud', 'exp', 'nbf', 'agent'].map(check => `ok ${check}`),
    )
    expect(stdout).not.toContain(token)
    expect(issuer.introspected).toEqual([])
  })

  const hour = 3600
  const now = Math.floor(Date.now() / 1000)
  test.each<[check: string, claims: Record<string, unknown>, change: string]>([
    ['aud', { aud: 'my-client' }, 'OAUTH_AUDIENCE'],
    ['aud', { aud: `${RESOURCE}/` }, `ask the issuer for a token for ${RESOURCE}`],
    ['exp', { exp: now - hour }, 'get a new token'],
    ['nbf', { nbf: now + hour }, 'clocks'],
    ['email', { email: undefined }, 'requiredClaims'],
    ['agent', { groups: ['others'] }, 'identity.agents'],
    ['agent', { agent_id: 'stranger' }, 'add it to "agents"'],
  ])('names what is wrong with %s: %j', async (check, claims, change) => {
    const { failed } = await inspect(await issuer.sign({ ...good, ...claims }))
    expect(failed).toEqual([expect.objectContaining({ check, change: expect.stringContaining(change) })])
  })

  test('of nothing says that there is none', async () => {
    const { status, stdout, stderr } = await run(['token', 'inspect', '-'], { input: 'Bearer \n' })
    expect([status, stdout, stderr]).toEqual([1, '', expect.stringContaining('there is no token')])
  })

  test('finds everything at once', async () => {
    const token = await issuer.sign({ aud: 'x', exp: 1, nbf: now + hour }, { signer: await issuer.createSigner() })
    const { failed } = await inspect(token)
    expect(failed.map(({ check }) => check)).toEqual(['signature', 'aud', 'exp', 'nbf', 'email', 'agent'])
  })

  test('of another issuer says which to trust', async () => {
    const { failed } = await inspect(await issuer.sign({ ...good, iss: `${issuer.issuer}/` }))
    expect(failed.map(({ check }) => check)).toEqual(['signature', 'iss'])
    expect(failed[1]).toMatchObject({
      got: `${issuer.issuer}/`,
      wanted: issuer.issuer,
      change: expect.stringMatching(/slash/),
    })
  })

  test('is as strict as the gateway: a token for another use', async () => {
    const { failed } = await inspect(await issuer.sign(good, { header: { typ: 'logout+jwt' } }))
    expect(failed).toMatchObject([{ check: 'token', got: expect.stringContaining('not an access token') }])
  })

  test('for one server is good with --server', async () => {
    const token = await issuer.sign({ ...good, aud: 'https://gateway.example.com/servers/docs/mcp' })
    expect((await inspect(token)).failed).toMatchObject([{ check: 'aud' }])
    expect((await inspect(token, ['--server', 'docs'])).ok).toBe(true)
  })

  test('of an opaque token asks nobody, unless it is told to', async () => {
    expect((await inspect('opaque-good')).failed).toMatchObject([
      { check: 'format', change: expect.stringContaining('--introspect') },
    ])
    expect(issuer.introspected).toEqual([])
    expect(await inspect('opaque-good', ['--introspect'])).toMatchObject({
      ok: true,
      checks: [{ check: 'introspection' }, { check: 'agent', got: 'team' }],
    })
    expect((await inspect('opaque-bad', ['--introspect'])).failed).toMatchObject([
      { got: expect.stringContaining('not active') },
    ])
    expect((await inspect('opaque-broken', ['--introspect'])).failed).toMatchObject([
      { got: expect.stringContaining('500') },
    ])
  })

  test('of a token of the embedded issuer, where that is the one', async () => {
    const own = { MCP_RESOURCE_URI: undefined, GATEWAY_RULES: `${files.directory}/own.json` }
    await import('node:fs/promises').then(({ writeFile }) =>
      writeFile(own.GATEWAY_RULES, '{ "agents": { "team": {} } }'),
    )
    const issued = await run(['token', 'issue', '--agent', 'team'], { env: own })
    const { status, stdout } = await run(['token', 'inspect', '-'], { env: own, input: issued.stdout })
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^ok {4}signature/)])
    const replaced = await run(['token', 'issue', '--agent', 'team'])
    expect(replaced.stderr).toContain(`tokens come from ${issuer.issuer}`)
  })

  test('says what an unreachable issuer leaves open', async () => {
    const away = await openIssuer()
    const token = await away.sign(good)
    await away.stop()
    const { status, stdout } = await run(['token', 'inspect', token], { env: { OAUTH_ISSUER: away.issuer } })
    expect([status, stdout]).toEqual([1, expect.stringMatching(/^FAIL {2}signature .*make the issuer reachable/)])
  })
})

describe('key', () => {
  test('create prints the key alone, list and inspect know it, revoke ends it', async () => {
    const { status, stdout, stderr } = await run(['key', 'create', '--agent', 'team', '--expires', '30d'])
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^gw_\S+\n$/)])
    const key = stdout.trim()
    const id = key.split('_')[1] ?? ''
    expect(stderr).toContain(id)
    expect((await inspect(key)).checks).toMatchObject([
      { check: 'key', got: `key:${id}` },
      { check: 'agent', got: 'team' },
    ])

    const listed = JSON.parse((await run(['key', 'list', '--json'])).stdout)
    expect(listed.keys).toMatchObject([
      { id, agent: 'team', state: 'active', expires_at: expect.stringMatching(/^20/) },
    ])
    expect((await run(['key', 'list'])).stdout).toMatch(new RegExp(`^${id} +team +active`, 'm'))

    for (const [command, state] of [
      ['disable', 'disabled'],
      ['enable', undefined],
      ['revoke', 'revoked'],
    ]) {
      expect(await run(['key', command ?? '', id])).toMatchObject({ status: 0 })
      const { failed } = await inspect(key)
      expect(failed.map(({ got }) => got)).toEqual(state === undefined ? [] : [`the API key ${id} is ${state}`])
    }
    expect((await run(['credentials', 'list'])).stdout).not.toContain('api-key')
  })

  test.each<[args: string[], status: number]>([
    [['create'], 2],
    [['create', '--agent', 'team', '--expires', 'soon'], 2],
    [['create', '--agent', 'team*'], 78],
    [['revoke', '0123456789ab'], 78],
    [['list', '--all'], 2],
  ])('%j exits %i', async (args, status) => {
    expect(await run(['key', ...args])).toMatchObject({ status, stdout: '' })
  })
})
