import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { decodeJwt, decodeProtectedHeader } from 'jose'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { serveGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'
import { ask } from '../fixtures/http.js'
import { commonHeaders, initialize, modern } from '../fixtures/http-clients.js'
import { type InspectorSite, openInspectorSite, type WireRequest, watchWire, within } from '../fixtures/inspector.js'
import type { Line, Question } from '../fixtures/inspector-page.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'
import { type OidcProvider, openOidcProvider } from '../fixtures/oidc-provider.js'

let browser: Browser
let provider: OidcProvider
let brokenIssuer: TestIssuer
let site: InspectorSite
beforeAll(async () => {
  // Nothing is answered in the network's place, for then preflights would be, too; what is elsewhere is not found.
  const here = '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.localhost'
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', here] })
  const configuration = { extraTokenClaims: () => ({ groups: ['testers'] }) }
  provider = await openOidcProvider({ isOpenToPages: true, accessTokens: 'jwt', configuration })
  brokenIssuer = await openIssuer()
  brokenIssuer.failWith(500)
  site = await openInspectorSite()
})
afterAll(async () => {
  await browser.close()
  await Promise.all([provider.close(), brokenIssuer.stop(), site[Symbol.asyncDispose]()])
})

/** A gateway, and the origins of two pages: one may use it. */
interface Scene {
  readonly url: string
  readonly origin: string
  readonly foreignOrigin: string
  /** What pages of any origin may read. */
  readonly open: readonly string[]
  close(): Promise<void>
}

async function openGateway(env: Readonly<Record<string, string>> = {}) {
  const identity = { issuers: [{ issuer: brokenIssuer.issuer }], agents: { tester: { groups: 'testers' } } }
  const agents = { tester: { allow: { servers: ['social'] } } }
  const rules = { agents, identity, scopes: { 'social/touch': ['mcp:admin'] } }
  const files = await writeFiles({ servers: { social: nodeServer('servers/social-stdio.js') }, rules })
  const { process: serving, url } = await serveGateway([], {
    cwd: files.directory,
    env: { ...files.env, OAUTH_GATEWAY_URL: provider.issuer, ...env },
  })
  const port = Number(/"listening":"[^"]*:(\d+)"/.exec(serving.output.stderr)?.[1])
  const close = async () => {
    const ended = new Promise(resolve => serving.once('close', resolve))
    serving.kill()
    await ended
    await files.close()
  }
  return { url, port, close }
}

/** On loopback, for pages of this machine. */
async function openLocal(): Promise<Scene> {
  const { url, close } = await openGateway()
  const { port } = site
  return {
    url,
    origin: `http://127.0.0.1:${port}`,
    foreignOrigin: `http://inspector.localhost:${port}`,
    open: [],
    close,
  }
}

/** Behind a public URL, for pages of the origins it names. */
async function openPublic(): Promise<Scene> {
  let inside: number | undefined
  const proxy = createServer((incoming, outgoing) => {
    const { method, url: path, headers } = incoming
    const forwarded = send({ method, path, headers, host: '127.0.0.1', port: inside }, answer => {
      outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
      outgoing.flushHeaders()
      answer.pipe(outgoing)
    })
    forwarded.on('error', () => outgoing.destroy())
    outgoing.on('finish', () => incoming.unpipe(forwarded).resume()) // what is left of a body that was too large
    outgoing.on('close', () => forwarded.destroy())
    incoming.pipe(forwarded)
  })
  await new Promise<void>(resolve => proxy.listen(0, '127.0.0.1', resolve))
  const url = `http://gateway.localhost:${(proxy.address() as AddressInfo).port}/mcp`
  const origin = `http://inspector.localhost:${site.port}`
  const env = { MCP_RESOURCE_URI: url, MCP_SERVER_HOST: '0.0.0.0', CORS_ORIGINS: `https://app.example.com,${origin}` }
  const gateway = await openGateway(env)
  inside = gateway.port
  const close = async () => {
    proxy.closeAllConnections()
    await new Promise(resolve => proxy.close(resolve))
    await gateway.close()
  }
  return { url, origin, foreignOrigin: `http://127.0.0.1:${site.port}`, open: DOCUMENTS, close }
}

const DOCUMENTS = [
  '/.well-known/oauth-protected-resource',
  '/.well-known/oauth-protected-resource/mcp',
  '/.well-known/oauth-protected-resource/servers/social/mcp',
  '/.well-known/oauth-authorization-server',
  '/.well-known/openid-configuration',
  '/.well-known/jwks.json',
]
const patience = { timeout: 15_000 }

describe.each([
  ['on loopback, a page of this machine', openLocal],
  ['behind a public URL, a page of an origin in CORS_ORIGINS', openPublic],
])('%s', (_, open) => {
  let scene: Scene
  beforeAll(async () => {
    scene = await open()
  })
  afterAll(() => scene.close())

  const at = (path: string) => new URL(path, scene.url).href

  test('reads where to get a token, from the gateway and from its issuer', async () => {
    await using tab = await openTab(scene.url, scene.origin)
    const { page } = tab
    const opening = { headers: { 'content-type': 'application/json' }, body: JSON.stringify(initialize()) }
    const refused = await within(page, 'ask', scene.url, { method: 'POST', ...opening })
    const metadataUrl = at('/.well-known/oauth-protected-resource/mcp')
    expect(refused).toMatchObject({
      status: 401,
      headers: { 'www-authenticate': `Bearer resource_metadata="${metadataUrl}", scope="mcp"` },
    })
    const versioned = { headers: { 'MCP-Protocol-Version': '2025-11-25', Accept: 'application/json' } }
    const read = async (url: string): Promise<Record<string, unknown>> => {
      const answer = await within(page, 'ask', url, versioned)
      expect(answer, url).toMatchObject({ status: 200, text: expect.any(String) })
      return JSON.parse('text' in answer ? answer.text : '')
    }
    for (const url of [metadataUrl, at('/.well-known/oauth-protected-resource')]) {
      expect(await read(url)).toMatchObject({ resource: scene.url, scopes_supported: ['mcp'] })
      expect((await read(url)).authorization_servers).toEqual([provider.issuer, brokenIssuer.issuer])
    }
    const ofServer = await read(at('/.well-known/oauth-protected-resource/servers/social/mcp'))
    expect(ofServer.resource).toBe(at('/servers/social/mcp'))
    for (const kind of ['oauth-authorization-server', 'openid-configuration']) {
      const throughGateway = await read(at(`/.well-known/${kind}`))
      expect(throughGateway).toMatchObject({ issuer: provider.issuer, code_challenge_methods_supported: ['S256'] })
      expect(await read(`${provider.issuer}/.well-known/${kind}`)).toEqual(throughGateway)
    }
    expect(await read(at('/.well-known/jwks.json'))).toEqual({ keys: [expect.any(Object)] })
    expect(await read(at('/ready'))).toEqual({ status: 'ready' })
    expect(await within(page, 'ask', at('/health'))).toMatchObject({ status: 200, text: 'OK' })
  })

  test('logs in and is served in a session of 2025, to its end', async () => {
    await using tab = await openTab(scene.url, scene.origin)
    const { page } = tab
    await logIn(page, scene.url, '1.x')

    const connection = await within(page, 'connect', scene.url, '1.x')
    expect(connection).toEqual({
      protocolVersion: '2025-11-25',
      sessionId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      server: 'agent-mcp-gateway',
    })
    const sessionId = 'sessionId' in connection ? connection.sessionId : undefined
    const visible = { 'mcp-session-id': sessionId }
    const stream = { ...visible, 'content-type': 'text/event-stream' }
    const about = async (method: string) =>
      (await within(page, 'exchanges')).filter(({ request }) => request === `${method} ${scene.url}`)
    await expect.poll(() => about('GET'), patience).toMatchObject([{ status: 200, headers: stream }])
    expect(await within(page, 'listTools')).toContain('execute_tool')
    expect(await within(page, 'callTool', 'execute_tool', EXECUTE)).toMatchObject(EXECUTED)
    await within(page, 'disconnect')
    // Initialized, list and call.
    const [initialized, ...others] = await about('POST')
    expect(initialized).toMatchObject({ status: 200, headers: visible })
    expect(others.map(({ status }) => status)).toEqual([202, 200, 200])
    for (const { sent } of others) expect(sent).toEqual(expect.arrayContaining(['mcp-session-id', 'authorization']))
    expect(await about('DELETE')).toMatchObject([{ status: 200 }])

    const headers = { ...commonHeaders(await within(page, 'token')), 'mcp-session-id': String(sessionId) }
    const body = JSON.stringify({ jsonrpc: '2.0', id: 9, method: 'tools/list' })
    for (const question of [{ method: 'POST', body }, { method: 'GET' }, { method: 'DELETE' }]) {
      const answer = await within(page, 'ask', scene.url, { ...question, headers })
      expect(answer).toMatchObject({ status: 404, text: expect.stringContaining('Session not found') })
    }
    await expectPreflights(tab.wire, ['authorization', 'mcp-session-id', 'mcp-protocol-version', 'x-trial'])
  })

  test('hears in a session of 2025 what it did not ask for', async () => {
    await using tab = await openTab(scene.url, scene.origin)
    const { page } = tab
    await logIn(page, scene.url, '1.x')
    const url = at('/servers/social/mcp')
    await within(page, 'connect', url, '1.x')
    const isListening = async () => (await within(page, 'exchanges')).some(({ request }) => request === `GET ${url}`)
    await expect.poll(isListening, patience).toBe(true)
    await within(page, 'callTool', 'grow', { name: 'grown_2025' })
    await expect.poll(() => within(page, 'heard'), patience).toContain('notifications/tools/list_changed')
    expect(await within(page, 'listTools')).toContain('grown_2025')
    await within(page, 'callTool', 'talk', { label: 'on its way', party: 'one' })
    const progress = (await within(page, 'heard')).filter(name => name === 'notifications/progress')
    expect(progress).toHaveLength(3)
    await within(page, 'disconnect')
  })

  test('logs in and is served without a session, as of 2026', async () => {
    await using tab = await openTab(scene.url, scene.origin)
    const { page } = tab
    await logIn(page, scene.url, '2.x')

    expect(await within(page, 'connect', scene.url, '2.x')).toEqual({
      protocolVersion: '2026-07-28',
      server: 'agent-mcp-gateway',
    })
    expect(await within(page, 'listTools')).toContain('execute_tool')
    expect(await within(page, 'callTool', 'execute_tool', EXECUTE)).toMatchObject(EXECUTED)
    const everywhere = ['authorization', 'mcp-method', 'mcp-protocol-version']
    const [discovered, listed, called, ...more] = (await within(page, 'exchanges')).filter(({ request }) =>
      request.endsWith(scene.url),
    )
    expect(more).toEqual([])
    for (const exchange of [discovered, listed, called]) {
      expect(exchange).toMatchObject({ request: `POST ${scene.url}`, status: 200 })
      expect(exchange?.sent).toEqual(expect.arrayContaining(everywhere))
    }
    expect(called?.sent).toContain('mcp-name')

    await within(page, 'connect', at('/servers/social/mcp'), '2.x')
    const region = { region: 'größe' }
    // In a browser the SDK leaves these headers to its user.
    expect(await within(page, 'callTool', 'regional', region)).toEqual({ code: -32020 })
    const encoded = `=?base64?${Buffer.from(region.region).toString('base64')}?=`
    const taken = await within(page, 'callTool', 'regional', region, { 'Mcp-Param-Region': encoded })
    expect(taken).toMatchObject({ structuredContent: { arguments: region } })
    await within(page, 'listen')
    await within(page, 'callTool', 'grow', { name: 'grown_2026' })
    await expect.poll(() => within(page, 'heard'), patience).toContain('notifications/tools/list_changed')
    expect(await within(page, 'listTools')).toContain('grown_2026')
    await within(page, 'disconnect')
    await expectPreflights(tab.wire, [...everywhere, 'mcp-name', 'mcp-param-region'])
  })

  test('reads why it is refused', async () => {
    await using tab = await openTab(scene.url, scene.origin)
    const { page } = tab
    await logIn(page, scene.url, '1.x')
    const token = await within(page, 'token')
    const headers = commonHeaders(token)
    const post = { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }) }
    const withHeaders = (own: Record<string, string>) => ({ ...post, headers: { ...headers, ...own } })
    const touch = { name: 'execute_tool', arguments: { server: 'social', tool: 'touch', args: {} } }
    const unchecked = await brokenIssuer.sign({ aud: scene.url, agent_id: 'tester' })
    const challenge = (text: string) => ({ 'www-authenticate': expect.stringContaining(text) })
    const soon = { 'retry-after': expect.stringMatching(/^\d+$/) }
    const refusals: [status: number, url: string, question: Question, visible?: Record<string, unknown>][] = [
      [401, scene.url, withHeaders({ authorization: 'Bearer x' }), challenge('error="invalid_token"')],
      [400, scene.url, withHeaders({ authorization: 'Bearer' }), challenge('error="invalid_request"')],
      [403, scene.url, modern(token, 'tools/call', touch) as Question, challenge('scope="mcp:admin", error="insuffi')],
      [503, scene.url, withHeaders({ authorization: `Bearer ${unchecked}` }), soon],
      [404, scene.url, withHeaders({ 'mcp-session-id': 'none' })],
      [404, at('/servers/none/mcp'), post],
      [404, at('/nowhere'), {}],
      [400, scene.url, { ...post, body: '{' }],
      [405, scene.url, { headers }],
      [413, scene.url, { ...post, body: `"${'x'.repeat(5 * 1024 * 1024)}"` }],
      [415, scene.url, withHeaders({ 'content-type': 'text/plain' })],
    ]
    for (const [status, url, question, visible = {}] of refusals) {
      const answer = await within(page, 'ask', url, question)
      expect(answer).toMatchObject({ status, headers: visible, text: expect.stringContaining('{') })
    }
  })

  test('of another origin it gets no further than the public documents', async () => {
    await using tab = await openTab(scene.url, scene.foreignOrigin)
    const { page } = tab
    const versioned = { headers: { 'mcp-protocol-version': '2025-11-25' } }
    for (const path of scene.open) {
      expect(await within(page, 'ask', at(path), versioned)).toMatchObject({ status: 200 })
      expect(await within(page, 'ask', at(path))).toMatchObject({ status: 200 })
    }
    const closed = ['/mcp', '/servers/social/mcp', '/health', '/ready', '/status', ...DOCUMENTS].filter(
      path => !scene.open.includes(path),
    )
    const questions = [{}, versioned, { method: 'POST', body: '{}' }, { method: 'DELETE' }]
    const isRefused = ({ status }: WireRequest) => status === 403
    for (const url of closed.map(at)) {
      for (const question of questions)
        expect(await within(page, 'ask', url, question)).toEqual({ failure: 'TypeError: Failed to fetch' })
      for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS']) {
        const headers = { host: new URL(url).host, origin: scene.foreignOrigin }
        const answer = await ask(url.replace('gateway.localhost', '127.0.0.1'), { method, headers })
        expect([answer.status, answer.json().error]).toEqual([403, 'forbidden_origin'])
        expect(answer.headers['access-control-allow-origin']).toBeUndefined()
      }
    }
    await expect.poll(() => tab.wire().filter(isRefused), patience).toHaveLength(closed.length * questions.length)

    // A name that was pointed at this machine makes its pages the gateway's own origin, as far as the browser can tell.
    const rebound = at('/health').replace(/\/\/[^:]+/, '//rebound.localhost')
    expect((await page.goto(rebound))?.status()).toBe(403)
  })
})

const EXECUTE = { server: 'social', tool: 'regional', args: { region: 'eu' } }
const EXECUTED = { structuredContent: { arguments: { region: 'eu' } } }

/** A tab of a browser that knows nothing yet, with the page in it; and what goes from there to the gateway. */
async function openTab(url: string, origin: string) {
  const context = await browser.newContext()
  const page = await context.newPage()
  const wire = await watchWire(page, new URL(url).origin)
  await page.goto(`${origin}/`)
  return { page, wire, [Symbol.asyncDispose]: () => context.close() }
}

/** From the first request without a token to the token, by way of the authorization server's pages. */
async function logIn(page: Page, url: string, line: Line): Promise<void> {
  const connection = await within(page, 'connect', url, line)
  const redirect = new URL('authorizationUrl' in connection ? connection.authorizationUrl : '')
  expect(redirect.origin).toBe(provider.origin)
  expect(Object.fromEntries(redirect.searchParams)).toMatchObject({ code_challenge_method: 'S256', resource: url })
  const exchanges = await within(page, 'exchanges')
  expect(exchanges.map(({ request, status }) => [request, status])).toEqual([
    [`POST ${url}`, 401],
    [`GET ${new URL('/.well-known/oauth-protected-resource/mcp', url)}`, 200],
    [`GET ${provider.issuer}/.well-known/oauth-authorization-server`, 200],
    [`POST ${provider.issuer}/reg`, 201],
  ])

  await within(page, 'goToLogin')
  await page.fill('input[name=login]', 'ada')
  await page.fill('input[name=password]', 'secret')
  await page.click('button[type=submit]')
  await page.waitForSelector('input[value=consent]', { state: 'attached' })
  await page.click('button[type=submit]')
  await page.waitForURL('**/oauth/callback?**')

  await within(page, 'finishLogin', url, line)
  const token = await within(page, 'token')
  expect(decodeProtectedHeader(token)).toMatchObject({ typ: 'at+jwt' })
  expect(decodeJwt(token)).toMatchObject({ iss: provider.issuer, aud: url, sub: 'ada', scope: 'mcp' })
}

/** The browser asked before it sent these headers, and the gateway agreed. */
async function expectPreflights(wire: () => readonly WireRequest[], headers: readonly string[]): Promise<void> {
  const preflights = () => wire().filter(({ method }) => method === 'OPTIONS')
  const asked = () => preflights().flatMap(sent => sent.headers['Access-Control-Request-Headers']?.split(',') ?? [])
  await expect.poll(asked, patience).toEqual(expect.arrayContaining([...headers]))
  expect(new Set(preflights().map(({ status }) => status))).toEqual(new Set([204]))
}
