import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { errors, jwtVerify } from 'jose'
import { afterEach, describe, expect, test } from 'vitest'
import type { IssuerConfig } from '../../src/config/identity-config.js'
import { openIssuerKeys } from '../../src/identity/issuer-keys.js'
import { openIssuerMetadata } from '../../src/identity/issuer-metadata.js'
import { IssuerUnavailableError } from '../../src/identity/token-errors.js'
import { type IssuerOptions, openIssuer, type TestIssuer } from '../fixtures/issuer.js'

const MINUTE_MS = 60_000

let issuer: TestIssuer
afterEach(() => issuer?.stop())

/** The keys of an issuer, on a clock of their own. */
async function openKeys(options: IssuerOptions = {}, config: Partial<IssuerConfig> = {}) {
  issuer = await openIssuer(options)
  const clock = { ms: Date.now() }
  const now = () => clock.ms
  const whole = { issuer: issuer.issuer, ...config }
  const failures: string[] = []
  const onError = (error: Error) => void failures.push(error.message)
  const keys = openIssuerKeys({ config: whole, metadata: openIssuerMetadata(whole, now), onError, now })
  return { clock, failures, verify: async (token: string) => (await jwtVerify(token, keys)).payload.sub }
}

describe('keys are found', () => {
  test.each<[where: string, options: IssuerOptions]>([
    ['RFC 8414', { metadataAt: path => path === '/.well-known/oauth-authorization-server/realms/mcp' }],
    ['RFC 8414, appended', { metadataAt: path => path === '/realms/mcp/.well-known/oauth-authorization-server' }],
    ['OpenID Connect', { metadataAt: path => path === '/realms/mcp/.well-known/openid-configuration' }],
    ['OpenID Connect, inserted', { metadataAt: path => path === '/.well-known/openid-configuration/realms/mcp' }],
    ['no metadata', { metadataAt: () => false, jwksPath: '/.well-known/jwks.json' }],
    [
      'metadata of another issuer',
      {
        metadata: { issuer: 'https://other.example', jwks_uri: 'http://127.0.0.1:1/' },
        jwksPath: '/.well-known/jwks.json',
      },
    ],
    ['metadata without keys', { metadata: { jwks_uri: undefined }, jwksPath: '/.well-known/jwks.json' }],
  ])('by %s', async (_, options) => {
    const { verify } = await openKeys({ path: '/realms/mcp', ...options })
    expect(await verify(await issuer.sign({}))).toBe('user-1')
  })

  test('where the configuration says, and nobody is asked for metadata', async () => {
    const keyServer = await openIssuer()
    const { verify } = await openKeys({}, { jwksUri: `${keyServer.origin}/keys` })
    expect(await verify(await keyServer.sign({}))).toBe('user-1')
    expect([issuer.requests, keyServer.requests]).toEqual([[], ['/keys']])
    await keyServer.stop()
  })

  test('of an issuer that is elsewhere than its name says', async () => {
    const elsewhere = await openIssuer()
    const { verify } = await openKeys({}, { issuer: 'https://id.example', url: elsewhere.origin })
    expect(await verify(await elsewhere.sign({}))).toBe('user-1')
    await elsewhere.stop()
  })
})

describe('keys are kept', () => {
  test('and fetched once, by many at the same time and later', async () => {
    const { verify } = await openKeys()
    expect(issuer.requests).toEqual([])
    const tokens = await Promise.all(Array.from({ length: 20 }, () => issuer.sign({ jti: randomUUID() })))
    await Promise.all(tokens.map(verify))
    await verify(await issuer.sign({}))
    expect(issuer.keyFetches).toBe(1)
  })

  test('and fetched again after a rotation, without a failed call', async () => {
    const { verify } = await openKeys()
    await verify(await issuer.sign({}))
    for (const fetches of [2, 3, 4]) {
      await issuer.rotate()
      const tokens = await Promise.all([issuer.sign({}), issuer.sign({}), issuer.sign({})])
      expect(await Promise.all(tokens.map(verify))).toEqual(['user-1', 'user-1', 'user-1'])
      expect(issuer.keyFetches).toBe(fetches)
    }
  })

  test('and fetched at most twice a minute for keys that nobody knows', async () => {
    const { verify, clock } = await openKeys()
    const stranger = await issuer.createSigner()
    const strange = async () => issuer.sign({}, { signer: { ...stranger, kid: randomUUID() } })
    for (let minute = 1; minute <= 3; minute++) {
      const tokens = await Promise.all(Array.from({ length: 300 }, strange))
      const outcomes = await Promise.all(tokens.map(token => verify(token).catch(error => error)))
      expect(outcomes.every(error => error instanceof errors.JWKSNoMatchingKey)).toBe(true)
      for (let more = 0; more < 20; more++)
        await expect(verify(await strange())).rejects.toThrow(errors.JWKSNoMatchingKey)
      expect(issuer.keyFetches).toBeLessThanOrEqual(2 * minute)
      clock.ms += MINUTE_MS
    }
    expect(issuer.keyFetches).toBe(6)
    expect(await verify(await issuer.sign({}))).toBe('user-1')
  })

  test('and one unknown key alone does not use up both', async () => {
    const { verify } = await openKeys()
    await verify(await issuer.sign({}))
    const token = await issuer.sign({}, { signer: await issuer.createSigner() })
    for (let times = 0; times < 5; times++) await expect(verify(token)).rejects.toThrow(errors.JWKSNoMatchingKey)
    expect(issuer.keyFetches).toBe(2)
    await issuer.rotate()
    expect(await verify(await issuer.sign({}))).toBe('user-1')
  })

  test('and a fetch that began before the rotation does not stand for it', async () => {
    const { verify } = await openKeys()
    await verify(await issuer.sign({}))
    const release = issuer.holdKeys()
    const strange = verify(await issuer.sign({}, { signer: await issuer.createSigner() })).catch(error => error)
    await expect.poll(() => issuer.keyFetches).toBe(2)
    await issuer.rotate()
    const rotated = verify(await issuer.sign({}))
    release()
    expect(await strange).toBeInstanceOf(errors.JWKSNoMatchingKey)
    expect(await rotated).toBe('user-1')
  })

  test('and renewed beside the calls when they are old, so that a withdrawn one goes', async () => {
    const { verify, clock } = await openKeys()
    const old = await issuer.sign({})
    await verify(old)
    await issuer.rotate()
    clock.ms += 11 * MINUTE_MS
    expect(await verify(old)).toBe('user-1')
    await expect.poll(() => verify(old).catch(error => error)).toBeInstanceOf(errors.JWKSNoMatchingKey)
  })
})

describe('while the issuer is away', () => {
  test('nothing can be said about tokens; once it is there, all is well', async () => {
    const { verify, clock, failures } = await openKeys({ isDown: true })
    const token = await issuer.sign({})
    for (let times = 0; times < 5; times++) await expect(verify(token)).rejects.toThrow(IssuerUnavailableError)
    expect(failures).toHaveLength(1)
    await issuer.start()
    clock.ms += 3_000
    expect(await verify(token)).toBe('user-1')
  })

  test('what is known stays good, and what is not known is not refused', async () => {
    const { verify, clock } = await openKeys()
    const token = await issuer.sign({})
    await verify(token)
    await issuer.stop()
    const strange = await issuer.sign({}, { signer: await issuer.createSigner() })
    for (let times = 0; times < 5; times++) await expect(verify(strange)).rejects.toThrow(IssuerUnavailableError)
    clock.ms += 60 * MINUTE_MS
    expect(await verify(token)).toBe('user-1')
    clock.ms += 24 * 60 * MINUTE_MS
    await expect(verify(token)).rejects.toThrow(IssuerUnavailableError)
    await issuer.start()
    clock.ms += MINUTE_MS
    await expect(verify(strange)).rejects.toThrow(errors.JWKSNoMatchingKey)
  })

  test.each([500, 429, 403, 302, 404])('with HTTP %i', async status => {
    const { verify } = await openKeys()
    issuer.failWith(status)
    await expect(verify(await issuer.sign({}))).rejects.toThrow(IssuerUnavailableError)
  })

  test.each<[what: string, body: string]>([
    ['HTML', '<html>'],
    ['a list', '[]'],
    ['no key set', '{"keys":"none"}'],
    ['more than a megabyte', JSON.stringify({ keys: [], padding: 'x'.repeat(2 ** 20) })],
  ])('with %s for keys', async (_, body) => {
    const server = createServer((_request, response) => response.end(body))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const { verify } = await openKeys({}, { jwksUri: `http://127.0.0.1:${port}/` })
    await expect(verify(await issuer.sign({}))).rejects.toThrow(IssuerUnavailableError)
    server.close()
  })
})
