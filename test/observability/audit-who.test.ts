import { userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { openApiKeys } from '../../src/identity/api-keys.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { askModern, beginSession } from '../fixtures/http-clients.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'

let issuers: readonly [TestIssuer, TestIssuer]
let gateway: TestGateway
let url: string
beforeAll(async () => {
  issuers = [await openIssuer(), await openIssuer({ path: '/realms/mcp' })]
  const identity = {
    issuers: issuers.map(({ issuer }) => ({ issuer, audience: 'gateway', tenantClaim: 'tid' })),
  }
  gateway = await openTestGateway({ servers: {}, rules: { agents: { team: { allow: {} } }, identity } })
  ;({ url } = await gateway.gateway.serveHttp({ port: 0 }))
})
afterAll(async () => {
  await gateway.close()
  for (const issuer of issuers) await issuer.stop()
})

const sign = (issuer: TestIssuer, claims: Record<string, unknown>) =>
  issuer.sign({ aud: 'gateway', agent_id: 'team', ...claims })
const call = (token: string) => askModern(url, token, 'tools/call', { name: 'list_servers', arguments: {} })

/** What the last lines say before the agent. */
async function written(count: number) {
  const all = await gateway.auditLines(count)
  return all.slice(-count).map(line => {
    const { time: _time, ...rest } = line
    const names = Object.keys(rest)
    return Object.fromEntries(Object.entries(rest).slice(0, names.indexOf('agent')))
  })
}

test('an audit line tells callers apart whose subjects are the same', async () => {
  const [one, other] = issuers
  const local = `local:${userInfo().username}`
  const directory = join(gateway.directory, 'state')
  const keys = openApiKeys(openCredentialStore({ directory, env: { GATEWAY_KEYCHAIN: 'off' }, warn: () => {} }))
  const { key, id } = await keys.create({ agent: 'team', scopes: ['mcp'] })

  await gateway.call('list_servers', {}, 'team')
  await call(await sign(one, { sub: local }))
  await call(key)
  await call(await sign(one, { sub: `key:${id}` }))
  await call(await sign(one, { sub: 'u1', client_id: 'desk' }))
  await call(await sign(other, { sub: 'u1', azp: 'web', tid: 'acme' }))
  expect(await written(6)).toEqual([
    { principal: local },
    { principal: local, issuer: one.issuer },
    { principal: `key:${id}`, issuer: 'urn:agent-mcp-gateway:api-keys' },
    { principal: `key:${id}`, issuer: one.issuer },
    { principal: 'u1', issuer: one.issuer, client: 'desk' },
    { principal: 'u1', issuer: other.issuer, client: 'web', tenant: 'acme' },
  ])
})

test('so does that of somebody who names the session of somebody else', async () => {
  const [one, other] = issuers
  const session = await beginSession(url, await sign(one, { sub: 'u1' }))
  const stranger = session.as({ token: await sign(other, { sub: 'u1', client_id: 'desk', tid: 'acme' }) })
  expect((await stranger.request('ping')).status).toBe(404)
  await expect
    .poll(() => written(1))
    .toEqual([{ principal: 'u1', issuer: other.issuer, client: 'desk', tenant: 'acme' }])
  expect(await gateway.auditLines(1)).toContainEqual(expect.objectContaining({ operation: 'session', agent: null }))
  await session.end()
})
