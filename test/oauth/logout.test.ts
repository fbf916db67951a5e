import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { logout } from '../../src/oauth/logout.js'
import { registrationEntry } from '../../src/oauth/registration.js'
import { failure, openScene, quietPort, type Scene } from './scene.js'

const revoked = ({ issuer }: Scene): unknown[] => issuer.requestsTo('revocation').map(({ params }) => params.token)

describe('logout', () => {
  test('revokes both tokens, the one that could bring others first, then deletes them', async () => {
    const scene = await openScene()
    const { tokens } = (await scene.login()) ?? {}
    expect(await logout(scene.config.name, { store: scene.store, config: scene.config })).toEqual({
      wasLoggedIn: true,
      notRevoked: undefined,
    })
    expect(revoked(scene)).toEqual([tokens?.refreshToken, tokens?.accessToken])
    expect(scene.issuer.isValid(String(tokens?.accessToken), scene.server.url)).toBe(false)
    expect(scene.issuer.grantOf(String(tokens?.refreshToken))?.isRevoked).toBe(true)
    expect(await scene.stored()).toBeUndefined()
  })

  test.each<[what: string, config: (scene: Scene) => Scene['config'] | undefined]>([
    ['whose URL has changed since', scene => ({ ...scene.config, url: 'https://elsewhere.example/mcp' })],
    ['that is in the servers file no more', () => undefined],
    ['that wants no OAuth any more', scene => scene.configured(false)],
  ])('of a server %s: the tokens are revoked where they came from', async (_what, configOf) => {
    const scene = await openScene()
    const { tokens } = (await scene.login()) ?? {}
    expect(await logout(scene.config.name, { store: scene.store, config: configOf(scene) })).toEqual({
      wasLoggedIn: true,
      notRevoked: undefined,
    })
    expect(revoked(scene)).toEqual([tokens?.refreshToken, tokens?.accessToken])
    expect(await scene.stored()).toBeUndefined()
  })

  test('keeps the registration for the next login', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    await scene.login()
    await logout(scene.config.name, { store: scene.store, config: scene.config })
    expect(await scene.store.read(registrationEntry(scene.issuer.issuer))).toBeDefined()
    await scene.login()
    expect(scene.issuer.counts.registrations).toBe(1)
  })

  test('proves who it is as at the token endpoint', async () => {
    const registration = { token_endpoint_auth_method: 'client_secret_basic' } as const
    const scene = await openScene({ issuer: { registration } })
    await scene.login()
    expect(await logout(scene.config.name, { store: scene.store, config: scene.config })).toMatchObject({
      notRevoked: undefined,
    })
    expect(scene.issuer.requestsTo('revocation')[0]?.headers.authorization).toMatch(/^Basic /)
  })

  test('of somebody who is not logged in', async () => {
    const scene = await openScene()
    expect(await logout(scene.config.name, { store: scene.store, config: scene.config })).toEqual({
      wasLoggedIn: false,
      notRevoked: undefined,
    })
    expect(scene.issuer.requests).toEqual([])
  })

  test('twice', async () => {
    const scene = await openScene()
    await scene.login()
    await logout(scene.config.name, { store: scene.store, config: scene.config })
    expect(await logout(scene.config.name, { store: scene.store, config: scene.config })).toMatchObject({
      wasLoggedIn: false,
    })
    expect(revoked(scene)).toHaveLength(2)
  })

  test('that keeps the login at the server, where it goes on elsewhere', async () => {
    const scene = await openScene()
    const { tokens } = (await scene.login()) ?? {}
    expect(
      await logout(scene.config.name, { store: scene.store, config: scene.config, keepAtServer: true }),
    ).toMatchObject({ wasLoggedIn: true })
    expect(revoked(scene)).toEqual([])
    expect(scene.issuer.isValid(String(tokens?.accessToken), scene.server.url)).toBe(true)
    expect(await scene.stored()).toBeUndefined()
  })

  test('with a server that has no revocation: deletes all the same, and says so', async () => {
    const scene = await openScene({ issuer: { metadata: { revocation_endpoint: undefined } } })
    await scene.login()
    const { notRevoked } = await logout(scene.config.name, { store: scene.store, config: scene.config })
    expect(notRevoked).toContain('no revocation endpoint')
    expect(await scene.stored()).toBeUndefined()
  })

  test('with a server that is gone: deletes all the same, and says so', async () => {
    const scene = await openScene()
    await scene.login()
    await scene.issuer.close()
    const { notRevoked } = await logout(scene.config.name, { store: scene.store, config: scene.config })
    expect(notRevoked).toContain(scene.issuer.issuer)
    expect(await scene.stored()).toBeUndefined()
  })

  test('with a server that forgot the client: deletes all the same, and says so', async () => {
    const scene = await openScene()
    await scene.login()
    scene.issuer.forgetClients()
    expect((await logout(scene.config.name, { store: scene.store, config: scene.config })).notRevoked).toBeDefined()
    expect(await scene.stored()).toBeUndefined()
  })

  test('while a refresh is under way: what it brings is revoked, too', async () => {
    const scene = await openScene({ issuer: { tokenLatencyMs: 200 } })
    await scene.login()
    await scene.age(3_600_000)
    const renewal = Promise.resolve(scene.openLogin({ store: scene.openStore() }).token())
    await expect.poll(() => scene.issuer.counts.refreshes).toBe(1)
    await logout(scene.config.name, { store: scene.openStore(), config: scene.config })
    const renewed = await renewal
    expect(revoked(scene)).toContain(renewed)
    expect(scene.issuer.isValid(String(renewed), scene.server.url)).toBe(false)
    expect(await scene.stored()).toBeUndefined()
  })

  test('leaves nothing of the tokens on disk, and other logins alone', async () => {
    const scene = await openScene()
    await scene.store.update('login/other', () => ({ issuer: 'i', resource: 'r', value: 1 }))
    await scene.login()
    await logout(scene.config.name, { store: scene.store, config: scene.config })
    const file = JSON.parse(await readFile(join(scene.directory, 'credentials.json'), 'utf8'))
    expect(JSON.stringify(file)).not.toContain('login/shop')
    expect(await scene.store.read('login/other')).toMatchObject({ value: 1 })
  })

  test('a gateway that runs asks for a login afterwards', async () => {
    const scene = await openScene()
    const record = await scene.login()
    const opened = scene.openLogin({ store: scene.openStore() })
    expect(await opened.token()).toBe(record?.tokens?.accessToken)
    await logout(scene.config.name, { store: scene.store, config: scene.config })
    await expect.poll(() => opened.token(), { timeout: 5_000 }).toBeUndefined()
    await failure(opened.onUnauthorized({ status: 401, challenge: undefined, token: undefined }), 'AUTH_REQUIRED')
  })
})
