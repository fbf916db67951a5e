import { createHmac } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type CryptoKey, exportSPKI, importJWK } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { HttpFront } from '../../src/start.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { type Answer, ask, mcpRequest } from '../fixtures/http.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'

const RESOURCE = 'https://gateway.example.com/mcp'
const DOCS = 'https://gateway.example.com/servers/docs/mcp'
const METADATA = 'https://gateway.example.com/.well-known/oauth-protected-resource'
const MINUTE = 60
const rules = { agents: { team: { allow: { servers: ['*'] } } } }

const opened: { close(): Promise<void> }[] = []
const now = () => Math.floor(Date.now() / 1000)
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

async function openGateway(
  env: Record<string, string>,
  identity?: object,
): Promise<TestGateway & { front: HttpFront; at: string }> {
  const gateway = await openTestGateway({ servers: {}, rules: { ...rules, ...(identity && { identity }) } }, env)
  opened.push(gateway)
  const front = await gateway.gateway.serveHttp({ port: 0 })
  const { url } = (await readRunning(gateway)) as { url: string }
  return { ...gateway, front, at: new URL(url).origin }
}

/** Where it really listens, whatever its public URL is. */
async function readRunning({ directory }: TestGateway): Promise<unknown> {
  const { findRunning } = await import('../../src/config/running.js')
  const [running] = await findRunning(join(directory, 'state'))
  return running
}

const list = (at: string, token: string, path = '/mcp') =>
  ask(`${at}${path}`, mcpRequest('modern', token, 'tools/list', {}))

function expectRefusal(answer: Answer, description: string | RegExp, metadata = `${METADATA}/mcp`): void {
  expect(answer.status).toBe(401)
  const body = answer.json()
  expect(body).toEqual({ error: 'invalid_token', error_description: expect.stringMatching(description) })
  expect(answer.headers['www-authenticate']).toContain(`Bearer resource_metadata="${metadata}", scope="mcp"`)
  expect(answer.headers['www-authenticate']).toContain('error="invalid_token", error_description="')
}

describe('tokens of an external issuer', () => {
  let issuer: TestIssuer
  let at: string
  let front: HttpFront
  const sign = (claims: Record<string, unknown> = {}, options = {}) =>
    issuer.sign({ aud: RESOURCE, agent_id: 'team', ...claims }, options)

  beforeAll(async () => {
    issuer = await openIssuer({ path: '/realms/mcp' })
    ;({ at, front } = await openGateway({ OAUTH_GATEWAY_URL: issuer.issuer, MCP_RESOURCE_URI: RESOURCE }))
  })
  afterAll(async () => {
    for (const one of opened.splice(0)) await one.close()
    await issuer.stop()
  })

  test.each<[what: string, claims: () => Record<string, unknown>]>([
    ['as it should be', () => ({})],
    ['expired 30 seconds ago', () => ({ exp: now() - 30 })],
    ['valid in 30 seconds', () => ({ nbf: now() + 30 })],
    ['for others too', () => ({ aud: ['https://other.example', RESOURCE] })],
  ])('are good: %s', async (_, claims) => {
    const { status, json } = await list(at, await sign(claims()))
    expect([status, json().result?.tools]).toEqual([200, expect.any(Array)])
  })

  test.each<[what: string, claims: () => Record<string, unknown>, description: RegExp]>([
    [
      'expired 5 minutes ago',
      () => ({ exp: now() - 5 * MINUTE }),
      /^the token expired at 2\S+, and it is 2\S+ here \(60 s tolerance\)$/,
    ],
    [
      'valid in 5 minutes',
      () => ({ nbf: now() + 5 * MINUTE }),
      /^the token is not valid before 2\S+, and it is 2\S+ here /,
    ],
    ['issued in 5 minutes', () => ({ iat: now() + 5 * MINUTE }), /^the token was issued in the future, at 2/],
    [
      'of another issuer',
      () => ({ iss: 'https://evil.example' }),
      /^issuer mismatch: token has https:\/\/evil.example, this server trusts http:.*\/realms\/mcp$/,
    ],
    [
      'of an issuer with a slash more',
      () => ({ iss: `${issuer.issuer}/` }),
      /^issuer mismatch: token has .*\/mcp\/, this server trusts .*\/mcp$/,
    ],
    ['of no issuer', () => ({ iss: undefined }), /^issuer mismatch: token has none, this server trusts http/],
    [
      'for another server',
      () => ({ aud: 'https://other.example/mcp' }),
      /^audience mismatch: token has https:\/\/other.example\/mcp, this server is https:\/\/gateway.example.com\/mcp$/,
    ],
    [
      'for the URL with a slash more',
      () => ({ aud: `${RESOURCE}/` }),
      /^audience mismatch: token has .*\/mcp\/, this server is .*\/mcp$/,
    ],
    ['for a client', () => ({ aud: 'my-client' }), /^audience mismatch: token has my-client, /],
    ['for several others', () => ({ aud: ['a', 'b'] }), /^audience mismatch: token has \["a","b"\], /],
    ['for nobody', () => ({ aud: undefined }), /^audience mismatch: token has none, this server is https:\/\/gateway/],
    ['for one of its servers', () => ({ aud: DOCS }), /^audience mismatch: token has .*\/servers\/docs\/mcp, /],
    ['without an end', () => ({ exp: undefined }), /^the claim 'exp' is missing$/],
    ['of nobody', () => ({ sub: undefined }), /^the claim 'sub' is missing$/],
  ])('are refused: %s', async (_, claims, description) => {
    const token = await sign(claims())
    const answer = await list(at, token)
    expectRefusal(answer, description)
    expect(answer.text + answer.headers['www-authenticate']).not.toContain(token)
  })

  test.each<[what: string, token: () => Promise<string>, description: RegExp]>([
    ['no JWT', async () => 'abc', /^the token is not a JWT$/],
    [
      'without a signature',
      async () => `${encoded({ alg: 'none' })}.${(await sign()).split('.')[1]}.`,
      /^algorithm mismatch: token has none, this server takes RS256, /,
    ],
    [
      'signed with the public key as a secret',
      async () => {
        const { keys } = (await (await fetch(`${issuer.issuer}/keys`)).json()) as { keys: [object] }
        const pem = await exportSPKI((await importJWK(keys[0], 'RS256')) as CryptoKey)
        const head = `${encoded({ alg: 'HS256' })}.${(await sign()).split('.')[1]}`
        return `${head}.${createHmac('sha256', pem).update(head).digest('base64url')}`
      },
      /^algorithm mismatch: token has HS256, this server takes RS256, /,
    ],
    [
      'of an unknown key',
      async () => sign({}, { signer: await issuer.createSigner() }),
      /^the token was signed with a key this server does not know: token has key-\w+, which is none of http/,
    ],
    [
      'signed by another under a known name',
      async () => {
        const { kid } = JSON.parse(Buffer.from((await sign()).split('.')[0] ?? '', 'base64url').toString())
        return sign({}, { signer: { ...(await issuer.createSigner()), kid } })
      },
      /^the signature does not fit the token: it was not made with the key key-\w+ of http/,
    ],
    [
      'with a critical header',
      async () => {
        const [, ...rest] = (await sign()).split('.')
        return [encoded({ alg: 'RS256', kid: 'x', crit: ['exp'], exp: 1 }), ...rest].join('.')
      },
      /critical header .*: token has \["exp"\]$/,
    ],
    [
      'of 100 KB',
      async () => sign({ padding: 'x'.repeat(100_000) }),
      /^the token has 1\d{5} characters, more than 32768$/,
    ],
    [
      'of the embedded issuer, which is replaced',
      () => front.issueToken('team', 60),
      /^issuer mismatch: token has urn:/,
    ],
  ])('are refused: %s', async (_, make, description) => {
    const token = await make()
    const answer = await list(at, token)
    expectRefusal(answer, description)
    if (token.length > 10) expect(answer.text + answer.headers['www-authenticate']).not.toContain(token)
  })

  test('for one server open its door alone, and those for the gateway all', async () => {
    const answer = await list(at, await sign({ aud: DOCS }), '/servers/docs/mcp')
    expect(answer.status).toBe(404) // there is no such server: the token was good
    expect((await list(at, await sign(), '/servers/docs/mcp')).status).toBe(404)
    expectRefusal(
      await list(at, await sign({ aud: DOCS }), '/servers/other/mcp'),
      /this server is https:\/\/gateway.example.com\/servers\/other\/mcp$/,
      `${METADATA}/servers/other/mcp`,
    )
  })

  test('are asked for by name', async () => {
    for (const path of ['', '/mcp', '/servers/docs/mcp']) {
      const { headers, json } = await ask(`${at}/.well-known/oauth-protected-resource${path}`)
      expect(json()).toMatchObject({
        resource: path.startsWith('/servers') ? DOCS : RESOURCE,
        authorization_servers: [issuer.issuer],
      })
      expect(headers['access-control-allow-origin']).toBe('*')
    }
    for (const kind of ['oauth-authorization-server', 'openid-configuration']) {
      const { headers, json } = await ask(`${at}/.well-known/${kind}`)
      expect(json()).toMatchObject({ issuer: issuer.issuer, token_endpoint: `${issuer.issuer}/token` })
      expect(headers['access-control-allow-origin']).toBe('*')
    }
  })

  test('go on being good when the keys are rotated', async () => {
    await issuer.rotate()
    const answers = await Promise.all([sign(), sign(), sign()].map(async token => list(at, await token)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
  })

  test('`gateway status` and `gateway connect` still come in', async () => {
    const { openCredentialStore } = await import('../../src/credentials/store.js')
    const { openEmbeddedIssuer } = await import('../../src/identity/embedded-issuer.js')
    const { findRunning } = await import('../../src/config/running.js')
    const directory = `${opened[0] && (opened[0] as TestGateway).directory}/state`
    const store = openCredentialStore({ directory, env: { GATEWAY_KEYCHAIN: 'off' }, warn: () => {} })
    const { issue } = await openEmbeddedIssuer(store)
    const [running] = await findRunning(directory)
    const connecting = { agent: 'team', audience: String(running?.audience), ttlSeconds: 60 }
    expect((await list(at, await issue(connecting))).status).toBe(200)
  })
})

describe('while the issuer is away', () => {
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close()
  })

  test('the gateway starts, answers 503 until keys can be had, and then works', async () => {
    const issuer = await openIssuer({ isDown: true })
    const { at } = await openGateway({ OAUTH_GATEWAY_URL: issuer.issuer, MCP_RESOURCE_URI: RESOURCE })
    expect((await ask(`${at}/ready`)).status).toBe(200)
    const token = await issuer.sign({ aud: RESOURCE, agent_id: 'team' })
    const { status, headers, json } = await list(at, token)
    expect([status, json().error, headers['www-authenticate']]).toEqual([503, 'temporarily_unavailable', undefined])
    expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    expect((await list(at, 'abc')).status).toBe(401) // what is no token needs no issuer
    const minimal = (await ask(`${at}/.well-known/oauth-authorization-server`)).json()
    expect(minimal).toMatchObject({ issuer: issuer.issuer, jwks_uri: `${issuer.issuer}/.well-known/jwks.json` })
    await issuer.start()
    await expect.poll(async () => (await list(at, token)).status).toBe(200)
    await expect
      .poll(async () => (await ask(`${at}/.well-known/oauth-authorization-server`)).json().token_endpoint)
      .toBe(`${issuer.issuer}/token`)
    await issuer.stop()
  })

  test('a failing introspection is 503, and an inactive token 401', async () => {
    const active = { active: true, sub: 'u', aud: RESOURCE, agent_id: 'team' }
    const issuer = await openIssuer({ introspection: { good: active, broken: 500 } })
    const introspection = { endpoint: `${issuer.origin}/introspect`, clientId: 'a', clientSecret: '${SECRET}' }
    const env = { MCP_RESOURCE_URI: RESOURCE, SECRET: 'hush' }
    const { at } = await openGateway(env, { issuers: [{ issuer: issuer.issuer, introspection }] })
    const statuses = await Promise.all(['good', 'bad', 'broken'].map(async token => (await list(at, token)).status))
    expect(statuses).toEqual([200, 401, 503])
    expect(issuer.introspected[0]?.authorization).toBe(`Basic ${Buffer.from('a:hush').toString('base64')}`)
    await issuer.stop()
  })
})

describe('several issuers', () => {
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close()
  })

  test('each with its own audience and claims, and a reload that takes one away', async () => {
    const [one, two] = await Promise.all([openIssuer(), openIssuer()])
    const identity = {
      issuers: [
        { issuer: one.issuer, agentClaim: 'https://acme.example/agent' },
        {
          issuer: two.issuer,
          audience: 'api://gateway',
          requiredClaims: ['preferred_username'],
          algorithms: ['RS256'],
        },
      ],
      agents: { team: { groups: 'mcp-*' } },
    }
    const gateway = await openGateway({ MCP_RESOURCE_URI: RESOURCE }, identity)
    const { at, directory } = gateway
    const call = async (token: string) => {
      const answer = await ask(
        `${at}/mcp`,
        mcpRequest('modern', token, 'tools/call', { name: 'list_servers', arguments: {} }),
      )
      return answer.status === 200
        ? answer.json().result?.isError === true
          ? 'no agent'
          : 'good'
        : answer.json().error_description
    }
    const first = await one.sign({ aud: RESOURCE, 'https://acme.example/agent': 'team' })
    const second = await two.sign({ aud: 'api://gateway', preferred_username: 'ann', groups: ['all', 'mcp-users'] })
    expect(await call(first)).toBe('good')
    expect(await call(second)).toBe('good')
    expect(await call(await two.sign({ aud: 'api://gateway', preferred_username: 'ann', groups: ['all'] }))).toBe(
      'no agent',
    )
    expect(await call(await two.sign({ aud: 'api://gateway', groups: ['mcp-users'] }))).toBe(
      "the claim 'preferred_username' is missing",
    )
    expect(await call(await two.sign({ aud: RESOURCE, preferred_username: 'ann' }))).toBe(
      `audience mismatch: token has ${RESOURCE}, this server is api://gateway`,
    )
    expect(await call(await one.sign({ iss: two.issuer, aud: 'api://gateway' }))).toMatch(
      /^the token was signed with a key this server does not know/,
    )
    const documents = async () => (await ask(`${at}/.well-known/oauth-protected-resource`)).json().authorization_servers
    expect(await documents()).toEqual([one.issuer, two.issuer])

    const without = { ...rules, identity: { ...identity, issuers: identity.issuers.slice(0, 1) } }
    await writeFile(join(directory, '.mcp-gateway-rules.json'), JSON.stringify(without))
    await expect.poll(documents).toEqual([one.issuer])
    expect(await call(second)).toBe(`issuer mismatch: token has ${two.issuer}, this server trusts ${one.issuer}`)
    expect(await call(first)).toBe('good')
    expect(one.keyFetches).toBe(1)
    await Promise.all([one.stop(), two.stop()])
  })

  test('bound beyond loopback only with an issuer and a public URL', async () => {
    const issuer = await openIssuer()
    const start = async (env: Record<string, string>, identity?: object) => {
      const gateway = await openTestGateway({ servers: {}, rules: { ...rules, ...(identity && { identity }) } }, env)
      opened.push(gateway)
      return gateway.gateway.serveHttp({ host: '0.0.0.0', port: 0 }).then(
        () => 'serving',
        error => error.message as string,
      )
    }
    expect(await start({ OAUTH_ISSUER: issuer.issuer })).toMatch(/without MCP_RESOURCE_URI[^,]*: /)
    expect(await start({ MCP_RESOURCE_URI: RESOURCE })).toMatch(/without an external issuer/)
    expect(await start({ MCP_RESOURCE_URI: RESOURCE, OAUTH_ISSUER: issuer.issuer })).toBe('serving')
    expect(await start({ MCP_RESOURCE_URI: RESOURCE }, { issuers: [{ issuer: issuer.issuer }] })).toBe('serving')
    await issuer.stop()
  })
})
