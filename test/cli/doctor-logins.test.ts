import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { login } from '../../src/oauth/login.js'
import { loginEntry, readLogin, toCredential } from '../../src/oauth/login-record.js'
import { type AuthorizationServerOptions, openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer, type ProtectedServerOptions } from '../fixtures/protected-server.js'
import { somebody } from '../oauth/people.js'
import { httpServer } from '../oauth/scene.js'
import { openPatient } from './doctor-patient.js'

interface SceneOptions {
  readonly issuer?: AuthorizationServerOptions
  readonly server?: Omit<ProtectedServerOptions, 'authorizationServer'>
  readonly oauth?: Record<string, unknown>
}

/** A machine with one server that wants a login. */
async function openScene({ issuer: issuerOptions, server: serverOptions, oauth = {} }: SceneOptions = {}) {
  const issuer = await openAuthorizationServer(issuerOptions)
  const server = await openProtectedServer({ authorizationServer: issuer, ...serverOptions })
  onTestFinished(() => Promise.all([server.close(), issuer.close()]).then(() => {}))
  const patient = await openPatient({ notes: { url: server.url, oauth } })
  const env = { GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64') }
  const directory = patient.files.env.GATEWAY_STATE_DIR
  await mkdir(directory, { mode: 0o700 })
  const store = openCredentialStore({ directory, env: { ...env, GATEWAY_KEYCHAIN: 'off' }, warn: () => {} })
  const config = httpServer({ url: server.url, oauth }, 'notes')
  return {
    issuer,
    server,
    store,
    config,
    env,
    credentials: join(directory, 'credentials.json'),
    logIn: () => login(config, { store, userAgent: somebody() }),
    async examine() {
      const findings = await patient.examine({ env })
      return { ...findings, of: (check: string) => findings.one('server/notes', check) }
    },
  }
}

const CHAIN = ['challenge', 'resource metadata', 'authorization server', 'PKCE', 'client', 'stored login']
const COURSE = ['DNS', 'connection', 'HTTP', ...CHAIN, 'initialize', 'tools']

/** All is well up to this check, which failed; what follows is skipped. */
const failedAt = (check: string) => {
  const at = COURSE.indexOf(check)
  return COURSE.map((name, index) => `${name}: ${index < at ? 'ok' : index === at ? 'failed' : 'skipped'}`)
}

test('the whole way, with a login', async () => {
  const { server, issuer, env, logIn, examine } = await openScene()
  const record = await logIn()
  const { all, course, of } = await examine()
  expect(course('server/notes')).toEqual(COURSE.map(check => `${check}: ok`))
  const place = `${server.origin}/.well-known/oauth-protected-resource/mcp`
  expect(of('challenge').found).toBe(`names resource_metadata "${place}", scope "mcp"`)
  expect(of('resource metadata').found).toBe(`${place} (named by the challenge), resource "${server.url}" matches`)
  expect(of('authorization server').found).toBe(
    `${issuer.issuer}/.well-known/oauth-authorization-server, issuer "${issuer.issuer}" matches`,
  )
  expect(of('client').found).toBe('registered there before')
  expect(of('stored login').found).toMatch(/^until \d{4}-\d\d-\d\dT\d\d:\d\dZ, renewable$/)
  expect(of('initialize').found).toMatch(/modern era, protected 1\.0\.0/)
  expect(of('tools').found).toBe('2 tools')
  const text = JSON.stringify(all)
  const { accessToken, refreshToken } = record?.tokens ?? {}
  for (const secret of [accessToken, refreshToken, env.GATEWAY_CREDENTIALS_KEY])
    expect(secret !== undefined && text.includes(secret)).toBe(false)
})

test('metadata is found where the challenge does not say, and registers nothing', async () => {
  const { issuer, examine } = await openScene({ server: { challenge: 'bare', metadataAt: 'root' } })
  const { course, of } = await examine()
  expect(course('server/notes')).toEqual(failedAt('stored login'))
  expect(of('resource metadata').found).toContain('(at the root)')
  expect(of('client').found).toMatch(/^registers itself at /)
  expect(of('stored login')).toMatchObject({ found: 'nobody has logged in', advice: 'run: gateway login notes' })
  expect(issuer.counts.registrations).toBe(0)
})

describe('each step that fails is named, with what to do', () => {
  test.each<[string, SceneOptions, string, RegExp, RegExp]>([
    [
      'metadata of another resource',
      { server: { metadata: { resource: 'https://other.example/mcp' } } },
      'resource metadata',
      /describes the resource "https:\/\/other\.example\/mcp", expected/,
      /"resource"/,
    ],
    [
      'a challenge that leads nowhere',
      { server: { metadataAt: 'nowhere', challenge: { verbatim: 'Bearer resource_metadata="/gone"' } } },
      'resource metadata',
      /none: .*\/gone HTTP 404/,
      /RFC 9728/,
    ],
    [
      'another issuer than the one that was asked for',
      { issuer: { metadata: { issuer: 'https://evil.example' } } },
      'authorization server',
      /its issuer is "https:\/\/evil\.example", expected/,
      /"issuer"/,
    ],
    ['no metadata of the issuer', { issuer: { wellKnown: [] } }, 'authorization server', /no metadata/, /"issuer"/],
    [
      'an issuer on a private address',
      { server: { metadata: { authorization_servers: ['https://10.0.0.1'] } } },
      'authorization server',
      /not a public address/,
      /"issuer"/,
    ],
    [
      'no PKCE',
      { issuer: { metadata: { code_challenge_methods_supported: ['plain'] } } },
      'PKCE',
      /code_challenge_methods_supported is "plain"/,
      /S256/,
    ],
    [
      'no registration',
      { issuer: { registration: false } },
      'client',
      /does not register clients by itself/,
      /redirect URI http:\/\/127\.0\.0\.1:8976\/callback.*"clientId"/,
    ],
    [
      'a secret that is missing',
      { oauth: { clientId: 'me', tokenEndpointAuthMethod: 'client_secret_basic' } },
      'client',
      /wants a secret/,
      /clientId/,
    ],
  ])('%s', async (_, options, check, found, advice) => {
    const { examine } = await openScene(options)
    const { course, of } = await examine()
    expect(course('server/notes')).toEqual(failedAt(check))
    expect(of(check)).toMatchObject({
      found: expect.stringMatching(found),
      advice: expect.stringMatching(advice),
    })
  })

  test('an authorization server in trouble', async () => {
    const { issuer, examine } = await openScene()
    await issuer.close()
    const { course, of } = await examine()
    expect(course('server/notes')).toEqual(failedAt('authorization server'))
    expect(of('authorization server')).toMatchObject({
      found: expect.stringContaining('cannot reach'),
      advice: expect.stringContaining('try again'),
    })
  })

  test('a login that has run out', async () => {
    const { store, config, logIn, examine } = await openScene({ issuer: { issueRefreshTokens: 'never' } })
    await logIn()
    const record = await readLogin(store, config)
    if (!record?.tokens) throw new Error('no login')
    const over = { ...record, tokens: { ...record.tokens, expiresAt: Date.now() - 1 } }
    await store.update(loginEntry('notes'), () => toCredential(over, config))
    const { course, of } = await examine()
    expect(course('server/notes')).toEqual(failedAt('stored login'))
    expect(of('stored login')).toMatchObject({
      found: expect.stringMatching(/^ran out at .*no refresh token$/),
      advice: 'run: gateway login notes',
    })
  })

  test('a login that the server does not take', async () => {
    const { server, logIn, examine } = await openScene()
    await logIn()
    server.set({ refuseTokens: true })
    const { course, of } = await examine()
    expect(course('server/notes')).toEqual(failedAt('initialize'))
    expect(of('initialize').advice).toContain('gateway login notes')
  })

  test('a login that was made for another URL', async () => {
    const { store, config, logIn, examine } = await openScene()
    const record = await logIn()
    if (!record) throw new Error('no login')
    const elsewhere = { ...config, url: 'https://elsewhere.example/mcp' }
    await store.update(loginEntry('notes'), () => toCredential(record, elsewhere))
    const { course, of } = await examine()
    expect(course('server/notes')).toEqual(failedAt('stored login'))
    expect(of('stored login').found).toBe('the login of this name is for "https://elsewhere.example/mcp"')
  })

  /** Changes the login in the file; what the file is then. */
  async function damage(credentials: string): Promise<string> {
    const content = JSON.parse(await readFile(credentials, 'utf8'))
    content.entries['login/notes'].issuer = 'https://changed.example'
    await writeFile(credentials, JSON.stringify(content))
    return readFile(credentials, 'utf8')
  }

  test('a damaged login that nothing was asked for yet stays as it is', async () => {
    const { server, credentials, logIn, examine } = await openScene()
    await logIn()
    const before = await damage(credentials)
    server.set({ loginFor: 'calls' })
    const { course } = await examine()
    expect(course('server/notes').slice(2)).toEqual(['HTTP: ok', 'initialize: ok', 'tools: ok'])
    expect(await readFile(credentials, 'utf8')).toBe(before)
  })

  test('a login that is damaged, and stays as it is', async () => {
    const { credentials, logIn, examine } = await openScene()
    await logIn()
    const before = await damage(credentials)
    const { course, of, one } = await examine()
    expect(course('server/notes')).toEqual(failedAt('stored login'))
    expect(of('stored login').found).toBe('the login is damaged')
    expect(one('credentials', 'credentials.json')).toMatchObject({
      status: 'failed',
      found: expect.stringMatching(/^1 of 2 entries are damaged: login\/notes$/),
      advice: expect.stringContaining('gateway login notes'),
    })
    expect(await readFile(credentials, 'utf8')).toBe(before)
  })
})

test('a machine logs in by itself', async () => {
  const client = { client_id: 'me', client_secret: 'canary-secret-of-me' }
  const { examine } = await openScene({
    issuer: { clients: [client] },
    oauth: { grant: 'client_credentials', clientId: 'me', clientSecret: client.client_secret },
  })
  const { all, course, of } = await examine()
  expect(course('server/notes')).toEqual(COURSE.map(check => `${check}: ok`))
  expect(of('PKCE').found).toBe('not needed: a machine logs in')
  expect(of('stored login').found).toBe('none yet: the gateway logs in by itself')
  expect(JSON.stringify(all)).not.toContain('canary')
})
