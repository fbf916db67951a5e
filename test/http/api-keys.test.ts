import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { type ApiKeys, openApiKeys } from '../../src/identity/api-keys.js'
import type { HttpFront } from '../../src/start.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

let opened: TestGateway
let front: HttpFront
let keys: ApiKeys
beforeAll(async () => {
  const rules = { agents: { team: { allow: { servers: ['*'] } } } }
  // Nobody has to be asked about an API key, not even an issuer that is configured.
  opened = await openTestGateway({ servers: {}, rules }, { OAUTH_ISSUER: 'http://127.0.0.1:9' })
  front = await opened.gateway.serveHttp({ port: 0 })
  // Another process.
  const directory = `${opened.directory}/state`
  keys = openApiKeys(openCredentialStore({ directory, env: { GATEWAY_KEYCHAIN: 'off' }, warn: () => {} }))
})
afterAll(() => opened.close())

const listServers = (headers: Record<string, string>) => {
  const request = mcpRequest('modern', '', 'tools/call', { name: 'list_servers', arguments: {} })
  const { authorization: _none, ...others } = request.headers as Record<string, string>
  return ask(front.url, { ...request, headers: { ...others, ...headers } })
}

describe('an API key', () => {
  test.each<[where: string, toHeaders: (key: string) => Record<string, string>]>([
    ['Authorization', key => ({ authorization: `Bearer ${key}` })],
    ['X-API-Key', key => ({ 'x-api-key': key })],
  ])('in %s is good until it is revoked, without a restart', async (_, toHeaders) => {
    const { key, id } = await keys.create({ agent: 'team', scopes: ['mcp'] })
    const { status, json } = await listServers(toHeaders(key))
    expect([status, json().result?.structuredContent]).toEqual([200, { servers: [] }])
    await expect
      .poll(async () => (await opened.auditLines(1)).at(-1))
      .toMatchObject({ principal: `key:${id}`, agent: 'team' })

    await keys.change(id, 'revoked')
    const refused = await listServers(toHeaders(key))
    expect([refused.status, refused.json()]).toEqual([
      401,
      { error: 'invalid_token', error_description: `the API key ${id} is revoked` },
    ])
    expect(refused.headers['www-authenticate']).toContain('error="invalid_token"')
    expect(refused.text).not.toContain(key)
  })

  test('that is none is refused, and so is a token in its header', async () => {
    const token = await front.issueToken('team', 60)
    for (const bad of ['gw_000000000000_x', 'x'.repeat(300), '']) {
      expect((await listServers({ 'x-api-key': bad })).status).toBe(401)
    }
    expect((await listServers({ 'x-api-key': token })).status).toBe(401)
  })
})
