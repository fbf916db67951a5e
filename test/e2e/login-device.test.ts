import { expect, test, vi } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { openWorld } from './login-world.js'

test.concurrent('with a code on another device', async () => {
  await using authorizationServer = await openAuthorizationServer({ deviceInterval: 1 })
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url } })
  const login = await world.startLogin('notes', ['--device'])
  const code = await vi.waitFor(() => {
    const [, found] = /enter the code ([A-F0-9]{4}-[A-F0-9]{4})/.exec(login.process.output.stderr) ?? []
    expect(found).toBeDefined()
    return found
  }, 5_000)
  expect(login.url).toBe(`${authorizationServer.issuer}/device?user_code=${code}`)
  expect(login.process.output.stderr).toMatch(/until \d\d:\d\d UTC/)
  await vi.waitFor(() => expect(authorizationServer.requestsTo('token').length).toBeGreaterThan(0), 5_000)
  authorizationServer.approveDevice(code)
  expect(await login.ended).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes"') })
  expect(authorizationServer.counts.earlyPolls).toBe(0)
  expect(authorizationServer.requestsTo('device')[0]?.params).toMatchObject({ resource: server.url })
  expect(await world.call('notes')).toMatchObject({ status: 0 })
  authorizationServer.expireAccessTokens()
  expect(await world.call('notes')).toMatchObject({ status: 0 })
})

test.concurrent('a code that is refused, one that is too late, and a server without codes', async () => {
  await using authorizationServer = await openAuthorizationServer({ deviceInterval: 1 })
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url } })
  const denied = await world.startLogin('notes', ['--device'])
  authorizationServer.denyDevice()
  expect(await denied.ended).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('access_denied') })
  authorizationServer.set({ deviceExpiresIn: 1 })
  const late = await world.run(['login', 'notes', '--device'])
  expect(late).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(/not entered in time|expired/) })
  authorizationServer.set({ device: false })
  const none = await world.run(['login', 'notes', '--device'])
  expect(none).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('leave --device out') })
})
