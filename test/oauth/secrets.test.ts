import { Writable } from 'node:stream'
import { inspect } from 'node:util'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { type LoginOptions, login } from '../../src/oauth/login.js'
import { logout } from '../../src/oauth/logout.js'
import { createRedactor } from '../../src/observability/redactor.js'
import type { RawAnswer } from '../fixtures/authorization-server.js'
import { browse, redirectOf, somebody } from './people.js'
import { openScene, quietPort, type Scene, type SceneOptions } from './scene.js'

/** Everything that whoever saw the requests could take: nothing of it may be in a log line or an error. */
function secretsOf({ issuer }: Scene, ...more: readonly (string | undefined)[]): string[] {
  const NAMES = [
    'code',
    'code_verifier',
    'state',
    'refresh_token',
    'client_secret',
    'client_assertion',
    'token',
    'device_code',
  ]
  const sent = issuer.requests.flatMap(({ params, headers }) => [
    ...NAMES.map(name => params[name]),
    headers.authorization?.split(' ')[1],
  ])
  return [...sent, ...more].filter(value => typeof value === 'string' && value !== '') as string[]
}

/** All of an error that any log could show: message, stack, details, and what caused it. */
const everythingOf = (error: unknown): string => inspect(error, { depth: 20, showHidden: true, maxStringLength: null })

function expectNone(text: string, secrets: readonly string[]): void {
  expect(secrets.length).toBeGreaterThan(0)
  expect(secrets.filter(secret => text.includes(secret))).toEqual([])
}

/** A log as the gateway has it: at the lowest level, with the redactor in front. */
function openLog() {
  const lines: string[] = []
  const redactor = createRedactor()
  const sink = new Writable({
    write(chunk, _encoding, done) {
      lines.push(String(chunk))
      done()
    },
  })
  return { lines, redactor, logger: pino({ level: 'trace' }, sink) }
}

async function failedLogin(options: SceneOptions, logInOptions: Partial<LoginOptions> = {}) {
  const scene = await openScene(options)
  const error = await scene.login(somebody(), logInOptions).then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  )
  expect(error).toMatchObject({ name: 'GatewayError' })
  return { scene, error }
}

const json = { 'content-type': 'application/json' }
const answer = (status: number, body: object): RawAnswer => ({ status, headers: json, body: JSON.stringify(body) })

describe('an error of a login holds no secret', () => {
  const TOKEN = 'canary-token-4711'
  test.each<[what: string, how: RawAnswer | 'unavailable' | 'html 403' | 'reset' | 'invalid_grant']>([
    ['invalid_grant', 'invalid_grant'],
    ['503', 'unavailable'],
    ['HTML', 'html 403'],
    ['reset', 'reset'],
    ['tokens that cannot be used', answer(200, { access_token: { value: TOKEN }, token_type: 'bearer' })],
    ['a token type that cannot be used', answer(200, { access_token: TOKEN, token_type: 'DPoP' })],
    ['tokens in a failure', answer(500, { access_token: TOKEN, refresh_token: TOKEN })],
    ['something that is no JSON', { status: 200, headers: json, body: `{"access_token":"${TOKEN}",` }],
  ])('the token endpoint: %s', async (_what, how) => {
    const registration = { token_endpoint_auth_method: 'client_secret_basic' } as const
    const { scene, error } = await failedLogin({ issuer: { tokenFailure: { how }, registration } })
    const [authorization] = scene.issuer.requestsTo('token').map(({ headers }) => headers.authorization)
    const [, secret = ''] = Buffer.from(String(authorization).slice(6), 'base64').toString('utf8').split(':')
    expectNone(everythingOf(error), secretsOf(scene, TOKEN, secret))
  })

  test('the answer of the browser: another issuer, an error', async () => {
    for (const issuer of [
      { iss: { wrong: 'https://evil.example' } },
      { user: { error: 'access_denied', error_description: 'no' } },
    ]) {
      const { scene, error } = await failedLogin({ issuer })
      expectNone(everythingOf(error), secretsOf(scene))
    }
  })

  test('a time limit', async () => {
    const { scene, error } = await failedLogin({ issuer: { state: 'wrong' } }, { timeLimitMs: 200 })
    expectNone(everythingOf(error), secretsOf(scene))
  })

  test('a server that repeats what it was sent', async () => {
    const scene = await openScene()
    let description = ''
    const person = somebody({
      async visit(url) {
        const redirect = await redirectOf(url)
        description = `no such code: ${new URL(redirect).searchParams.get('code')}`
        const how = answer(400, { error: 'invalid_request', error_description: description })
        scene.issuer.set({ tokenFailure: { how } })
        return browse(redirect)
      },
    })
    const error = await scene.login(person).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'LOGIN_FAILED' })
    expect(description).toMatch(/code: .+/)
    expectNone(everythingOf(error), secretsOf(scene))
    await expect.poll(() => person.pages.length).toBe(1)
    expectNone(String(person.pages[0]?.text), secretsOf(scene))
  })

  test('the registration: its secrets are not in what it says', async () => {
    const refuse = answer(400, { client_secret: 'canary-secret', registration_access_token: 'canary-access' })
    const { error } = await failedLogin({ issuer: { registration: { refuse } } })
    expectNone(everythingOf(error), ['canary-secret', 'canary-access'])
  })

  test('a configured secret that is wrong', async () => {
    const callbackPort = await quietPort()
    const clients = [
      { client_id: 'known', client_secret: 'right', redirect_uris: [`http://127.0.0.1:${callbackPort}/callback`] },
    ]
    const oauth = { clientId: 'known', clientSecret: 'canary-secret', callbackPort }
    const { scene, error } = await failedLogin({ issuer: { clients }, oauth })
    expectNone(everythingOf(error), secretsOf(scene, 'canary-secret'))
  })
})

describe('what a running gateway logs and throws holds no secret', () => {
  const FAILURES = ['unavailable', 'reset', 'html 403', 'invalid_grant', 'invalid_client', 'lost answer'] as const

  test.each(FAILURES)('a renewal that ends with %s', async how => {
    const registration = { token_endpoint_auth_method: 'client_secret_post' } as const
    const scene = await openScene({ issuer: { registration } })
    const record = await scene.login()
    scene.issuer.set({ tokenFailure: { how } })
    const { logger, lines, redactor } = openLog()
    const learned: string[] = []
    const opened = scene.openLogin({
      logger,
      learnSecrets(secrets) {
        learned.push(...secrets)
        redactor.learn('login shop', secrets)
      },
    })
    const token = await opened.token()
    const error = await opened
      .onUnauthorized({ status: 401, challenge: undefined, token })
      .catch((thrown: unknown) => thrown)
    logger.error({ err: error }, 'as whoever called it may log it')
    const secrets = secretsOf(scene, record?.tokens?.accessToken, record?.tokens?.refreshToken)
    expectNone(everythingOf(error), secrets)
    expectNone(lines.join('\n'), secrets)
    expect(learned).toEqual(
      expect.arrayContaining([record?.tokens?.accessToken, record?.tokens?.refreshToken, record?.client.clientSecret]),
    )
  })

  test('a server that repeats the refresh token: what leaves the gateway is redacted', async () => {
    const scene = await openScene()
    const record = await scene.login()
    const refreshToken = record?.tokens?.refreshToken ?? ''
    const how = answer(400, { error: 'invalid_request', error_description: `unknown: ${refreshToken}` })
    scene.issuer.set({ tokenFailure: { how } })
    const { redactor } = openLog()
    const opened = scene.openLogin({ learnSecrets: secrets => redactor.learn('login shop', secrets) })
    const token = await opened.token()
    const error = await opened
      .onUnauthorized({ status: 401, challenge: undefined, token })
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expectNone(redactor.redact(everythingOf(error)), [refreshToken])
  })

  test('tokens that were renewed are learned before they are used', async () => {
    const scene = await openScene()
    await scene.login()
    const learned: string[] = []
    const opened = scene.openLogin({ learnSecrets: secrets => void learned.push(...secrets) })
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    const renewed = await scene.stored()
    expect(learned).toEqual(expect.arrayContaining([renewed?.tokens?.accessToken, renewed?.tokens?.refreshToken]))
  })

  test('a renewal that works is logged, without a secret', async () => {
    const scene = await openScene()
    const record = await scene.login()
    const { logger, lines } = openLog()
    const opened = scene.openLogin({ logger })
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    expect(lines.join('')).toContain('the login was renewed')
    const renewed = (await scene.stored())?.tokens
    expectNone(lines.join(''), secretsOf(scene, record?.tokens?.accessToken, renewed?.accessToken))
  })
})

test('a logout that fails says why without the token', async () => {
  const scene = await openScene()
  const record = await scene.login()
  await scene.issuer.close()
  const result = await logout(scene.config.name, { store: scene.store, config: scene.config })
  expectNone(JSON.stringify(result), secretsOf(scene, record?.tokens?.accessToken, record?.tokens?.refreshToken))
})

test('the authorization URL has the challenge, never the verifier, and no secret', async () => {
  const scene = await openScene({ issuer: { registration: { token_endpoint_auth_method: 'client_secret_post' } } })
  const person = somebody()
  const record = await login(scene.config, { store: scene.store, userAgent: person })
  const verifiers = scene.issuer.requestsTo('token').map(({ params }) => String(params.code_verifier))
  expectNone(person.opened.join('\n'), [...verifiers, String(record?.client.clientSecret)])
})
