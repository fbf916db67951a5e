import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

let opened: TestGateway
let origin: string
let token: string
beforeAll(async () => {
  opened = await openTestGateway({ servers: {}, rules: { agents: { boss: { allow: { servers: ['*'] } } } } })
  const front = await opened.gateway.serveHttp({ port: 0 })
  origin = new URL(front.url).origin
  token = await front.issueToken('boss', 60)
})
afterAll(() => opened.close())

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const
const COMMAND = { name: 'own', command: 'touch', args: ['/tmp/owned'], mcpServers: { own: { command: 'touch' } } }

// What other gateways have, and what one would try.
const ADMIN = [
  ...[
    '/',
    '/api',
    '/admin',
    '/api/servers',
    '/api/mcp/servers',
    '/api/v1/servers',
    '/v0/servers',
    '/servers',
    '/servers/own',
  ],
  ...[
    '/servers/own/start',
    '/servers/own/config',
    '/config',
    '/api/config',
    '/rules',
    '/reload',
    '/shutdown',
    '/keys',
    '/tokens',
  ],
  ...[
    '/token',
    '/register',
    '/authorize',
    '/oauth/token',
    '/login',
    '/callback',
    '/metrics',
    '/debug/pprof',
    '/mcp/servers',
  ],
]

test.each(METHODS)(
  'nothing is administered over HTTP, with a token for everything or without one (%s)',
  async method => {
    const body = ['GET', 'DELETE'].includes(method) ? {} : { body: JSON.stringify(COMMAND) }
    for (const path of ADMIN) {
      for (const authorization of [{}, { authorization: `Bearer ${token}` }]) {
        const headers = { 'content-type': 'application/json', ...authorization }
        const { status } = await ask(`${origin}${path}`, { method, headers, ...body })
        expect([path, status]).toEqual([path, 404])
      }
    }
  },
)

test.each(METHODS)('what the open routes say changes nothing (%s)', async method => {
  for (const path of ['/health', '/ready', '/.well-known/oauth-protected-resource', '/.well-known/jwks.json']) {
    const { status } = await ask(`${origin}${path}`, { method })
    expect([path, status]).toEqual([path, method === 'GET' ? 200 : 404])
  }
})

test.each(['servers/add', 'config/set', 'server/start', 'tools/register', 'gateway/reload'])(
  'there is no method %s',
  async method => {
    const { status, json } = await ask(`${origin}/mcp`, mcpRequest('modern', token, method, COMMAND))
    expect([status, json().error]).toMatchObject([404, { code: -32601 }])
    expect(JSON.parse(await readFile(join(opened.directory, '.mcp.json'), 'utf8'))).toEqual({ mcpServers: {} })
  },
)
