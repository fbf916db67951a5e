import { describe, expect, test } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openOidcProvider } from '../fixtures/oidc-provider.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { executing, type Front, openWorld, type World } from './login-world.js'

const PROCESSES = 6
const CALLS = 20

/** Three processes of either front, all of them up; none has called the server yet. */
async function openFronts(world: World): Promise<Front[]> {
  const fronts = [0, 1, 2].map(() => world.stdio())
  const served = await Promise.all([0, 1, 2].map(() => world.serve()))
  const all = [...fronts, ...served]
  expect(all).toHaveLength(PROCESSES)
  await Promise.all(all.map(front => front.call('list_servers', {})))
  return all
}

async function callFromAll(fronts: readonly Front[]): Promise<number> {
  const answers = await Promise.all(
    fronts.flatMap(front => Array.from({ length: CALLS }, () => front.call(...executing('notes')))),
  )
  const errors = answers.flatMap(({ isError, structuredContent }) =>
    isError ? [JSON.stringify(structuredContent)] : [],
  )
  expect([...new Set(errors)], `${errors.length} failed`).toEqual([])
  return answers.filter(({ content }) => content[0]?.text === 'hello').length
}

describe('six processes, twenty calls each', () => {
  test('an expired token is renewed once, and again once when the server refuses it', async () => {
    await using authorizationServer = await openAuthorizationServer({ expiresIn: 1, tokenLatencyMs: 50 })
    await using server = await openProtectedServer({ authorizationServer })
    await using world = await openWorld({ notes: { url: server.url } })
    expect(await world.logIn('notes')).toMatchObject({ status: 0 })
    const expired = Date.now() + 1_000
    authorizationServer.set({ expiresIn: 3600 })
    const fronts = await openFronts(world)
    await expect.poll(() => Date.now()).toBeGreaterThan(expired)

    expect(await callFromAll(fronts)).toBe(PROCESSES * CALLS)
    expect(authorizationServer.requestsTo('token', { grant_type: 'refresh_token' })).toHaveLength(1)

    // Everybody thinks now that the token is good.
    authorizationServer.expireAccessTokens()
    expect(await callFromAll(fronts)).toBe(PROCESSES * CALLS)
    expect(authorizationServer.requestsTo('token', { grant_type: 'refresh_token' })).toHaveLength(2)
    expect(authorizationServer.counts).toMatchObject({ refreshes: 2, reuses: 0, failures: 0 })
    expect(server.calls).toBe(2 * PROCESSES * CALLS)
  })

  test('oidc-provider, which revokes everything when a refresh token is used twice, has no reason to', async () => {
    await using provider = await openOidcProvider({
      issueRefreshTokens: 'always',
      expiresIn: 4,
      configuration: { rotateRefreshToken: true },
    })
    await using server = await openProtectedServer({ authorizationServer: provider })
    await using world = await openWorld({ notes: { url: server.url } })
    const { url, ended } = await world.startLogin('notes')
    await (await fetch(await provider.logIn(url))).text()
    expect(await ended).toMatchObject({ status: 0 })
    const expired = Date.now() + 4_000
    const fronts = [0, 1, 2, 3, 4, 5].map(() => world.stdio())
    await Promise.all(fronts.map(front => front.call('list_servers', {})))
    await expect.poll(() => Date.now(), { timeout: 10_000 }).toBeGreaterThan(expired)

    expect(await callFromAll(fronts)).toBe(PROCESSES * CALLS)
    expect(provider.counts.revoked).toBe(0)
    expect(provider.counts.grants.refresh_token).toBeGreaterThan(0)
    const refreshes = provider.requests.filter(({ path }) => path === '/token').length - 1
    expect(provider.counts.grants.refresh_token).toBe(refreshes)
    expect(await callFromAll(fronts.slice(0, 1))).toBe(CALLS)
  })
})
