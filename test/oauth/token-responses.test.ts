import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { login } from '../../src/oauth/login.js'
import { listLogins } from '../../src/oauth/login-record.js'
import { somebody } from './people.js'
import { failure, openScene, type Scene } from './scene.js'

const base64url = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
const idToken = (claims: object): string => `${base64url({ alg: 'RS256' })}.${base64url(claims)}.c2lnbmF0dXJl`

const withFields = (tokenFields: Readonly<Record<string, unknown>>): Promise<Scene> =>
  openScene({ issuer: { tokenFields } })

/** A login that is good, then one renewal that answers with these fields. */
async function renewedWith(tokenFields: Readonly<Record<string, unknown>>): Promise<Scene> {
  const scene = await openScene()
  await scene.login()
  scene.issuer.set({ tokenFields })
  const opened = scene.openLogin({ store: scene.openStore() })
  await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
  return scene
}

describe('tokens', () => {
  test('as a form, although JSON was asked for', async () => {
    const scene = await openScene({ issuer: { tokenFormat: 'form' } })
    const record = await scene.login()
    expect(record?.tokens?.accessToken).toMatch(/^at-/)
    expect(record?.tokens?.expiresAt).toBeGreaterThan(Date.now() + 3_500_000)
    const opened = scene.openLogin()
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    expect(scene.issuer.counts.refreshes).toBe(1)
  })

  test('JSON is asked for', async () => {
    const scene = await openScene()
    await scene.login()
    expect(scene.issuer.requestsTo('token')[0]?.headers.accept).toContain('application/json')
  })

  test.each([undefined, 'bearer', 'BEARER'])('token_type %o', async token_type => {
    const scene = await withFields({ token_type })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })

  test.each(['DPoP', 'mac', 'N_A'])('token_type %o is refused, by name, and without the token', async token_type => {
    const scene = await withFields({ token_type, access_token: 'secret-token' })
    const { message } = await failure(scene.login())
    expect(message.toLowerCase()).toContain(token_type.toLowerCase())
    expect(message).not.toContain('secret-token')
    expect(await scene.stored()).toBeUndefined()
  })

  test('of 64 KiB each', async () => {
    const scene = await openScene({ issuer: { tokenLength: 64 * 1024 } })
    const record = await scene.login()
    expect(record?.tokens?.accessToken).toHaveLength(64 * 1024)
    const opened = scene.openLogin({ store: scene.openStore() })
    expect(await opened.token()).toBe(record?.tokens?.accessToken)
  })

  test('are on disk sealed, for nobody else to read', async () => {
    const scene = await openScene()
    const record = await scene.login()
    const file = join(scene.directory, 'credentials.json')
    const text = await readFile(file, 'utf8')
    expect(text).not.toContain(record?.tokens?.accessToken)
    expect(text).not.toContain(record?.tokens?.refreshToken)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  test.each([
    ['no token', { access_token: undefined }],
    ['an empty token', { access_token: '' }],
    ['a token that is an object', { access_token: { value: 'x' } }],
  ])('%s cannot be used', async (_what, fields) => {
    const scene = await withFields(fields)
    await failure(scene.login())
    expect(await scene.stored()).toBeUndefined()
  })
})

describe('expires_in', () => {
  const lifetimeOf = async (scene: Scene): Promise<number | undefined> => {
    const { tokens } = (await scene.stored()) ?? {}
    return tokens?.expiresAt === undefined ? undefined : (tokens.expiresAt - tokens.issuedAt) / 1000
  }

  test.each([
    ['absent', undefined, undefined],
    ['a number as text', '3600', 3600],
    ['a fraction', 1800.5, 1800.5],
  ])('%s', async (_what, expires_in, lifetime) => {
    const scene = await withFields({ expires_in })
    await scene.login()
    expect(await lifetimeOf(scene)).toBe(lifetime)
  })

  // Whatever it is, it must not cost the login: on a refresh the old refresh token is gone by then.
  test.each([
    ['null', null],
    ['negative', -1],
    ['a word', 'soon'],
    ['empty', ''],
    ['an object', {}],
    ['the end of time', Number.MAX_SAFE_INTEGER],
    ['more than a number holds', '1e999'],
  ])('%s: the tokens are kept', async (_what, expires_in) => {
    const scene = await withFields({ expires_in })
    const record = await scene.login()
    const opened = scene.openLogin({ store: scene.openStore() })
    expect(await opened.token()).toBe(record?.tokens?.accessToken)
    expect(opened.status()).toMatchObject({ kind: 'logged in' })
    expect(await listLogins(scene.store)).toMatchObject([{ server: 'shop', state: 'logged in' }])
  })

  test.each([
    ['null', null],
    ['negative', -1],
    ['a word', 'soon'],
    ['more than a number holds', '1e999'],
  ])('%s in a renewal: the new refresh token is kept', async (_what, expires_in) => {
    const scene = await renewedWith({ expires_in })
    scene.issuer.set({ tokenFields: {} })
    const opened = scene.openLogin({ store: scene.openStore() })
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    expect(scene.issuer.counts).toMatchObject({ refreshes: 2, reuses: 0 })
  })
})

describe('null where there is nothing', () => {
  test.each(['refresh_token', 'scope', 'id_token', 'token_type'])('%s', async name => {
    const scene = await withFields({ [name]: null })
    expect(await scene.login()).toMatchObject({ tokens: { accessToken: expect.stringMatching(/^at-/) } })
  })

  test('as the refresh token of a renewal: the old one stays', async () => {
    const scene = await openScene({ issuer: { onRefresh: 'keep' } })
    const before = await scene.login()
    scene.issuer.set({ tokenFields: { refresh_token: null } })
    const opened = scene.openLogin()
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    expect((await scene.stored())?.tokens?.refreshToken).toBe(before?.tokens?.refreshToken)
  })
})

describe('an error', () => {
  const json = { 'content-type': 'application/json' }

  test('with HTTP 200', async () => {
    const body = JSON.stringify({ error: 'bad_verification_code', error_description: 'it is wrong' })
    const scene = await openScene({ issuer: { tokenFailure: { how: { status: 200, headers: json, body } } } })
    expect((await failure(scene.login())).message).toContain('bad_verification_code: it is wrong')
  })

  test('as a form with HTTP 200', async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = 'error=incorrect_client_credentials&error_description=no'
    const scene = await openScene({ issuer: { tokenFailure: { how: { status: 200, headers, body } } } })
    expect((await failure(scene.login())).message).toContain('incorrect_client_credentials')
  })

  test('with a hostile description is escaped and shortened', async () => {
    const body = JSON.stringify({ error: 'invalid_grant', error_description: `\u001b[2J\n${'x'.repeat(5_000)}` })
    const scene = await openScene({ issuer: { tokenFailure: { how: { status: 400, headers: json, body } } } })
    const { message } = await failure(scene.login())
    expect([...message].filter(character => character < ' ')).toEqual([])
    expect(message.length).toBeLessThan(600)
  })

  test.each([
    ['a page', 'unavailable'],
    ['HTML with HTTP 403', 'html 403'],
    ['a connection that is cut', 'reset'],
    ['an empty 200', { status: 200 }],
    ['HTML with HTTP 200', { status: 200, body: '<h1>Welcome to the hotel</h1>' }],
  ] as const)('that says nothing about the login is one to try later: %s', async (_what, how) => {
    const scene = await openScene({ issuer: { tokenFailure: { how } } })
    await failure(scene.login(), 'SERVER_UNAVAILABLE')
  })
})

describe('the account', () => {
  test.each([
    [{ sub: '7', name: 'Ann', preferred_username: 'ann', email: 'ann@shop.example' }, 'ann@shop.example'],
    [{ sub: '7', name: 'Ann', preferred_username: 'ann' }, 'ann'],
    [{ sub: '7', name: 'Ann' }, 'Ann'],
    [{ sub: '7' }, '7'],
  ])('%o', async (claims, account) => {
    const scene = await withFields({ id_token: idToken(claims) })
    expect(await scene.login()).toMatchObject({ account })
    expect(await listLogins(scene.store)).toMatchObject([{ account }])
  })

  test.each(['no token', 'a.b.c', idToken({ email: 7 })])('none in %o', async id_token => {
    const scene = await withFields({ id_token })
    expect(await scene.login()).not.toHaveProperty('account')
  })

  test('and the scopes are those that were granted', async () => {
    const scene = await openScene({ issuer: { grantedScope: 'less' } })
    await login(scene.config, { store: scene.store, userAgent: somebody() })
    expect(await listLogins(scene.store)).toMatchObject([{ scopes: ['less'] }])
  })
})
