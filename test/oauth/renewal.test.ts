import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { BackendLogin } from '../../src/oauth/backend-login.js'
import { registrationEntry } from '../../src/oauth/registration.js'
import type { FailureKind } from '../fixtures/authorization-server.js'
import { somebody } from './people.js'
import { failure, openScene, quietPort, type Scene, type SceneOptions } from './scene.js'

const HOUR = 3_600_000

const fileOf = ({ directory }: Scene): Promise<string> => readFile(join(directory, 'credentials.json'), 'utf8')

/** The server says 401 to the token that this login has. */
async function refused(opened: BackendLogin): Promise<void> {
  return opened.onUnauthorized({ status: 401, challenge: 'Bearer error="invalid_token"', token: await opened.token() })
}

/** Somebody has logged in, and the token has that long to live. */
async function openLoggedIn(lifeMs: number, options: SceneOptions = {}): Promise<Scene & { readonly token: string }> {
  const scene = await openScene(options)
  const record = await scene.login()
  await scene.age(HOUR - lifeMs)
  return { ...scene, token: record?.tokens?.accessToken ?? '' }
}

describe('ahead of time', () => {
  test('the old token serves while the new one is on its way', async () => {
    const scene = await openLoggedIn(20_000, { issuer: { tokenLatencyMs: 100 } })
    const opened = scene.openLogin()
    expect(await opened.token()).toBe(scene.token)
    await expect.poll(() => opened.token()).not.toBe(scene.token)
    expect(scene.issuer.counts.refreshes).toBe(1)
    expect(scene.issuer.isValid(String(await opened.token()), scene.server.url)).toBe(true)
  })

  test('sends the resource again, with the same client, to the same place, from a process that knows nothing', async () => {
    const scene = await openLoggedIn(-1, { issuer: { path: '/deep', paths: { token: '/odd/token.do' } } })
    const requestsBefore = scene.issuer.requests.length
    await scene.openLogin({ store: scene.openStore() }).token()
    const [refresh, ...others] = scene.issuer.requests.slice(requestsBefore)
    expect(others).toEqual([])
    expect(refresh).toMatchObject({
      path: '/deep/odd/token.do',
      params: { resource: scene.server.url, client_id: scene.issuer.requestsTo('authorize')[0]?.params.client_id },
    })
  })

  test('a token with time left is left alone', async () => {
    const scene = await openLoggedIn(5 * 60_000)
    const opened = scene.openLogin()
    for (let count = 0; count < 20; count++) expect(await opened.token()).toBe(scene.token)
    expect(scene.issuer.counts.refreshes).toBe(0)
  })

  test('a token that lives a minute is not renewed in most of it', async () => {
    const scene = await openScene({ issuer: { expiresIn: 60 } })
    await scene.login()
    await scene.age(40_000)
    await scene.openLogin().token()
    expect(scene.issuer.counts.refreshes).toBe(0)
  })

  test('that fails: calls go on with the old token, and it is not asked at every call', async () => {
    const scene = await openLoggedIn(20_000)
    scene.issuer.set({ tokenFailure: { how: 'unavailable' } })
    const opened = scene.openLogin()
    await opened.token()
    await expect.poll(() => scene.issuer.counts.failures).toBe(1)
    for (let count = 0; count < 20; count++) expect(await opened.token()).toBe(scene.token)
    expect(scene.issuer.counts.failures).toBe(1)
  })

  test('that is answered invalid_grant: the token serves for the time it has left', async () => {
    const scene = await openLoggedIn(20_000)
    scene.issuer.set({ tokenFailure: { how: 'invalid_grant' } })
    const opened = scene.openLogin()
    expect(await opened.token()).toBe(scene.token)
    await expect.poll(async () => (await scene.stored())?.tokens?.refreshToken).toBeUndefined()
    expect(await opened.token()).toBe(scene.token)
    expect(scene.issuer.counts.failures).toBe(1)
  })
})

describe('an expired token, or one that the server refuses', () => {
  test('twenty callers at once: one refresh', async () => {
    const scene = await openLoggedIn(-1, { issuer: { tokenLatencyMs: 50 } })
    const opened = scene.openLogin()
    const tokens = await Promise.all(Array.from({ length: 20 }, async () => opened.token()))
    expect(new Set(tokens).size).toBe(1)
    expect(tokens[0]).not.toBe(scene.token)
    expect(scene.issuer.counts).toMatchObject({ refreshes: 1, reuses: 0 })
  })

  test('twenty calls refused at once: one refresh', async () => {
    const scene = await openLoggedIn(HOUR, { issuer: { tokenLatencyMs: 50 } })
    const opened = scene.openLogin()
    const token = await opened.token()
    const refusal = { status: 401, challenge: undefined, token } as const
    await Promise.all(Array.from({ length: 20 }, () => opened.onUnauthorized(refusal)))
    expect(scene.issuer.counts).toMatchObject({ refreshes: 1, reuses: 0 })
    // One that comes late, about the old token, finds the new one.
    await opened.onUnauthorized(refusal)
    expect(scene.issuer.counts.refreshes).toBe(1)
  })

  test('six instances with twenty callers each: one refresh, no token used twice', async () => {
    const scene = await openLoggedIn(-1, { issuer: { tokenLatencyMs: 50 } })
    const instances = Array.from({ length: 6 }, () => scene.openLogin({ store: scene.openStore() }))
    const tokens = await Promise.all(
      instances.flatMap(opened => Array.from({ length: 20 }, async () => opened.token())),
    )
    expect(tokens).toHaveLength(120)
    expect(new Set(tokens).size).toBe(1)
    expect(scene.issuer.counts).toMatchObject({ refreshes: 1, reuses: 0 })
  })

  test('what another instance renewed is picked up', async () => {
    const scene = await openLoggedIn(HOUR)
    const [one, other] = [scene.openLogin({ store: scene.openStore() }), scene.openLogin({ store: scene.openStore() })]
    expect(await other.token()).toBe(scene.token)
    await refused(one)
    const renewed = await one.token()
    expect(renewed).not.toBe(scene.token)
    await expect.poll(() => other.token(), { timeout: 5_000 }).toBe(renewed)
    expect(scene.issuer.counts.refreshes).toBe(1)
  })

  test('at once, when its own token is refused', async () => {
    const scene = await openLoggedIn(HOUR)
    const [one, other] = [scene.openLogin({ store: scene.openStore() }), scene.openLogin({ store: scene.openStore() })]
    const token = await other.token()
    await refused(one)
    await other.onUnauthorized({ status: 401, challenge: undefined, token })
    expect(await other.token()).toBe(await one.token())
    expect(scene.issuer.counts.refreshes).toBe(1)
  })

  test('a login that somebody makes meanwhile is picked up, without a restart', async () => {
    const scene = await openScene()
    const opened = scene.openLogin({ store: scene.openStore() })
    expect(await opened.token()).toBeUndefined()
    expect(opened.status()).toEqual({ kind: 'none' })
    const record = await scene.login()
    await expect.poll(() => opened.token(), { timeout: 5_000 }).toBe(record?.tokens?.accessToken)
    expect(opened.status()).toMatchObject({ kind: 'logged in', expires_at: expect.stringContaining('T') })
  })

  test('no refresh token: a person is needed, and the server is not asked', async () => {
    const scene = await openLoggedIn(HOUR, { issuer: { issueRefreshTokens: 'never' } })
    const requests = scene.issuer.requests.length
    await failure(refused(scene.openLogin()), 'AUTH_REQUIRED')
    expect(scene.issuer.requests).toHaveLength(requests)
  })

  test('a fresh token that is refused as well is not renewed for ever', async () => {
    const scene = await openLoggedIn(HOUR)
    const opened = scene.openLogin()
    await refused(opened)
    for (let count = 0; count < 5; count++) await failure(refused(opened), 'AUTH_REQUIRED')
    expect(scene.issuer.counts.refreshes).toBe(1)
    expect(opened.status()).toEqual({ kind: 'login needed' })
  })
})

describe('a refresh token in the answer', () => {
  test('is kept before the new access token is used', async () => {
    const scene = await openLoggedIn(-1)
    const before = (await scene.stored())?.tokens?.refreshToken
    const token = await scene.openLogin().token()
    const stored = (await scene.stored())?.tokens
    expect(stored?.accessToken).toBe(token)
    expect(stored?.refreshToken).not.toBe(before)
  })

  test.each(['keep', 'omit'] as const)('%s: the old one goes on', async onRefresh => {
    const scene = await openLoggedIn(-1, { issuer: { onRefresh } })
    const before = (await scene.stored())?.tokens?.refreshToken
    const opened = scene.openLogin()
    await opened.token()
    expect((await scene.stored())?.tokens?.refreshToken).toBe(before)
    await scene.age(HOUR + 1)
    await scene.openLogin({ store: scene.openStore() }).token()
    expect(scene.issuer.counts.refreshes).toBe(2)
  })

  test('the scopes and the account of the login stay', async () => {
    const scene = await openLoggedIn(-1, { issuer: { grantedScope: 'less' } })
    const before = await scene.stored()
    scene.issuer.set({ tokenFields: { scope: undefined } })
    await scene.openLogin().token()
    const { tokens: _old, ...others } = before ?? {}
    expect(await scene.stored()).toMatchObject({ ...others, tokens: { scope: 'less' } })
  })
})

describe('an authorization server that has a bad day', () => {
  test.each<[what: string, how: FailureKind]>([
    ['503', 'unavailable'],
    ['429 with Retry-After', 'rate limited'],
    ['403 with HTML', 'html 403'],
    ['a connection that is reset', 'reset'],
    ['400 with HTML', { status: 400, body: '<h1>Bad Request</h1>' }],
    ['500 with an OAuth error', { status: 500, body: '{"error":"invalid_grant"}' }],
    ['200 with HTML', { status: 200, body: '<h1>Wi-Fi login</h1>' }],
    ['temporarily_unavailable', { status: 400, body: '{"error":"temporarily_unavailable"}' }],
    ['an unknown error', { status: 400, body: '{"error":"computer_says_no"}' }],
    ['a redirect', { status: 302, headers: { location: 'https://login.example/' } }],
  ])('%s: the stored bytes stay, no login is asked for, the next call tries again', async (_what, how) => {
    const scene = await openLoggedIn(-1)
    const before = await fileOf(scene)
    scene.issuer.set({ tokenFailure: { how, grantType: 'refresh_token' } })
    const opened = scene.openLogin()
    const { details } = await failure(Promise.resolve(opened.token()), 'SERVER_UNAVAILABLE')
    expect(details).toMatchObject({ login: 'kept' })
    await failure(Promise.resolve(opened.token()), 'SERVER_UNAVAILABLE')
    expect(scene.issuer.counts.failures).toBe(2)
    expect(await fileOf(scene)).toBe(before)
    expect(opened.status()).toMatchObject({ kind: 'logged in' })

    scene.issuer.set({ tokenFailure: null })
    expect(await opened.token()).not.toBe(scene.token)
    expect(scene.issuer.counts).toMatchObject({ refreshes: 1, reuses: 0, registrations: 1 })
  })

  test('the authorization server is gone', async () => {
    const scene = await openLoggedIn(-1)
    await scene.issuer.close()
    await failure(Promise.resolve(scene.openLogin().token()), 'SERVER_UNAVAILABLE')
    expect(await scene.stored()).toMatchObject({ tokens: { accessToken: scene.token } })
  })

  test('429: the time it asks for is told', async () => {
    const scene = await openLoggedIn(-1)
    scene.issuer.set({ tokenFailure: { how: 'rate limited' } })
    const { details } = await failure(Promise.resolve(scene.openLogin().token()), 'SERVER_UNAVAILABLE')
    expect(details).toMatchObject({ retry_after_ms: 1_000 })
  })

  test('an answer that is lost: the server has rotated, the login ends, and says so', async () => {
    const scene = await openLoggedIn(-1)
    scene.issuer.set({ tokenFailure: { how: 'lost answer', times: 1 } })
    const opened = scene.openLogin()
    await failure(Promise.resolve(opened.token()), 'SERVER_UNAVAILABLE')
    expect(await opened.token()).toBeUndefined()
    expect(opened.status()).toEqual({ kind: 'login needed' })
    expect(scene.issuer.counts.reuses).toBe(1)
    expect(await scene.login()).toMatchObject({ tokens: {} })
    expect(await scene.openLogin().token()).toMatch(/^at-/)
  })
})

describe('invalid_grant', () => {
  test('takes the tokens and nothing else; nothing is asked again', async () => {
    const scene = await openLoggedIn(-1, { oauth: { callbackPort: await quietPort() } })
    scene.issuer.revokeEverything()
    const opened = scene.openLogin()
    expect(await opened.token()).toBeUndefined()
    expect(opened.status()).toEqual({ kind: 'login needed' })
    expect(await scene.stored()).not.toHaveProperty('tokens')
    expect(await scene.store.read(registrationEntry(scene.issuer.issuer))).toBeDefined()

    const requests = scene.issuer.requests.length
    for (let count = 0; count < 5; count++) await failure(refused(opened), 'AUTH_REQUIRED')
    const later = scene.openLogin({ store: scene.openStore() })
    await failure(refused(later), 'AUTH_REQUIRED')
    expect(later.status()).toEqual({ kind: 'login needed' })
    expect(scene.issuer.requests).toHaveLength(requests)

    await scene.login(somebody())
    expect(scene.issuer.counts.registrations).toBe(1)
  })

  test('after the server refused the token: it is gone for every process, whatever time it had left', async () => {
    const scene = await openLoggedIn(HOUR)
    scene.issuer.revokeEverything()
    const opened = scene.openLogin()
    await failure(refused(opened), 'AUTH_REQUIRED')
    expect(opened.status()).toEqual({ kind: 'login needed' })
    const other = scene.openLogin({ store: scene.openStore() })
    expect(await other.token()).toBeUndefined()
    expect(other.status()).toEqual({ kind: 'login needed' })
  })

  test('a client that the server forgot ends the login, too', async () => {
    const scene = await openLoggedIn(-1)
    scene.issuer.forgetClients()
    expect(await scene.openLogin().token()).toBeUndefined()
    expect(await scene.stored()).not.toHaveProperty('tokens')
  })

  test('a configured client that is refused says nothing about the login', async () => {
    const callbackPort = await quietPort()
    const redirect_uris = [`http://127.0.0.1:${callbackPort}/callback`]
    const clients = [{ client_id: 'known', client_secret: 'right', redirect_uris }]
    const oauth = { clientId: 'known', clientSecret: 'right', callbackPort }
    const scene = await openLoggedIn(-1, { issuer: { clients }, oauth })
    const config = scene.configured({ ...oauth, clientSecret: 'changed' })
    await failure(Promise.resolve(scene.openLogin({}, config).token()), 'SERVER_UNAVAILABLE')
    expect(await scene.openLogin().token()).not.toBe(scene.token)
  })
})
