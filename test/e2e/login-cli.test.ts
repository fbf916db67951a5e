import { expect, test } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { nodeServer } from '../fixtures/gateway.js'
import { openOidcProvider } from '../fixtures/oidc-provider.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { openWorld } from './login-world.js'

test.concurrent('a protected server in .mcp.json, before and after its login', async () => {
  await using provider = await openOidcProvider({ issueRefreshTokens: 'always' })
  await using server = await openProtectedServer({
    authorizationServer: provider,
    metadata: { scopes_supported: ['mcp', 'openid'] },
    challengeScope: null,
  })
  await using world = await openWorld({ notes: { url: server.url } })

  const [table, before, refused] = await Promise.all([
    world.run(['status']),
    world.run(['status', '--json']),
    world.call('notes'),
  ])
  expect(table).toMatchObject({ status: 0, stdout: expect.stringMatching(/^notes +login needed .* login needed/m) })
  expect(JSON.parse(before.stdout).servers).toEqual([
    expect.objectContaining({ name: 'notes', state: 'login needed', auth: { kind: 'login needed' } }),
  ])
  expect(refused.status).toBe(77)
  expect(refused.result.structuredContent.error).toMatchObject({
    code: 'AUTH_REQUIRED',
    command: 'gateway login notes',
    message: expect.stringContaining('gateway login notes'),
  })
  expect(provider.requests).toEqual([]) // nothing but a login begins one

  const { url, ended } = await world.startLogin('notes')
  const page = await fetch(await provider.logIn(url, 'ada@example.com'))
  expect(await page.text()).toContain('You are logged in')
  const login = await ended
  expect(login).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes" as ada@example.com') })
  expect(login.stdout).toMatch(/scopes: .*\bmcp\b/)
  expect(login.stdout.trim().split('\n')).toHaveLength(1)

  const after = await world.call('notes')
  expect(after).toMatchObject({ status: 0, result: { content: [{ type: 'text', text: 'hello' }] } })
  const status = JSON.parse((await world.run(['status', '--json'])).stdout).servers[0]
  expect(status).toMatchObject({ name: 'notes', state: 'ready', auth: { kind: 'logged in' } })
  expect(Date.parse(status.auth.expires_at)).toBeGreaterThan(Date.now())
  expect((await world.run(['status'])).stdout).toMatch(/logged in until \d{4}-\d\d-\d\d \d\d:\d\dZ/)
})

test.concurrent.each([
  { name: 'a header of its own', entry: { headers: { Authorization: 'Bearer stale-key' } }, named: 'Authorization' },
  { name: '"oauth": false', entry: { oauth: false }, named: '"oauth"' },
])('a server with $name that answers 401 never gets into OAuth', async ({ entry, named }) => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url, ...entry } })
  const [{ result, status }, login] = await Promise.all([world.call('notes'), world.run(['login', 'notes'])])
  const { error } = result.structuredContent
  expect(error?.message).toContain(named)
  expect(error).not.toHaveProperty('command')
  expect(JSON.stringify(result)).not.toMatch(/gateway login|stale-key/)
  expect(status).not.toBe(0)
  expect(login).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining(named) })
  expect(server.metadataRequests()).toEqual([])
  expect(server.requests.filter(({ path }) => path !== '/mcp')).toEqual([])
  expect(authorizationServer.requests).toEqual([])
})

test.concurrent('login says what is wrong where there is nothing to log in to', async () => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer, loginFor: 'nothing', metadataAt: 'nowhere' })
  await using world = await openWorld({ shop: nodeServer('shop.js'), open: { url: server.url } })
  const [stdio, unknown, open, none, logout] = await Promise.all([
    world.run(['login', 'shop']),
    world.run(['login', 'nots']),
    world.run(['login', 'open']),
    world.run(['login']),
    world.run(['logout', 'nots']),
  ])
  expect(stdio).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(/"shop".*"env"/) })
  expect(unknown).toMatchObject({ status: 78, stdout: '', stderr: expect.stringMatching(/"nots".*shop, open/) })
  expect(open).toMatchObject({ status: 0, stdout: expect.stringContaining('asks for no login') })
  expect(none).toMatchObject({ status: 2, stdout: '' })
  expect(logout).toMatchObject({ status: 78, stderr: expect.stringContaining('"nots"') })
})

test.concurrent('a server that is down is unavailable, not refused', async () => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url } })
  await server.close()
  expect(await world.run(['login', 'notes'])).toMatchObject({
    status: 69,
    stdout: '',
    stderr: expect.stringMatching(/"notes".*ECONNREFUSED/),
  })
})

test.concurrent('a token that the server does not take is told of at once', async () => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer, refuseTokens: true })
  await using world = await openWorld({ notes: { url: server.url } })
  const { url, ended } = await world.startLogin('notes')
  await (await fetch(url)).text()
  expect(await ended).toMatchObject({
    status: 0,
    stderr: expect.stringMatching(/warning: the server refuses the token/),
  })
  const call = await world.call('notes')
  expect(call.result.structuredContent.error).toMatchObject({
    code: 'AUTH_REQUIRED',
    message: expect.stringContaining('refuses the token of this login'),
  })
})
