import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { HttpFront } from '../../src/start.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

let opened: TestGateway
let front: HttpFront
let origin: string
let token: string

beforeAll(async () => {
  const rules = { agents: { reader: { allow: { servers: ['*'] } } } }
  opened = await openTestGateway({ servers: {}, rules }, { CORS_ORIGINS: 'https://app.example.com/' })
  front = await opened.gateway.serveHttp({ port: 0 })
  origin = new URL(front.url).origin
  token = await front.issueToken('reader', 60)
})
afterAll(() => opened.close())

const METADATA = '/.well-known/oauth-protected-resource'
const ROUTES = [
  '/health',
  '/ready',
  '/mcp',
  METADATA,
  `${METADATA}/mcp`,
  '/.well-known/oauth-authorization-server',
  '/.well-known/jwks.json',
  '/nowhere',
]
const challenge = () => `Bearer resource_metadata="${origin}${METADATA}/mcp", scope="mcp"`

describe('open routes', () => {
  test('/health and /ready', async () => {
    expect(await ask(`${origin}/health`)).toMatchObject({ status: 200, text: 'OK' })
    const ready = await ask(`${origin}/ready`)
    expect([ready.status, ready.json()]).toEqual([200, { status: 'ready' }])
  })

  test.each([METADATA, `${METADATA}/mcp`])('protected resource metadata under %s', async path => {
    const { status, headers, json } = await ask(`${origin}${path}`)
    expect(status).toBe(200)
    expect(headers).toMatchObject({ 'content-type': 'application/json', 'access-control-allow-origin': '*' })
    expect(json()).toMatchObject({
      resource: front.url,
      authorization_servers: [origin],
      bearer_methods_supported: ['header'],
      scopes_supported: ['mcp'],
    })
  })

  test('the key set has the public half only', async () => {
    const { keys } = (await ask(`${origin}/.well-known/jwks.json`)).json() as unknown as {
      keys: Record<string, string>[]
    }
    expect(keys).toEqual([
      {
        kty: 'EC',
        crv: 'P-256',
        x: expect.any(String),
        y: expect.any(String),
        kid: expect.any(String),
        alg: 'ES256',
        use: 'sig',
      },
    ])
  })
})

describe('Host and Origin', () => {
  test.each(ROUTES)('a foreign Host is refused on %s', async path => {
    expect((await ask(`${origin}${path}`, { headers: { host: 'evil.example.com' } })).status).toBe(403)
  })

  test.each(ROUTES)('a foreign Origin is refused on %s, for preflights too', async path => {
    for (const method of ['GET', 'POST', 'OPTIONS', 'DELETE']) {
      for (const foreign of ['https://evil.example.com', 'null', 'http://127.0.0.1.evil.example.com']) {
        expect(
          (await ask(`${origin}${path}`, { method, headers: { origin: foreign, authorization: `Bearer ${token}` } }))
            .status,
        ).toBe(403)
      }
    }
  })

  test.each(['http://localhost:5173', 'http://127.0.0.1:6274', 'https://app.example.com'])(
    '%s may use the gateway',
    async allowed => {
      const preflight = await ask(`${origin}/mcp`, {
        method: 'OPTIONS',
        headers: {
          origin: allowed,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'authorization,mcp-protocol-version,mcp-param-x',
        },
      })
      expect(preflight.status).toBe(204)
      expect(preflight.headers).toMatchObject({
        'access-control-allow-origin': allowed,
        'access-control-allow-headers': expect.stringContaining('mcp-param-x'),
        'access-control-allow-methods': expect.stringContaining('DELETE'),
      })
      const refused = await ask(`${origin}/mcp`, { headers: { origin: allowed } })
      expect(refused.status).toBe(401)
      expect(refused.headers['access-control-allow-origin']).toBe(allowed)
      expect(refused.headers['access-control-expose-headers']).toContain('WWW-Authenticate')
    },
  )

  test.each(['localhost', '[::1]:1234', '127.0.0.1'])('loopback names of this machine are welcome: %s', async host => {
    expect((await ask(`${origin}/health`, { headers: { host } })).status).toBe(200)
  })
})

describe('the token', () => {
  test.each(['GET', 'POST', 'DELETE', 'PUT', 'PATCH'])(
    'is wanted on %s; without one the challenge carries no error',
    async method => {
      const { status, headers } = await ask(front.url, { method })
      expect(status).toBe(401)
      expect(headers['www-authenticate']).toBe(challenge())
    },
  )

  test.each([false, true])('in the query is malformed (with one in the header: %s)', async inHeader => {
    const headers = inHeader ? { authorization: `Bearer ${token}` } : {}
    const { status, json, text } = await ask(`${front.url}?access_token=${token}`, { method: 'POST', headers })
    expect([status, json().error]).toEqual([400, 'invalid_request'])
    expect(text).not.toContain(token)
  })

  test.each<[string, Record<string, string | string[]>]>([
    ['two Authorization headers', { authorization: ['Basic YTpi', 'Bearer x'] }],
    ['a token and an API key', { authorization: 'Bearer x', 'x-api-key': 'y' }],
    ['two API keys', { 'x-api-key': ['x', 'y'] }],
    ['two tokens in one', { authorization: 'Bearer a b' }],
    ['no token after all', { authorization: 'Bearer' }],
  ])('%s are malformed', async (_, headers) => {
    const { status, headers: answered, json } = await ask(front.url, { method: 'POST', headers })
    expect([status, json().error]).toEqual([400, 'invalid_request'])
    expect(answered['www-authenticate']).toContain('error="invalid_request"')
  })

  test('for another audience is refused with both values', async () => {
    const other = await openTestGateway(
      { servers: {}, rules: {} },
      { GATEWAY_STATE_DIR: `${opened.directory}/state`, MCP_RESOURCE_URI: 'https://other.example.com/mcp' },
    )
    const foreign = await (await other.gateway.serveHttp({ port: 0 })).issueToken('reader', 60)
    const { status, headers, json } = await ask(front.url, mcpRequest('legacy', foreign, 'tools/list', {}))
    await other.close()
    const description =
      `audience mismatch: token has ["https://other.example.com/mcp"], this server is ${front.url}`.replace(
        /[[\]"]/g,
        '',
      )
    expect(status).toBe(401)
    expect(String(json().error_description).replace(/[[\]"]/g, '')).toBe(description)
    expect(json().error).toBe('invalid_token')
    expect(headers['www-authenticate']).toContain('error="invalid_token"')
    expect(headers['www-authenticate']).toContain(`resource_metadata="${origin}${METADATA}/mcp"`)
  })

  test.each<[string, () => string]>([
    ['not a JWT', () => 'abc'],
    ['signature changed', () => `${token.slice(0, -4)}AAAA`],
    ['alg none', () => `${Buffer.from('{"alg":"none"}').toString('base64url')}.${token.split('.')[1]}.`],
    [
      'HS256 with the public key',
      () => {
        const head = `${Buffer.from('{"alg":"HS256"}').toString('base64url')}.${token.split('.')[1]}`
        return `${head}.${createHmac('sha256', 'public').update(head).digest('base64url')}`
      },
    ],
    ['of 100 KB', () => `${token}${'a'.repeat(100_000)}`],
  ])('that is no good is refused and never echoed: %s', async (_, bad) => {
    const { status, headers, text } = await ask(front.url, mcpRequest('modern', bad(), 'tools/list', {}))
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toMatch(/^Bearer .*error="invalid_token", error_description="[^"]+"$/)
    expect(text).not.toContain(bad())
  })

  test('twice is malformed', async () => {
    const { status, json } = await ask(front.url, {
      method: 'POST',
      headers: { authorization: [`Bearer ${token}`, `Bearer ${token}`] },
    })
    expect([status, json().error]).toEqual([400, 'invalid_request'])
  })
})

describe('bodies', () => {
  const post = (body: string | Buffer, headers = {}) =>
    ask(front.url, {
      method: 'POST',
      headers: { ...(mcpRequest('legacy', token, 'x', {}).headers as object), ...headers },
      body,
    })

  test('of more than 4 MiB get 413 as JSON-RPC', async () => {
    const body = JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: { name: 'execute_tool', arguments: { args: { x: 'a'.repeat(5 * 1024 * 1024) } } },
    })
    const { status, json } = await post(body)
    expect([status, json().error?.code]).toEqual([413, -32600])
    const chunked = await post(body, { 'transfer-encoding': 'chunked' })
    expect(chunked.status).toBe(413)
  })

  test.each([
    ['', 400],
    ['{', 400],
    ['null', 400],
    ['[]', 400],
    ['"x"', 400],
    ['{"jsonrpc":"2.0"}', 400],
  ])('%j is answered with %i', async (body, expected) => {
    const { status, json } = await post(body)
    expect(status).toBe(expected)
    expect(json().error).toMatchObject({ code: expect.any(Number) })
  })

  test('nested beyond reason neither crash nor hang', async () => {
    const deep = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_servers","arguments":{"x":${'['.repeat(200_000)}${']'.repeat(200_000)}}}}`
    expect((await post(deep)).status).toBeLessThan(500)
    expect((await ask(`${origin}/health`)).status).toBe(200)
  })

  test('of another content type get 415', async () => {
    expect((await post('{}', { 'content-type': 'text/plain' })).status).toBe(415)
  })
})

describe('where the gateway listens', () => {
  const refusal = (env: Record<string, string>, options = {}) =>
    openTestGateway({ servers: {}, rules: {} }, env).then(async other => {
      try {
        await other.gateway.serveHttp(options)
        return undefined
      } catch (error) {
        return error
      } finally {
        await other.close()
      }
    })

  test.each([{ host: '0.0.0.0' }, { host: '::' }, { host: '192.0.2.1' }])(
    'beyond loopback it refuses to start: $host',
    async options => {
      expect(await refusal({}, { ...options, port: 0 })).toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining('MCP_RESOURCE_URI'),
      })
      expect(
        await refusal({ MCP_RESOURCE_URI: 'https://gateway.example.com/mcp' }, { ...options, port: 0 }),
      ).toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining('issuer'),
      })
    },
  )

  test('a port in use is an error that says what to do', async () => {
    expect(await refusal({}, { port: Number(new URL(front.url).port) })).toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('--port'),
    })
  })

  test.each([{ MCP_SERVER_PORT: 'eighty' }, { MCP_RESOURCE_URI: 'gateway' }])('%j is refused by name', async env => {
    expect(await refusal(env)).toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining(Object.keys(env)[0] ?? ''),
    })
  })
})

test('/ready turns 503 once the gateway takes no new calls', async () => {
  const other = await openTestGateway({ servers: {}, rules: {} })
  const { url } = await other.gateway.serveHttp({ port: 0 })
  await other.gateway.runtime.close(0)
  expect((await ask(new URL('/ready', url).href)).status).toBe(503)
  await other.close()
})
