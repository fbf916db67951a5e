import { createServer, type Server, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findRunning } from '../../src/config/running.js'
import { toPublicUrls, withoutPrefix } from '../../src/http/metadata.js'
import type { HttpFront } from '../../src/start.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

const PUBLIC = 'https://tools.example.com/ai/gateway'

describe('paths below a prefix', () => {
  test.each([
    ['/mcp', '/mcp'],
    ['/ai/gateway/mcp', '/mcp'],
    ['/ai/gateway/servers/docs/mcp', '/servers/docs/mcp'],
    ['/ai/gateway', ''],
    ['/ai/gatewayx/mcp', '/ai/gatewayx/mcp'],
    ['/ai/gateway/ai/gateway/mcp', '/ai/gateway/mcp'],
    ['/.well-known/oauth-protected-resource', '/.well-known/oauth-protected-resource'],
    ['/.well-known/oauth-protected-resource/ai/gateway/mcp', '/.well-known/oauth-protected-resource/mcp'],
    ['/ai/gateway/.well-known/oauth-protected-resource/mcp', '/.well-known/oauth-protected-resource/mcp'],
    ['/.well-known/oauth-authorization-server/ai/gateway', '/.well-known/oauth-authorization-server'],
    [
      '/x/.well-known/oauth-protected-resource/ai/gateway/mcp',
      '/x/.well-known/oauth-protected-resource/ai/gateway/mcp',
    ],
  ])('%s is %s', (path, known) => {
    expect(withoutPrefix(path, '/ai/gateway')).toBe(known)
  })

  test.each([
    ['https://host/mcp', '', 'https://host/servers/a%20b/mcp'],
    ['https://host/ai/mcp', '/ai', 'https://host/ai/servers/a%20b/mcp'],
    ['https://host:8443/mcp/mcp', '/mcp', 'https://host:8443/mcp/servers/a%20b/mcp'],
  ])('%s has the prefix %j', (resource, prefix, server) => {
    const urls = toPublicUrls(new URL(resource))
    expect([urls.prefix, urls.serverResource('a b')]).toEqual([prefix, server])
  })
})

describe.each([true, false])('behind a reverse proxy that takes the prefix off: %s', takesOff => {
  let opened: TestGateway
  let front: HttpFront
  let proxy: Server
  let at: string

  beforeAll(async () => {
    const rules = { agents: { team: { allow: { servers: ['*'] } } } }
    const servers = { shop: nodeServer('shop.js') }
    opened = await openTestGateway({ servers, rules }, { MCP_RESOURCE_URI: `${PUBLIC}/mcp` })
    front = await opened.gateway.serveHttp({ port: 0 })
    const [running] = await findRunning(`${opened.directory}/state`)
    const inside = new URL(running?.url ?? '')
    // As nginx does it: the public Host goes on, and so do headers that nobody should believe.
    proxy = createServer((incoming, outgoing) => {
      const path = takesOff ? (incoming.url ?? '').replace('/ai/gateway', '') : incoming.url
      const headers = { ...incoming.headers, host: 'tools.example.com', 'x-forwarded-host': 'evil.example.com' }
      const forwarded = { method: incoming.method, path, headers, host: inside.hostname, port: inside.port }
      incoming.pipe(
        send(forwarded, answer => {
          outgoing.writeHead(answer.statusCode ?? 500, answer.headers)
          answer.pipe(outgoing)
        }),
      )
    })
    await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
    at = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
  })
  afterAll(async () => {
    proxy.closeAllConnections()
    proxy.close()
    await opened.close()
  })

  /** A public URL, as it is reached in this test. */
  const reached = (url: string) => url.replace('https://tools.example.com', at)

  test.each(['/mcp', '/servers/shop/mcp'])('a client finds its way from %s', async path => {
    const refused = await ask(reached(`${PUBLIC}${path}`), { method: 'POST' })
    expect(refused.status).toBe(401)
    const [, url = ''] = /resource_metadata="([^"]+)"/.exec(refused.headers['www-authenticate'] ?? '') ?? []
    expect(url).toBe(`https://tools.example.com/.well-known/oauth-protected-resource/ai/gateway${path}`)
    for (const place of [url, `${PUBLIC}/.well-known/oauth-protected-resource${path}`]) {
      const { status, json, text } = await ask(reached(place))
      expect([status, json().resource]).toEqual([200, `${PUBLIC}${path}`])
      expect(json().authorization_servers).toEqual([PUBLIC])
      expect(text).not.toContain('evil')
      expect(text).not.toContain('127.0.0.1')
    }
  })

  test('and from the authorization server that is named', async () => {
    for (const place of [
      'https://tools.example.com/.well-known/oauth-authorization-server/ai/gateway',
      `${PUBLIC}/.well-known/openid-configuration`,
    ]) {
      const { json } = await ask(reached(place))
      expect(json()).toMatchObject({ issuer: PUBLIC, jwks_uri: `${PUBLIC}/.well-known/jwks.json` })
      expect((await ask(reached(String(json().jwks_uri)))).json().keys).toHaveLength(1)
    }
  })

  test('a page of any origin may read that, and nothing else', async () => {
    const foreign = { origin: 'https://evil.example.com', 'access-control-request-method': 'GET' }
    for (const place of [
      'https://tools.example.com/.well-known/oauth-protected-resource/ai/gateway/mcp',
      'https://tools.example.com/.well-known/oauth-authorization-server/ai/gateway',
      `${PUBLIC}/.well-known/oauth-protected-resource/servers/shop/mcp`,
      `${PUBLIC}/.well-known/jwks.json`,
    ]) {
      for (const [method, expected] of [
        ['OPTIONS', 204],
        ['GET', 200],
      ] as const) {
        const { status, headers } = await ask(reached(place), { method, headers: foreign })
        expect([status, headers['access-control-allow-origin']]).toEqual([expected, foreign.origin])
      }
      expect((await ask(reached(place), { method: 'POST', headers: foreign })).status).toBe(403)
    }
    for (const path of ['/mcp', '/servers/shop/mcp', '/health', '/status', '/x/.well-known/jwks.json']) {
      for (const method of ['OPTIONS', 'GET'])
        expect((await ask(reached(`${PUBLIC}${path}`), { method, headers: foreign })).status).toBe(403)
    }
  })

  test('and is served', async () => {
    const token = await front.issueToken('team', 60)
    for (const path of ['/mcp', '/servers/shop/mcp']) {
      const { status, json } = await ask(reached(`${PUBLIC}${path}`), mcpRequest('modern', token, 'tools/list', {}))
      expect([status, json().result?.tools]).toEqual([200, expect.any(Array)])
    }
    expect((await ask(reached(`${PUBLIC}/health`))).text).toBe('OK')
  })
})
