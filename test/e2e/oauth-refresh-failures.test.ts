import { expect, test } from 'vitest'
import type { FailureKind } from '../fixtures/authorization-server.js'
import { executing, openScene, stateOf } from './login-world.js'

async function openFront() {
  const scene = await openScene()
  const { authorizationServer } = scene
  const world = await scene.another()
  const login = await world.logIn('notes')
  if (login.status !== 0) throw new Error(login.stderr)
  const front = world.stdio()
  expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
  const errorOf = async (): Promise<Record<string, unknown> | undefined> =>
    (await front.call(...executing('notes'))).structuredContent?.error
  const refreshes = () => authorizationServer.requestsTo('token', { grant_type: 'refresh_token' }).length
  return { ...scene, world, front, errorOf, refreshes }
}

test.concurrent('a hiccup of the authorization server costs nothing that is kept', async () => {
  await using opened = await openFront()
  const { authorizationServer, errorOf, front, refreshes, world } = opened
  const before = await world.credentials()
  const hiccups: FailureKind[] = ['unavailable', 'rate limited', 'html 403', 'reset']
  for (const how of hiccups) {
    authorizationServer.expireAccessTokens()
    authorizationServer.set({ tokenFailure: { how } })
    const asked = refreshes()
    const error = await errorOf()
    expect(error, String(how)).toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expect(error, String(how)).not.toHaveProperty('command')
    expect(refreshes(), String(how)).toBeGreaterThan(asked)
    expect(await world.credentials(), String(how)).toBe(before)
  }
  const cold = await world.call('notes')
  expect(cold).toMatchObject({ status: 69, result: { structuredContent: { error: { code: 'SERVER_UNAVAILABLE' } } } })
  expect(await world.credentials()).toBe(before)
  expect(await stateOf(front, 'notes')).not.toBe('login needed')
  const [status] = JSON.parse((await world.run(['status', '--json'])).stdout).servers
  expect(status).toMatchObject({
    auth: { kind: 'logged in' },
    last_error: expect.stringContaining('could not be renewed'),
  })

  authorizationServer.set({ tokenFailure: null })
  expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
  expect(await world.credentials()).not.toBe(before)
  expect(authorizationServer.counts).toMatchObject({ refreshes: 1, reuses: 0 })
})

test.concurrent('invalid_grant ends the login and nothing else', async () => {
  await using opened = await openFront()
  const { authorizationServer, errorOf, front, refreshes, world } = opened
  authorizationServer.expireAccessTokens()
  authorizationServer.revokeEverything()
  const [first] = await Promise.all([errorOf(), errorOf(), errorOf()])
  expect(first).toMatchObject({ code: 'AUTH_REQUIRED', command: 'gateway login notes' })
  expect(refreshes()).toBe(1)
  for (let call = 0; call < 5; call++) expect(await errorOf()).toMatchObject({ code: 'AUTH_REQUIRED' })
  expect((await world.call('notes')).status).toBe(77)
  expect(refreshes()).toBe(1)
  expect(await stateOf(front, 'notes')).toBe('login needed')
  const listed = JSON.parse((await world.run(['credentials', 'list', '--json'])).stdout).credentials
  expect(listed).toEqual([expect.objectContaining({ server: 'notes', state: 'login needed' })])

  const { registrations } = authorizationServer.counts
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  expect(authorizationServer.counts.registrations).toBe(registrations)
  expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
})
