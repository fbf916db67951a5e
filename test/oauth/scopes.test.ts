import { describe, expect, test } from 'vitest'
import type { HttpServerConfig } from '../../src/config/servers-file.js'
import { login } from '../../src/oauth/login.js'
import { somebody } from './people.js'
import { failure, openScene, type Scene } from './scene.js'

const askedFor = ({ issuer }: Scene): unknown[] => issuer.requestsTo('authorize').map(({ params }) => params.scope)

const asSet = (scope: unknown): string[] => String(scope).split(' ').sort()

const INSUFFICIENT = 'Bearer error="insufficient_scope", scope="admin"'

/** A request of the gateway that is refused for want of scope. */
async function refused(
  scene: Scene,
  { challenge = INSUFFICIENT, config = scene.config, store = scene.openStore() } = {},
) {
  const opened = scene.openLogin({ store }, config)
  return opened.onUnauthorized({ status: 403, challenge, token: await opened.token() })
}

describe('the first authorization asks for', () => {
  test('what the challenge asks for', async () => {
    const scene = await openScene({ server: { challengeScope: 'read write', metadata: { scopes_supported: ['all'] } } })
    await scene.login()
    expect(askedFor(scene)).toEqual(['read write'])
  })

  test('else all that the resource lists', async () => {
    const scene = await openScene({ server: { challengeScope: null, metadata: { scopes_supported: ['a', 'b'] } } })
    await scene.login()
    expect(askedFor(scene)).toEqual(['a b'])
  })

  test('else nothing: the parameter is left out', async () => {
    const scene = await openScene({ server: { challengeScope: null } })
    await scene.login()
    expect(scene.issuer.requestsTo('authorize')[0]?.params).not.toHaveProperty('scope')
  })

  test('what is configured, before everything', async () => {
    const scene = await openScene({ server: { challengeScope: 'read' }, oauth: { scopes: ['mine'] } })
    await scene.login()
    expect(askedFor(scene)).toEqual(['mine'])
  })
})

describe('offline_access', () => {
  test('is asked for, with consent, where the server offers it, and gives a refresh token', async () => {
    const issuer = { scopesSupported: ['openid', 'offline_access'], issueRefreshTokens: 'with offline_access' } as const
    const scene = await openScene({ issuer })
    const record = await scene.login()
    expect(asSet(askedFor(scene)[0])).toEqual(['mcp', 'offline_access'])
    expect(scene.issuer.requestsTo('authorize')[0]?.params.prompt).toBe('consent')
    expect(record?.tokens?.refreshToken).toMatch(/^rt-/)
  })

  test.each([[null], [['openid']]])('is not where it does not: %o', async scopesSupported => {
    const scene = await openScene({ issuer: { scopesSupported, issueRefreshTokens: 'with offline_access' } })
    const record = await scene.login()
    expect(askedFor(scene)).toEqual(['mcp'])
    expect(scene.issuer.requestsTo('authorize')[0]?.params).not.toHaveProperty('prompt')
    expect(record?.tokens?.refreshToken).toBeUndefined()
  })
})

describe('a request that is refused for want of scope', () => {
  test('leads to an authorization for the union of before and now', async () => {
    const scene = await openScene({ issuer: { scopesSupported: ['offline_access'] } })
    await scene.login()
    const { message, details } = await failure(refused(scene), 'AUTH_REQUIRED')
    expect(message).toContain('admin')
    expect(details).toMatchObject({ required_scopes: ['admin'] })
    const record = await scene.login()
    expect(asSet(askedFor(scene)[1])).toEqual(['admin', 'mcp', 'offline_access'])
    expect(asSet(record?.tokens?.scope)).toEqual(['admin', 'mcp', 'offline_access'])
  })

  test('adds what was granted beyond what was asked for', async () => {
    const scene = await openScene({ issuer: { grantedScope: 'mcp gift' } })
    await scene.login()
    await failure(refused(scene), 'AUTH_REQUIRED')
    await scene.login()
    expect(asSet(askedFor(scene)[1])).toEqual(['admin', 'gift', 'mcp'])
  })

  test('adds to configured scopes, too', async () => {
    const scene = await openScene({ oauth: { scopes: ['mine'] } })
    await scene.login()
    await failure(refused(scene), 'AUTH_REQUIRED')
    await scene.login()
    expect(asSet(askedFor(scene)[1])).toEqual(['admin', 'mine'])
  })

  test('takes the token that somebody else has got since', async () => {
    const scene = await openScene()
    await scene.login()
    const opened = scene.openLogin({ store: scene.openStore() })
    const token = await opened.token()
    await failure(opened.onUnauthorized({ status: 403, challenge: INSUFFICIENT, token }), 'AUTH_REQUIRED')
    const record = await scene.login()
    await opened.onUnauthorized({ status: 403, challenge: INSUFFICIENT, token })
    expect(await opened.token()).toBe(record?.tokens?.accessToken)
  })

  test('is not worth a fourth authorization, counted across requests and processes', async () => {
    const scene = await openScene({ issuer: { grantedScope: 'mcp' } })
    await scene.login()
    for (let attempt = 0; attempt < 2; attempt++) {
      // Refused again and again: that alone is no attempt.
      for (let request = 0; request < 5; request++) await failure(refused(scene), 'AUTH_REQUIRED')
      await scene.login()
    }
    expect(askedFor(scene)).toHaveLength(3)
    for (let request = 0; request < 3; request++) {
      const { message } = await failure(refused(scene), 'BACKEND_ERROR')
      expect(message).toContain('admin')
    }
  })

  test('in another order of the same scopes is the same', async () => {
    const scene = await openScene({ issuer: { grantedScope: 'mcp' } })
    await scene.login()
    for (const scope of ['a b', 'b a']) {
      await failure(
        refused(scene, { challenge: `Bearer error="insufficient_scope", scope="${scope}"` }),
        'AUTH_REQUIRED',
      )
      await scene.login()
    }
    await failure(refused(scene, { challenge: 'Bearer error="insufficient_scope", scope="a b"' }), 'BACKEND_ERROR')
  })

  test('without a word about which: the attempts are counted all the same', async () => {
    const scene = await openScene()
    await scene.login()
    const challenge = 'Bearer error="insufficient_scope"'
    for (let attempt = 0; attempt < 2; attempt++) {
      await failure(refused(scene, { challenge }), 'AUTH_REQUIRED')
      await scene.login()
    }
    await failure(refused(scene, { challenge }), 'BACKEND_ERROR')
  })

  test('with other scopes every time: that ends, too', async () => {
    const scene = await openScene()
    await scene.login()
    const outcomes: string[] = []
    for (let request = 0; request < 15; request++) {
      const challenge = `Bearer error="insufficient_scope", scope="scope${request}"`
      outcomes.push(await refused(scene, { challenge }).catch(error => error.code))
    }
    expect(outcomes.at(-1)).toBe('BACKEND_ERROR')
  })

  test('keeps the token: it is good for everything else', async () => {
    const scene = await openScene()
    const record = await scene.login()
    await failure(refused(scene), 'AUTH_REQUIRED')
    expect(await scene.openLogin().token()).toBe(record?.tokens?.accessToken)
  })

  test('a machine takes the step by itself, and stops as well', async () => {
    const clients = [{ client_id: 'robot', client_secret: 'robot-secret' }]
    const oauth = { grant: 'client_credentials', clientId: 'robot', clientSecret: 'robot-secret' }
    const scene = await openScene({ issuer: { clients }, oauth })
    const { config } = scene
    await login(config, { store: scene.store })
    const store = scene.openStore()
    await refused(scene, { config, store })
    const requests = () => scene.issuer.requestsTo('token').map(({ params }) => params.scope)
    expect(requests().map(asSet)).toEqual([['mcp'], ['admin', 'mcp']])
    await endsSoon(() => refused(scene, { config, store }))
    expect(requests()).toHaveLength(3)
  })
})

/** Refused however often it is repeated. */
async function endsSoon(request: () => Promise<void>): Promise<void> {
  const repeat = async () => {
    for (let count = 0; count < 5; count++) await request()
  }
  await failure(repeat(), 'BACKEND_ERROR')
}

test('a login under the same name for another URL is none', async () => {
  const scene = await openScene()
  await scene.login()
  const config: HttpServerConfig = { ...scene.config, url: `${scene.server.origin}/other` }
  expect(await scene.openLogin({}, config).token()).toBeUndefined()
  expect(await login(scene.config, { store: scene.store, userAgent: somebody() })).toBeDefined()
})
