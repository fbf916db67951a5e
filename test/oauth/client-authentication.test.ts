import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { decodeJwt, decodeProtectedHeader, type JWK } from 'jose'
import { describe, expect, test } from 'vitest'
import { login } from '../../src/oauth/login.js'
import type { AuthMethod } from '../fixtures/authorization-server.js'
import { somebody } from './people.js'
import { failure, openScene, quietPort, type Scene, type SceneOptions } from './scene.js'

/** Every request to the token endpoint: how the client proved who it is. */
const proofs = ({ issuer }: Scene): string[] =>
  issuer.requestsTo('token').map(({ headers: { authorization }, params }) => {
    const found = [
      authorization?.startsWith('Basic ') && 'client_secret_basic',
      'client_secret' in params && 'client_secret_post',
      'client_assertion' in params && 'private_key_jwt',
    ].filter(Boolean)
    return found.join(' and ') || 'none'
  })

/** A login in a browser and a refresh: both have to prove who the client is. */
async function logInAndRefresh(scene: Scene): Promise<void> {
  await scene.login()
  const opened = scene.openLogin({ store: scene.openStore() })
  await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
  expect(scene.issuer.counts.refreshes).toBe(1)
}

async function openPreRegistered(
  client: Readonly<Record<string, unknown>>,
  { issuer, oauth }: Pick<SceneOptions, 'issuer' | 'oauth'> = {},
): Promise<Scene> {
  const callbackPort = await quietPort()
  const redirect_uris = [`http://127.0.0.1:${callbackPort}/callback`]
  const clients = [{ client_id: 'known', redirect_uris, ...client }]
  return openScene({ issuer: { clients, ...issuer }, oauth: { clientId: 'known', callbackPort, ...oauth } })
}

describe('a registered client', () => {
  test.each<[AuthMethod]>([['none'], ['client_secret_basic'], ['client_secret_post']])(
    'uses what the registration settled on: %s',
    async method => {
      const scene = await openScene({ issuer: { registration: { token_endpoint_auth_method: method } } })
      await logInAndRefresh(scene)
      expect(proofs(scene)).toEqual([method, method])
    },
  )

  test('asks for what the server lists', async () => {
    const metadata = { token_endpoint_auth_methods_supported: ['client_secret_post'] }
    const scene = await openScene({ issuer: { metadata } })
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['client_secret_post', 'client_secret_post'])
  })

  test('with a private key registers its public half only', async () => {
    const { file } = await keyFile('ec-pem')
    const metadata = { token_endpoint_auth_methods_supported: ['private_key_jwt'] }
    const scene = await openScene({ issuer: { metadata }, oauth: { privateKeyFile: file } })
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['private_key_jwt', 'private_key_jwt'])
    const [registration] = scene.issuer.requestsTo('registration')
    expect(registration?.params.jwks).toMatchObject({ keys: [{ kty: 'EC', crv: 'P-256', alg: 'ES256' }] })
    expect(registration?.params).not.toHaveProperty('jwks.keys.0.d')
  })
})

describe('a pre-registered client', () => {
  test.each([
    ['plain'],
    ['with:colon'],
    ['50%25%off'],
    ['a+b c/d=e&f?g'],
    ['tilde~dash-dot.under_star*'],
    ['ümläut €'],
    ['🔑'],
  ])('HTTP Basic with the secret %o', async secret => {
    const scene = await openPreRegistered({ client_secret: secret }, { oauth: { clientSecret: secret } })
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['client_secret_basic', 'client_secret_basic'])
  })

  test('HTTP Basic with special characters in the id', async () => {
    const client = { client_id: 'urn:client:7%', client_secret: 'x' }
    const scene = await openPreRegistered(client, { oauth: { clientId: client.client_id, clientSecret: 'x' } })
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['client_secret_basic', 'client_secret_basic'])
  })

  test('servers that do not decode understand what needs no encoding', async () => {
    const client = { client_id: 'my-client_1.a', client_secret: 'se-cr_et.1*' }
    const oauth = { clientId: client.client_id, clientSecret: client.client_secret }
    const scene = await openPreRegistered(client, { issuer: { basicEncoding: 'raw' }, oauth })
    await logInAndRefresh(scene)
  })

  test('the secret in the body where the server lists only that', async () => {
    const scene = await openPreRegistered(
      { client_secret: 'a b&c', token_endpoint_auth_method: 'client_secret_post' },
      {
        issuer: { metadata: { token_endpoint_auth_methods_supported: ['client_secret_post'] } },
        oauth: { clientSecret: 'a b&c' },
      },
    )
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['client_secret_post', 'client_secret_post'])
  })

  test('or where it is configured so', async () => {
    const scene = await openPreRegistered(
      { client_secret: 's', token_endpoint_auth_method: 'client_secret_post' },
      { oauth: { clientSecret: 's', tokenEndpointAuthMethod: 'client_secret_post' } },
    )
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['client_secret_post', 'client_secret_post'])
  })

  test('without a secret sends none', async () => {
    const scene = await openPreRegistered({})
    await logInAndRefresh(scene)
    expect(proofs(scene)).toEqual(['none', 'none'])
  })

  test('with a method that wants a secret, and none: an error before the person is asked', async () => {
    const scene = await openPreRegistered({}, { oauth: { tokenEndpointAuthMethod: 'client_secret_basic' } })
    const person = somebody()
    const { message } = await failure(scene.login(person), 'CONFIG_INVALID')
    expect(message).toContain('clientSecret')
    expect(person.shown).toEqual([])
  })

  test('the stored login does not hold the configured secret: a changed one is used at once', async () => {
    const scene = await openPreRegistered({ client_secret: 'new' }, { oauth: { clientSecret: 'old' } })
    await failure(scene.login())
    const config = scene.configured({ ...(scene.config.oauth as object), clientSecret: 'new' })
    const record = await login(config, { store: scene.store, userAgent: somebody() })
    expect(JSON.stringify(record?.client)).not.toContain('new')
  })
})

const KEYS = {
  'ec-pem': () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'ec-jwk': () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  'rsa-pem': () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'rsa-pkcs1': () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'rsa-jwk': () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'ed25519-pem': () => generateKeyPairSync('ed25519'),
  'ed25519-jwk': () => generateKeyPairSync('ed25519'),
} as const

async function keyFile(kind: keyof typeof KEYS, extra: Record<string, unknown> = {}) {
  const { privateKey, publicKey } = KEYS[kind]()
  const scene = await openScene()
  const file = join(scene.directory, `${kind}.key`)
  await writeFile(file, textOf(kind, privateKey, extra))
  return { file, publicJwk: publicKey.export({ format: 'jwk' }) as JWK }
}

function textOf(kind: string, key: KeyObject, extra: Record<string, unknown>): string {
  if (kind.endsWith('jwk')) return JSON.stringify({ ...key.export({ format: 'jwk' }), ...extra })
  return String(key.export({ format: 'pem', type: kind === 'rsa-pkcs1' ? 'pkcs1' : 'pkcs8' }))
}

describe('private_key_jwt', () => {
  test.each([
    ['ec-pem', 'ES256'],
    ['ec-jwk', 'ES384'],
    ['rsa-pem', 'RS256'],
    ['rsa-pkcs1', 'RS256'],
    ['rsa-jwk', 'RS256'],
    ['ed25519-pem', 'EdDSA'],
    ['ed25519-jwk', 'EdDSA'],
  ] as const)('%s signs with %s, in a browser login and as a machine', async (kind, algorithm) => {
    const { file, publicJwk } = await keyFile(kind)
    const client = { token_endpoint_auth_method: 'private_key_jwt', keys: [publicJwk] }
    const scene = await openPreRegistered(client, { oauth: { privateKeyFile: file } })
    await logInAndRefresh(scene)
    const { store } = scene
    const machine = scene.configured({ grant: 'client_credentials', clientId: 'known', privateKeyFile: file })
    expect(await login(machine, { store })).toMatchObject({ grant: 'client_credentials' })
    expect(proofs(scene)).toEqual(['private_key_jwt', 'private_key_jwt', 'private_key_jwt'])
    const assertions = scene.issuer.requestsTo('token').map(({ params }) => String(params.client_assertion))
    for (const assertion of assertions) {
      expect(decodeProtectedHeader(assertion).alg).toBe(algorithm)
      expect(decodeJwt(assertion)).toMatchObject({ iss: 'known', sub: 'known', aud: scene.issuer.issuer })
    }
  })

  test('signingAlgorithm, and the alg and kid of a JWK', async () => {
    const { file, publicJwk } = await keyFile('rsa-jwk', { alg: 'PS256', kid: 'key-7' })
    const client = { token_endpoint_auth_method: 'private_key_jwt', keys: [publicJwk] }
    const scene = await openPreRegistered(client, { oauth: { privateKeyFile: file } })
    await scene.login()
    const config = scene.configured({ ...(scene.config.oauth as object), signingAlgorithm: 'RS384' })
    await login(config, { store: scene.store, userAgent: somebody() })
    const headers = scene.issuer
      .requestsTo('token')
      .map(({ params }) => decodeProtectedHeader(String(params.client_assertion)))
    expect(headers).toMatchObject([
      { alg: 'PS256', kid: 'key-7' },
      { alg: 'RS384', kid: 'key-7' },
    ])
  })

  test.each([
    ['missing', undefined],
    ['no key', 'SECRET-CONTENT'],
    ['a broken JWK', '{"kty":"EC","d":"SECRET-CONTENT"}'],
    ['a broken PEM', '-----BEGIN PRIVATE KEY-----\nU0VDUkVULUNPTlRFTlQ\n-----END PRIVATE KEY-----'],
  ])('a file that is %s: the error names it, and shows nothing of it', async (_what, content) => {
    const scene = await openScene()
    const file = join(scene.directory, 'broken.key')
    if (content !== undefined) await writeFile(file, content)
    const config = scene.configured({ grant: 'client_credentials', clientId: 'known', privateKeyFile: file })
    const { message } = await failure(login(config, { store: scene.store }), 'CONFIG_INVALID')
    expect(message).toContain(file)
    expect(message).not.toContain('SECRET-CONTENT')
    expect(message).not.toContain('U0VDUkVU')
  })

  test('an algorithm that the key cannot do', async () => {
    const { file } = await keyFile('ec-pem')
    const scene = await openPreRegistered({}, { oauth: { privateKeyFile: file, signingAlgorithm: 'RS256' } })
    const { message } = await failure(scene.login(), 'CONFIG_INVALID')
    expect(message).toContain('ES256')
    expect(message).toContain('RS256')
  })
})

describe('client_credentials', () => {
  const oauth = { grant: 'client_credentials', clientId: 'robot', clientSecret: 'robot-secret' }
  const clients = [{ client_id: 'robot', client_secret: 'robot-secret' }]

  test('with a secret, for the resource, without anybody', async () => {
    const scene = await openScene({ issuer: { clients }, oauth })
    expect(await login(scene.config, { store: scene.store })).toMatchObject({ tokens: {} })
    expect(scene.issuer.requestsTo('token')[0]?.params).toMatchObject({
      grant_type: 'client_credentials',
      resource: scene.server.url,
      scope: 'mcp',
    })
    expect(scene.issuer.requestsTo('authorize')).toEqual([])
  })

  test('a running gateway does it by itself, once for twenty calls, and renews without a refresh token', async () => {
    const scene = await openScene({ issuer: { clients }, oauth })
    const opened = scene.openLogin()
    const refusal = { status: 401, challenge: undefined, token: await opened.token() } as const
    await Promise.all(Array.from({ length: 20 }, () => opened.onUnauthorized(refusal)))
    expect(scene.issuer.requestsTo('token')).toHaveLength(1)
    const first = await opened.token()
    await Promise.all(Array.from({ length: 20 }, () => opened.onUnauthorized({ ...refusal, token: first })))
    expect(scene.issuer.requestsTo('token')).toHaveLength(2)
    expect(await opened.token()).not.toBe(first)
  })

  test('without a proof of who it is: the error names the keys', async () => {
    const scene = await openScene({ issuer: { clients }, oauth: { ...oauth, tokenEndpointAuthMethod: 'none' } })
    const { message } = await failure(login(scene.config, { store: scene.store }), 'CONFIG_INVALID')
    expect(message).toContain('"clientSecret"')
    expect(message).toContain('"privateKeyFile"')
  })
})
