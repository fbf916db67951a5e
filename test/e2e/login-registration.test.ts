import { expect, test } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { openWorld, withOwnPort } from './login-world.js'

test.concurrent('a registration is reused, and renewed once when the server forgot it', async () => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer })
  await using other = await openProtectedServer({ authorizationServer })
  const notes = await withOwnPort(server.url)
  await using world = await openWorld({ notes, other: { ...notes, url: other.url } })
  for (const name of ['notes', 'notes', 'other', 'notes']) {
    expect(await world.logIn(name)).toMatchObject({ status: 0 })
    expect(authorizationServer.counts.registrations).toBe(1)
  }
  expect(authorizationServer.requestsTo('registration')[0]?.params).toMatchObject({ application_type: 'native' })

  authorizationServer.forgetClients()
  const { ended, url } = await world.startLogin('notes')
  expect(await (await fetch(url)).text()).toContain('You are logged in')
  expect(await ended).toMatchObject({ status: 0 })
  expect(authorizationServer.counts.registrations).toBe(2)
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  expect(authorizationServer.counts.registrations).toBe(2)
  expect(await world.call('notes')).toMatchObject({ status: 0 })
})

test.concurrent('a client that is forgotten while its login lasts costs a login, with one registration', async () => {
  await using authorizationServer = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: await withOwnPort(server.url) })
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  authorizationServer.forgetClients()
  authorizationServer.expireAccessTokens()
  expect((await world.call('notes')).status).toBe(77)
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  expect(authorizationServer.counts.registrations).toBe(2)
  expect(await world.call('notes')).toMatchObject({ status: 0 })
})

test.concurrent('a server that moves to another authorization server: a new client there, and nothing of the old one', async () => {
  await using before = await openAuthorizationServer()
  await using after = await openAuthorizationServer()
  await using server = await openProtectedServer({ authorizationServer: before })
  await using world = await openWorld({ notes: { url: server.url } })
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  before.expireAccessTokens()
  expect(await world.call('notes')).toMatchObject({ status: 0 }) // shows a refresh token
  const secrets = [...before.requests.flatMap(secretsIn), ...server.authorizations()]
  expect(secrets.length).toBeGreaterThan(5)

  server.set({ authorizationServer: after })
  const refreshes = before.counts.refreshes
  expect((await world.call('notes')).status).toBe(77)
  expect(after.requests).toEqual([])
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  expect(after.counts.registrations).toBe(1)
  expect(await world.call('notes')).toMatchObject({ status: 0 })
  const sent = JSON.stringify(after.requests)
  for (const secret of secrets) expect(sent).not.toContain(secret)
  expect(before.counts.refreshes - refreshes).toBeLessThanOrEqual(1)
})

test.concurrent('without registration and without a client id the error names the key to set', async () => {
  await using authorizationServer = await openAuthorizationServer({ registration: false })
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url } })
  const { status, stdout, stderr } = await world.run(['login', 'notes'])
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(/"clientId"/)
  expect(stderr).toMatch(/redirect URI http:\/\/127\.0\.0\.1:\d+\/callback/)
})

function secretsIn({ params }: { readonly params: Readonly<Record<string, unknown>> }): string[] {
  const names = ['client_id', 'code', 'code_verifier', 'refresh_token', 'state']
  return names.flatMap(name => (typeof params[name] === 'string' ? [params[name]] : []))
}
