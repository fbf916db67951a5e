import { describe, expect, test } from 'vitest'
import { login } from '../../src/oauth/login.js'
import { logout } from '../../src/oauth/logout.js'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { somebody } from './people.js'
import { failure, openScene, quietPort } from './scene.js'

describe('dynamic registration', () => {
  test('says what the gateway is', async () => {
    const scene = await openScene()
    await scene.login()
    const [request] = scene.issuer.requestsTo('registration')
    expect(request?.params).toMatchObject({
      application_type: 'native',
      client_name: 'Agent MCP Gateway',
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      grant_types: expect.arrayContaining(['authorization_code', 'refresh_token']),
      redirect_uris: [expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/callback$/)],
    })
  })

  test('is done once for ten logins', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    for (let count = 0; count < 10; count++) {
      await scene.login()
      if (count === 5) await logout(scene.config.name, { store: scene.store, config: scene.config })
    }
    expect(scene.issuer.counts.registrations).toBe(1)
    expect(new Set(scene.issuer.requestsTo('authorize').map(({ params }) => params.client_id)).size).toBe(1)
  })

  test('is done again for a redirect URI that it does not cover', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    await scene.login()
    const config = scene.configured({ callbackPort: await quietPort() })
    expect(await login(config, { store: scene.store, userAgent: somebody() })).toMatchObject({ tokens: {} })
    expect(scene.issuer.counts.registrations).toBe(2)
  })

  test('keeps the port it was done with', async () => {
    const scene = await openScene()
    const port = await quietPort()
    await login(scene.configured({ callbackPort: port }), { store: scene.store, userAgent: somebody() })
    const person = somebody()
    await scene.login(person)
    expect(person.shown).toMatchObject([{ redirectUri: `http://127.0.0.1:${port}/callback` }])
    expect(scene.issuer.counts.registrations).toBe(1)
  })

  test('is renewed exactly once when the server forgot it, before the person sees an error page', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    await scene.login()
    scene.issuer.forgetClients()
    const person = somebody()
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(scene.issuer.counts.registrations).toBe(2)
    expect(person.opened).toHaveLength(1)
    await scene.login()
    expect(scene.issuer.counts.registrations).toBe(2)
  })

  test('is renewed once when the server tells only at the token endpoint', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    await scene.login()
    scene.issuer.set({ tokenFailure: { how: 'invalid_client', times: 1 } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
    expect(scene.issuer.counts.registrations).toBe(2)
  })

  test('is not renewed for ever', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    await scene.login()
    scene.issuer.set({ tokenFailure: { how: 'invalid_client' } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).toContain('invalid_client')
    expect(scene.issuer.counts.registrations).toBe(2)
    expect(person.opened).toHaveLength(2)
  })

  test('is done again when its secret has expired', async () => {
    const past = Math.floor(Date.now() / 1000) - 10
    const registration = { token_endpoint_auth_method: 'client_secret_basic', client_secret_expires_at: past } as const
    const scene = await openScene({ issuer: { registration }, oauth: { callbackPort: await quietPort() } })
    await scene.login()
    await scene.login()
    expect(scene.issuer.counts.registrations).toBe(2)
  })

  test('a response without client_secret_expires_at', async () => {
    const registration = { token_endpoint_auth_method: 'client_secret_post', client_secret_expires_at: null } as const
    const scene = await openScene({ issuer: { registration } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })

  test('a response with null where there is nothing', async () => {
    const fields = { client_secret: null, client_secret_expires_at: null, registration_access_token: null }
    const scene = await openScene({ issuer: { registration: { fields } } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })

  test('a refusal is told, with the key to set', async () => {
    const body = JSON.stringify({ error: 'invalid_redirect_uri', error_description: 'no \u001b[31mloopback' })
    const headers = { 'content-type': 'application/json' }
    const scene = await openScene({ issuer: { registration: { refuse: { status: 400, headers, body } } } })
    const { message } = await failure(scene.login())
    expect(message).toContain('invalid_redirect_uri')
    expect(message).toContain('oauth')
    expect(message).toContain('clientId')
    expect(message).not.toContain('\u001b')
  })

  test.each([
    [503, 'SERVER_UNAVAILABLE'],
    [429, 'SERVER_UNAVAILABLE'],
    [403, 'LOGIN_FAILED'],
    [200, 'LOGIN_FAILED'],
  ] as const)('a page of HTML with HTTP %i', async (status, code) => {
    const scene = await openScene({ issuer: { registration: { refuse: { status, body: '<h1>Hello</h1>' } } } })
    const { message } = await failure(scene.login(), code)
    expect(message).toContain(String(status))
    expect(message).not.toContain('<h1>')
  })

  test('a server that registers nobody: the error names the key to set, and the redirect URI', async () => {
    const port = await quietPort()
    const scene = await openScene({ issuer: { registration: false }, oauth: { callbackPort: port } })
    const { message } = await failure(scene.login())
    expect(message).toContain('"clientId"')
    expect(message).toContain(`http://127.0.0.1:${port}/callback`)
  })
})

describe('the client that applies first', () => {
  const DOCUMENT = 'https://gateway.example/client.json'

  test('pre-registered, before a document and registration', async () => {
    const callbackPort = await quietPort()
    const redirect_uris = [`http://127.0.0.1:${callbackPort}/callback`]
    const scene = await openScene({
      issuer: { clients: [{ client_id: 'known', redirect_uris }], clientIdDocuments: [DOCUMENT] },
      oauth: { clientId: 'known', clientMetadataUrl: DOCUMENT, callbackPort },
    })
    expect(await scene.login()).toMatchObject({ client: { clientId: 'known', source: 'configured' } })
    expect(scene.issuer.counts.registrations).toBe(0)
  })

  test('a client ID metadata document, before registration', async () => {
    const scene = await openScene({
      issuer: { clientIdDocuments: [DOCUMENT] },
      oauth: { clientMetadataUrl: DOCUMENT },
    })
    expect(await scene.login()).toMatchObject({ client: { clientId: DOCUMENT, authMethod: 'none' } })
    expect(scene.issuer.counts.registrations).toBe(0)
  })

  test('registration, where the server knows no documents', async () => {
    const scene = await openScene({ oauth: { clientMetadataUrl: DOCUMENT } })
    expect(await scene.login()).toMatchObject({ client: { source: 'registered' } })
  })

  test('a configured client that the server does not know: nothing is registered in its place', async () => {
    const scene = await openScene({ oauth: { clientId: 'typo', clientSecret: 'x' } })
    await failure(scene.login(somebody({ visit: async () => undefined }), { timeLimitMs: 300 }))
    expect(scene.issuer.counts.registrations).toBe(0)
  })

  test('a wrong secret: the error names the keys to check', async () => {
    const callbackPort = await quietPort()
    const redirect_uris = [`http://127.0.0.1:${callbackPort}/callback`]
    const scene = await openScene({
      issuer: { clients: [{ client_id: 'known', client_secret: 'right', redirect_uris }] },
      oauth: { clientId: 'known', clientSecret: 'wrong-secret', callbackPort },
    })
    const { message } = await failure(scene.login())
    expect(message).toContain('"clientSecret"')
    expect(message).not.toContain('wrong-secret')
  })
})

describe('another authorization server than before', () => {
  test('gets a registration of its own, and nothing that belongs to the old one', async () => {
    const callbackPort = await quietPort()
    const registration = { token_endpoint_auth_method: 'client_secret_post' } as const
    const scene = await openScene({ issuer: { registration }, oauth: { callbackPort } })
    await using next = await openAuthorizationServer({ registration })
    const before = await scene.login()
    scene.server.set({ authorizationServer: next })
    const after = await scene.login()
    expect(after?.server.issuer).toBe(next.issuer)
    expect(next.counts.registrations).toBe(1)
    const sent = JSON.stringify(next.requests)
    const old = [before?.client.clientId, before?.client.clientSecret, before?.tokens?.accessToken]
    for (const value of [...old, before?.tokens?.refreshToken]) expect(sent).not.toContain(String(value))

    scene.server.set({ authorizationServer: scene.issuer })
    expect(await scene.login()).toMatchObject({ client: { clientId: before?.client.clientId } })
    expect(scene.issuer.counts.registrations).toBe(1)
  })

  test('of several that are listed the one of the earlier login stays', async () => {
    const scene = await openScene()
    await using other = await openAuthorizationServer()
    await scene.login()
    scene.server.set({ metadata: { authorization_servers: [other.issuer, scene.issuer.issuer] } })
    expect(await scene.login()).toMatchObject({ server: { issuer: scene.issuer.issuer } })
    expect(other.requests).toEqual([])
  })

  test('refuses a pre-registered client, with both issuers, and sends it nothing', async () => {
    const callbackPort = await quietPort()
    const clients = [
      { client_id: 'known', client_secret: 'pre-secret', redirect_uris: [`http://127.0.0.1:${callbackPort}/callback`] },
    ]
    const oauth = { clientId: 'known', clientSecret: 'pre-secret', callbackPort }
    const scene = await openScene({ issuer: { clients }, oauth })
    await using next = await openAuthorizationServer({ clients })
    await scene.login()
    scene.server.set({ authorizationServer: next })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).toContain(scene.issuer.issuer)
    expect(message).toContain(next.issuer)
    expect(person.shown).toEqual([])
    expect(next.requests.filter(({ endpoint }) => endpoint !== 'metadata')).toEqual([])

    const config = scene.configured({ ...oauth, issuer: next.issuer })
    expect(await login(config, { store: scene.store, userAgent: somebody() })).toMatchObject({ tokens: {} })
  })

  test('a refresh goes to the one that issued the tokens', async () => {
    const scene = await openScene()
    await using next = await openAuthorizationServer()
    const before = await scene.login()
    scene.server.set({ metadata: { authorization_servers: [next.issuer] } })
    const opened = scene.openLogin()
    const token = await opened.token()
    await opened.onUnauthorized({ status: 401, challenge: undefined, token })
    expect(await opened.token()).not.toBe(before?.tokens?.accessToken)
    expect(scene.issuer.counts.refreshes).toBe(1)
    expect(next.requests).toEqual([])
  })
})
