import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { HttpServerConfig } from '../../src/config/servers-file.js'
import { openCredentialStore } from '../../src/credentials/store.js'
import { login } from '../../src/oauth/login.js'
import { logout } from '../../src/oauth/logout.js'
import { type AuthorizationServer, openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { openProtectedServer, type ProtectedServer } from '../fixtures/protected-server.js'
import { somebody } from './people.js'
import { httpServer } from './scene.js'

const RULES = { agents: { tester: { allow: { servers: ['*'] } } } }

interface Running {
  readonly issuer: AuthorizationServer
  readonly server: ProtectedServer
  readonly gateway: TestGateway
  logIn(): Promise<void>
  logOut(): Promise<void>
  /** Calls a tool: its text, or the error. */
  call(tool?: string, server?: string): Promise<unknown>
  status(server?: string): { readonly state: string; readonly auth: { readonly kind: string } } | undefined
}

async function openRunning({ name = 'shop', entry = {} }: { name?: string; entry?: object } = {}): Promise<Running> {
  const issuer = await openAuthorizationServer()
  const server = await openProtectedServer({ authorizationServer: issuer })
  const env = { GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64') }
  const servers = { [name]: { url: server.url, ...entry } }
  const gateway = await openTestGateway({ servers, rules: RULES }, env)
  onTestFinished(async () => {
    await gateway.close()
    await Promise.all([server.close(), issuer.close()])
  })
  // Another process: it shares nothing with the gateway but the state directory.
  const directory = join(gateway.directory, 'state')
  const openStore = () => openCredentialStore({ directory, env, warn() {} })
  const config: HttpServerConfig = httpServer({ url: server.url }, name)
  return {
    issuer,
    server,
    gateway,
    logIn: async () => void (await login(config, { store: openStore(), userAgent: somebody() })),
    logOut: async () => void (await logout(config.name, { store: openStore(), config: config })),
    async call(tool = 'echo', of = name) {
      const result = await gateway.call('execute_tool', { server: of, tool, args: { text: 'hello' } }, 'tester')
      return result.structuredContent?.error ?? result.content[0]?.text
    },
    status: (of = name) => gateway.gateway.runtime.current.backends.get(of)?.status(),
  }
}

describe('a protected server without any configuration', () => {
  test('AUTH_REQUIRED with the command; after the login it works, without a restart', async () => {
    const running = await openRunning()
    expect(await running.call()).toMatchObject({
      code: 'AUTH_REQUIRED',
      server: 'shop',
      command: 'gateway login shop',
      message: expect.stringContaining('gateway login shop'),
    })
    expect(running.status()).toMatchObject({ state: 'login needed', auth: { kind: 'login needed' } })
    await running.logIn()
    await expect.poll(() => running.call(), { timeout: 5_000 }).toBe('hello')
    expect(running.status()).toMatchObject({ state: 'ready', auth: { kind: 'logged in' } })
  })

  test('a name with spaces is quoted in the command', async () => {
    const running = await openRunning({ name: 'my shop' })
    expect(await running.call()).toMatchObject({ command: 'gateway login "my shop"' })
  })

  test('a logout is noticed as well', async () => {
    const running = await openRunning()
    await running.logIn()
    expect(await running.call()).toBe('hello')
    await running.logOut()
    await expect.poll(() => running.call(), { timeout: 5_000 }).toMatchObject({ code: 'AUTH_REQUIRED' })
  })

  test('nobody is asked to log in more than needed: one probe, no registration, no browser', async () => {
    const running = await openRunning()
    for (let count = 0; count < 5; count++) await running.call()
    expect(running.issuer.requests).toEqual([])
  })
})

describe('tokens in use', () => {
  test('are renewed whenever the server has forgotten them, again and again', async () => {
    const running = await openRunning()
    await running.logIn()
    for (let round = 0; round < 4; round++) {
      expect(await running.call()).toBe('hello')
      running.issuer.expireAccessTokens()
    }
    expect(await running.call()).toBe('hello')
    expect(running.issuer.counts).toMatchObject({ refreshes: 4, reuses: 0 })
  })

  test('twenty calls at once with one that has expired: one refresh, twenty answers', async () => {
    const running = await openRunning()
    await running.logIn()
    expect(await running.call()).toBe('hello')
    running.issuer.set({ tokenLatencyMs: 50 })
    running.issuer.expireAccessTokens()
    const answers = await Promise.all(Array.from({ length: 20 }, () => running.call()))
    expect(answers).toEqual(Array.from({ length: 20 }, () => 'hello'))
    expect(running.issuer.counts).toMatchObject({ refreshes: 1, reuses: 0 })
  })

  test('twenty calls at once, the first ever: all with the token', async () => {
    const running = await openRunning()
    await running.logIn()
    const asked = running.server.requests.length // the login itself asks for the challenge
    const answers = await Promise.all(Array.from({ length: 20 }, () => running.call()))
    expect(answers).toEqual(Array.from({ length: 20 }, () => 'hello'))
    expect(running.server.requests.slice(asked).filter(({ status }) => status === 401)).toEqual([])
  })

  test('an authorization server in trouble is no reason to log in', async () => {
    const running = await openRunning()
    await running.logIn()
    expect(await running.call()).toBe('hello')
    running.issuer.set({ tokenFailure: { how: 'unavailable' } })
    running.issuer.expireAccessTokens()
    expect(await running.call()).toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expect(running.status()?.auth.kind).toBe('logged in')
    running.issuer.set({ tokenFailure: null })
    expect(await running.call()).toBe('hello')
  })

  test('a login that the server has ended: login needed, and no further attempt', async () => {
    const running = await openRunning()
    await running.logIn()
    expect(await running.call()).toBe('hello')
    running.issuer.revokeEverything()
    expect(await running.call()).toMatchObject({ code: 'AUTH_REQUIRED' })
    expect(running.status()?.auth.kind).toBe('login needed')
    const requests = running.issuer.requests.length
    for (let count = 0; count < 3; count++) await running.call()
    expect(running.issuer.requests).toHaveLength(requests)
    await running.logIn()
    await expect.poll(() => running.call(), { timeout: 5_000 }).toBe('hello')
  })

  test('go nowhere but to their server', async () => {
    const running = await openRunning()
    await running.logIn()
    await running.call()
    expect(running.server.authorizations().every(value => value.startsWith('Bearer at-'))).toBe(true)
    expect(running.issuer.requests.filter(({ headers }) => headers.authorization !== undefined)).toEqual([])
  })

  test('too little scope: AUTH_REQUIRED names it; the next login has it', async () => {
    const running = await openRunning()
    await running.logIn()
    expect(await running.call('admin')).toMatchObject({ code: 'AUTH_REQUIRED', required_scopes: ['admin'] })
    expect(await running.call()).toBe('hello')
    await running.logIn()
    await expect.poll(() => running.call('admin'), { timeout: 5_000 }).toBe('done as admin')
    expect(running.issuer.requestsTo('authorize')).toHaveLength(2)
  })

  test('too little scope for ever: at most three authorizations', async () => {
    const running = await openRunning()
    running.server.set({ admin: 'endless' })
    await running.logIn()
    for (let attempt = 0; attempt < 2; attempt++) {
      expect(await running.call('admin')).toMatchObject({ code: 'AUTH_REQUIRED' })
      await running.logIn()
    }
    expect(await running.call('admin')).toMatchObject({ code: 'BACKEND_ERROR' })
    expect(running.issuer.requestsTo('authorize')).toHaveLength(3)
  })
})

describe('OAuth is left out', () => {
  test('for a server with an Authorization header of its own: a 401 is told, without a login', async () => {
    const running = await openRunning({ entry: { headers: { Authorization: 'Bearer wrong' } } })
    const error = await running.call()
    expect(JSON.stringify(error)).not.toContain('gateway login')
    expect(running.status()?.auth.kind).toBe('header')
    expect(running.server.metadataRequests()).toEqual([])
  })

  test('with "oauth": false', async () => {
    const running = await openRunning({ entry: { oauth: false } })
    await running.logIn()
    await running.call()
    expect(running.server.authorizations()).toEqual([])
  })
})
