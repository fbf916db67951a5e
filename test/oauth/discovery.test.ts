import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { login } from '../../src/oauth/login.js'
import { openAuthorizationServer, type WellKnown } from '../fixtures/authorization-server.js'
import { somebody } from './people.js'
import { failure, httpServer, openScene } from './scene.js'

const AT_PATH = '/.well-known/oauth-protected-resource/mcp'
const AT_ROOT = '/.well-known/oauth-protected-resource'

describe('where the resource metadata is', () => {
  test.each([
    ['absolute', 'path', [AT_PATH]],
    ['absolute', 'root', [AT_ROOT]],
    ['absolute', 'both', [AT_PATH]],
    ['relative', 'path', [AT_PATH]],
    ['relative', 'root', [AT_ROOT]],
    ['relative', { path: '/elsewhere/meta' }, undefined],
    ['unquoted', 'path', [AT_PATH]],
    ['several', 'path', [AT_PATH]],
    ['bare', 'path', [AT_PATH]],
    ['bare', 'root', [AT_PATH, AT_ROOT]],
    ['absent', 'path', [AT_PATH]],
    ['absent', 'root', [AT_PATH, AT_ROOT]],
    ['absent', 'both', [AT_PATH]],
  ] as const)('challenge %s, metadata at %o', async (challenge, metadataAt, asked) => {
    const scene = await openScene({ server: { challenge, metadataAt } })
    const record = await scene.login()
    const isAboutOrigin = metadataAt === 'root' && ['bare', 'absent'].includes(challenge)
    const resource = isAboutOrigin ? scene.server.origin : scene.server.url
    expect(record).toMatchObject({ resource, tokens: { accessToken: expect.stringMatching(/^at-/) } })
    for (const endpoint of ['authorize', 'token'] as const)
      expect(scene.issuer.requestsTo(endpoint).map(({ params }) => params.resource)).toEqual([resource])
    if (asked) expect(scene.server.metadataRequests()).toEqual(asked)
  })

  test('a place in the challenge where there is nothing: the well-known ones are asked', async () => {
    const scene = await openScene({ server: { challenge: { verbatim: 'Bearer resource_metadata="/gone"' } } })
    await scene.login()
    expect(scene.server.metadataRequests()).toEqual([AT_PATH])
  })

  test('metadata in spite of the challenge that comes with calls only', async () => {
    const scene = await openScene({ server: { loginFor: 'calls' } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })

  test('a server that wants no login', async () => {
    const scene = await openScene({ server: { loginFor: 'nothing', metadataAt: 'nowhere' } })
    const person = somebody()
    expect(await scene.login(person)).toBeUndefined()
    expect(person.shown).toEqual([])
  })

  test.each([
    ['another path', (origin: string) => `${origin}/other`],
    ['another origin', () => 'https://other.example/mcp'],
    ['a longer path', (origin: string) => `${origin}/mcp/deeper`],
    ['a trailing slash', (origin: string) => `${origin}/mcp/`],
    ['no URL', () => 'mcp'],
  ])('metadata of another resource is refused with both values: %s', async (_what, resourceOf) => {
    const scene = await openScene()
    const resource = resourceOf(scene.server.origin)
    scene.server.set({ metadata: { resource } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).toContain(JSON.stringify(resource))
    expect(message).toContain(JSON.stringify(scene.server.url))
    expect(scene.issuer.requests).toEqual([])
    expect(person.shown).toEqual([])
  })

  test('another resource that is configured is taken, and sent as it is', async () => {
    const scene = await openScene({ server: { path: '/' } })
    const resource = 'https://public.example'
    scene.server.set({ metadata: { resource } })
    await login(scene.configured({ resource }), { store: scene.store, userAgent: somebody() })
    for (const endpoint of ['authorize', 'token'] as const)
      expect(scene.issuer.requestsTo(endpoint).map(({ params }) => params.resource)).toEqual([resource])
  })

  test('a resource without a slash is sent without one', async () => {
    const scene = await openScene({ server: { path: '/' } })
    await scene.login()
    expect(scene.issuer.requestsTo('authorize')[0]?.params.resource).toBe(scene.server.origin)
  })

  test('"resource": false sends none', async () => {
    const scene = await openScene({
      issuer: { resource: 'refused', requireAudience: false },
      oauth: { resource: false },
    })
    expect(await scene.login()).toMatchObject({ tokens: {} })
    expect(scene.issuer.requests.filter(({ params }) => 'resource' in params)).toEqual([])
  })
})

describe('where the authorization server metadata is', () => {
  test.each<[path: string, wellKnown: WellKnown]>([
    ['', 'oauth-root'],
    ['', 'openid-root'],
    ['/tenant1', 'oauth-inserted'],
    ['/tenant1', 'openid-inserted'],
    ['/tenant1', 'openid-appended'],
  ])('issuer path %o, %s', async (path, wellKnown) => {
    const scene = await openScene({ issuer: { path, wellKnown: [wellKnown] } })
    expect(await scene.login()).toMatchObject({ server: { issuer: scene.issuer.issuer } })
  })

  test('a path issuer is asked for in the order of the specification', async () => {
    const scene = await openScene({ issuer: { path: '/t', wellKnown: ['openid-appended'] } })
    await scene.login()
    expect(scene.issuer.requestsTo('metadata').map(({ path }) => path)).toEqual([
      '/.well-known/oauth-authorization-server/t',
      '/.well-known/openid-configuration/t',
      '/t/.well-known/openid-configuration',
    ])
  })

  test('endpoints at odd paths', async () => {
    const scene = await openScene({ issuer: { path: '/x', paths: { token: '/oauth2/v9/tok.jsp', authorize: '/go' } } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })

  test('none at all: the error says where it was looked for', async () => {
    const scene = await openScene({ issuer: { wellKnown: [] } })
    const { message } = await failure(scene.login())
    expect(message).toContain(`${scene.issuer.issuer}/.well-known/oauth-authorization-server`)
    expect(message).toContain(`${scene.issuer.issuer}/.well-known/openid-configuration`)
  })

  test('503 says nothing about it: try later', async () => {
    const scene = await openScene()
    const down = createServer((_request, response) => response.writeHead(503).end())
    await new Promise<void>(resolve => down.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void down.close())
    const { port } = down.address() as AddressInfo
    scene.server.set({ metadata: { authorization_servers: [`http://127.0.0.1:${port}`] } })
    const { message } = await failure(scene.login(), 'SERVER_UNAVAILABLE')
    expect(message).toContain('503')
  })
})

describe('2025-03-26: a server without resource metadata', () => {
  test('is its own authorization server, with metadata', async () => {
    await using server = await openAuthorizationServer({ requireAudience: false })
    const scene = await openScene()
    // The MCP endpoint is on the authorization server, which knows nothing of it: 404, and the login is forced.
    const config = httpServer({ url: `${server.origin}/mcp` })
    const challenge = {}
    const record = await login(config, { store: scene.store, userAgent: somebody(), challenge })
    expect(record).toMatchObject({ server: { issuer: server.origin }, resource: config.url })
  })

  test('or without: then at the endpoints of that revision', async () => {
    await using server = await openAuthorizationServer({ wellKnown: [], requireAudience: false, iss: 'absent' })
    const scene = await openScene()
    const config = httpServer({ url: `${server.origin}/mcp` })
    await login(config, { store: scene.store, userAgent: somebody(), challenge: {} })
    expect(server.requestsTo('registration')).toHaveLength(1)
    expect(server.requestsTo('token').map(({ path }) => path)).toEqual(['/token'])
  })
})

describe('refused before anything is sent', () => {
  const nothingWasSent = (issuer: { requests: readonly { endpoint: string }[] }) =>
    expect(issuer.requests.filter(({ endpoint }) => endpoint !== 'metadata')).toEqual([])

  test.each([
    ['another host', 'https://evil.example'],
    ['a trailing slash', '/'],
    ['upper case', 'UPPER'],
  ])('metadata of another issuer: %s', async (_what, change) => {
    const scene = await openScene()
    const { issuer } = scene.issuer
    const wrong = change === '/' ? `${issuer}/` : change === 'UPPER' ? issuer.toUpperCase() : change
    scene.issuer.set({ metadata: { issuer: wrong } })
    const { message } = await failure(scene.login())
    expect(message).toContain(JSON.stringify(wrong))
    expect(message).toContain(JSON.stringify(issuer))
    nothingWasSent(scene.issuer)
  })

  test('another spelling of the issuer that is configured is taken', async () => {
    const scene = await openScene()
    const spelled = `${scene.issuer.issuer}/`
    scene.issuer.set({ metadata: { issuer: spelled }, iss: { wrong: spelled } })
    const config = scene.configured({ issuer: spelled })
    const record = await login(config, { store: scene.store, userAgent: somebody() })
    expect(record?.server.issuer).toBe(spelled)
  })

  test.each([
    ['absent', undefined, 'is "absent"'],
    ['plain only', ['plain'], 'is "plain"'],
    ['empty', [], 'is ""'],
  ])('no PKCE with S256: %s', async (_what, methods, said) => {
    const scene = await openScene({ issuer: { metadata: { code_challenge_methods_supported: methods } } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).toContain('S256')
    expect(message).toContain(said)
    expect(person.shown).toEqual([])
    nothingWasSent(scene.issuer)
  })

  test('no token endpoint', async () => {
    const scene = await openScene({ issuer: { metadata: { token_endpoint: undefined } } })
    expect((await failure(scene.login())).message).toContain('token_endpoint')
    nothingWasSent(scene.issuer)
  })
})

describe('the issuer in the answer (RFC 9207)', () => {
  test.each([
    ['another', { wrong: 'https://evil.example' }, '"https://evil.example"'],
    ['with a slash', 'slash', ''],
    ['none, although announced', 'missing', 'none'],
  ])('%s: the code is not exchanged, both values are said', async (_what, wrong, said) => {
    const scene = await openScene()
    const { issuer } = scene.issuer
    if (wrong === 'missing')
      scene.issuer.set({ iss: 'absent', metadata: { authorization_response_iss_parameter_supported: true } })
    else scene.issuer.set({ iss: wrong === 'slash' ? { wrong: `${issuer}/` } : (wrong as { wrong: string }) })
    const { message } = await failure(scene.login())
    expect(message).toContain(said || JSON.stringify(`${issuer}/`))
    expect(message).toContain(JSON.stringify(issuer))
    expect(scene.issuer.requestsTo('token')).toEqual([])
    expect(await scene.stored()).toBeUndefined()
  })

  test('a wrong one counts although it was not announced', async () => {
    const scene = await openScene({
      issuer: {
        iss: { wrong: 'https://evil.example' },
        metadata: { authorization_response_iss_parameter_supported: undefined },
      },
    })
    await failure(scene.login())
    expect(scene.issuer.requestsTo('token')).toEqual([])
  })

  test('in an error, too: nothing of what somebody else describes is shown', async () => {
    const user = { error: 'access_denied', error_description: 'call 555-EVIL' }
    const scene = await openScene({ issuer: { iss: { wrong: 'https://evil.example' }, user } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).not.toContain('555-EVIL')
    await expect.poll(() => person.pages.length).toBe(1)
    expect(person.pages[0]?.text).not.toContain('555-EVIL')
  })

  test('none, and none announced, is fine', async () => {
    const scene = await openScene({ issuer: { iss: 'absent' } })
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })
})
