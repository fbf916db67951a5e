import fc from 'fast-check'
import { type CryptoKey, createLocalJWKSet, errors, exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose'
import { beforeAll, describe, expect, test } from 'vitest'
import { resolveAgent } from '../../src/identity/resolve-agent.js'
import { InvalidTokenError, IssuerUnavailableError } from '../../src/identity/token-errors.js'
import {
  createTokenVerifier,
  type TokenVerifier,
  type TokenVerifierOptions,
  type TrustedIssuer,
} from '../../src/identity/token-verifier.js'
import { compileRules } from '../../src/rules/compile.js'

const ISSUER = 'https://idp.example/realms/mcp'
const AUDIENCE = 'https://gateway.example/mcp'
const NOW = 1_800_000_000 // seconds, as in a token
const MINUTE = 60

let privateKey: CryptoKey
let publicKey: CryptoKey
let keys: TrustedIssuer['keys']
let verifier: TokenVerifier

beforeAll(async () => {
  ;({ privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true }))
  keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] })
  verifier = createVerifier()
})

const createVerifier = ({
  now = () => NOW * 1000,
  clockToleranceSeconds = 60,
  ...issuer
}: Partial<TrustedIssuer & TokenVerifierOptions> = {}) =>
  createTokenVerifier({
    issuers: [{ issuer: ISSUER, audiences: [AUDIENCE], algorithms: ['ES256'], keys, ...issuer }],
    clockToleranceSeconds,
    now,
  })

const good = { iss: ISSUER, aud: AUDIENCE, sub: 'user-1', exp: NOW + 5 * MINUTE, agent_id: 'team' }
// Unchecked, as whoever makes a token is free to write what he likes.
const sign = (claims: Record<string, unknown>, { key = privateKey, kid = 'k1' } = {}) =>
  new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid }).sign(key)

const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

async function refusal(token: string, by: TokenVerifier = verifier): Promise<InvalidTokenError> {
  const error = await by.verify(token).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof InvalidTokenError)) throw new Error('expected an InvalidTokenError', { cause: error })
  expect(error.description).not.toBe('')
  if (token.length > 30) expect(`${error.message} ${error.description}`).not.toContain(token)
  return error
}

describe('a good token', () => {
  test('says who is calling', async () => {
    const token = await sign({ ...good, client_id: 'cli', scope: 'mcp:read  mcp:write' })
    const scopes = ['mcp:read', 'mcp:write']
    const principal = { id: 'user-1', agents: ['team'], roles: [], scopes, issuer: ISSUER, clientId: 'cli' }
    expect(await verifier.verify(token)).toMatchObject({
      principal: { ...principal, claims: { iss: ISSUER, agent_id: 'team' } },
      clientId: 'cli',
      scopes,
      expiresAt: good.exp,
      acceptedUntil: good.exp + MINUTE,
    })
  })

  test('is one principal for each issuer, tenant, subject and client', async () => {
    const names = { agentClaim: 'agent_id', tenantClaim: 'tid' }
    const other = { issuer: 'https://other.example', audiences: [AUDIENCE], algorithms: ['ES256'], keys } as const
    const both = createTokenVerifier({
      issuers: [
        { ...other, issuer: ISSUER, claims: { agents: {}, roles: {}, names } },
        { ...other, claims: { agents: {}, roles: {}, names } },
      ],
      now: () => NOW * 1000,
    })
    const keyOf = async (claims: object) => (await both.verify(await sign({ ...good, ...claims }))).principal.key
    const some = [{}, { iss: other.issuer }, { sub: 'user-2' }, { client_id: 'c' }, { azp: 'd' }, { tid: 't' }]
    const found = await Promise.all(some.map(keyOf))
    expect(new Set(found).size).toBe(some.length)
    expect(await keyOf({ jti: 'another token', scope: 'x', exp: good.exp + 1 })).toBe(found[0])
  })

  test.each<[what: string, claims: Record<string, unknown>]>([
    ['an audience among others', { aud: ['https://other.example', AUDIENCE] }],
    ['expired half a minute ago', { exp: NOW - 30 }],
    ['valid in half a minute', { nbf: NOW + 30 }],
    ['valid since a minute', { nbf: NOW - MINUTE }],
    ['issued by a clock that is ahead', { iat: NOW + 30 }],
  ])('%s', async (_, claims) => {
    expect((await verifier.verify(await sign({ ...good, ...claims }))).principal.id).toBe('user-1')
  })

  test.each<[what: string, claims: Record<string, unknown>, agents: string[]]>([
    ['agent_id', { agent_id: 'team' }, ['team']],
    ['agents', { agent_id: undefined, agents: ['team', 'dev*'] }, ['team', 'dev*']],
    ['both', { agent_id: 'team', agents: ['dev*', 'team'] }, ['team', 'dev*']],
    ['neither', { agent_id: undefined }, []],
    ['claims of another type', { agent_id: 7, agents: 'admin' }, []],
    ['a list with strange entries', { agent_id: '', agents: ['', null, 7, { a: 1 }, 'dev'] }, ['dev']],
  ])('its agents: %s', async (_, claims, agents) => {
    expect((await verifier.verify(await sign({ ...good, ...claims }))).principal.agents).toEqual(agents)
  })

  test('agent_id is a name: only "agents" may hold globs', async () => {
    const rules = compileRules({ agents: { admin: {} }, defaults: { deny_on_missing_agent: true } }, [])
    const { principal } = await verifier.verify(await sign({ ...good, agent_id: '*' }))
    expect(() => resolveAgent(rules, principal, 'admin')).toThrow(expect.objectContaining({ code: 'INVALID_AGENT_ID' }))
  })
})

describe('a bad token', () => {
  test.each<[what: string, claims: Record<string, unknown>]>([
    ['expired five minutes ago', { exp: NOW - 5 * MINUTE }],
    ['valid in five minutes', { nbf: NOW + 5 * MINUTE }],
    ['another issuer', { iss: 'https://evil.example' }],
    ['an issuer that starts alike', { iss: `${ISSUER}.evil.example` }],
    ['an issuer with a slash more', { iss: `${ISSUER}/` }],
    ['another audience', { aud: 'https://other.example/mcp' }],
    ['an audience that starts alike', { aud: `${AUDIENCE}2` }],
    ['other audiences', { aud: ['https://a.example', 'https://b.example'] }],
    ['no audience in the list', { aud: [] }],
    ['no exp', { exp: undefined }],
    ['no sub', { sub: undefined }],
    ['no iss', { iss: undefined }],
    ['no aud', { aud: undefined }],
    ['exp as a text', { exp: String(good.exp) }],
    ['nbf as a text', { nbf: 'now' }],
    ['aud as an object', { aud: { [AUDIENCE]: true } }],
    ['iss as a list', { iss: [ISSUER] }],
    ['sub as a number', { sub: 42 }],
    ['an empty sub', { sub: '' }],
    ['issued in five minutes', { iat: NOW + 5 * MINUTE }],
    ['an audience with a slash more', { aud: `${AUDIENCE}/` }],
    ['the id of a client for an audience', { aud: 'my-client' }],
  ])('%s', async (_, claims) => {
    await refusal(await sign({ ...good, ...claims }))
  })

  test('the error says what was got and what was wanted', async () => {
    expect((await refusal(await sign({ ...good, aud: 'https://other.example' }))).description).toBe(
      `audience mismatch: token has https://other.example, this server is ${AUDIENCE}`,
    )
    const { description } = await refusal(await sign({ ...good, iss: 'https://evil.example' }))
    expect(description).toContain('https://evil.example')
    expect(description).toContain(ISSUER)
    expect((await refusal(await sign({ ...good, exp: 0 }))).description).toContain('1970-01-01')
  })

  test('an audience of any length makes a short error', async () => {
    const { description } = await refusal(await sign({ ...good, aud: 'x'.repeat(5_000) }))
    expect(description.length).toBeLessThan(500)
  })

  test('signed with alg none', async () => {
    for (const alg of ['none', 'None', 'NONE']) await refusal(`${encoded({ alg, kid: 'k1' })}.${encoded(good)}.`)
  })

  test('HS256, signed with the public key as the secret', async () => {
    const secret = new TextEncoder().encode(await exportSPKI(publicKey))
    await refusal(await new SignJWT(good).setProtectedHeader({ alg: 'HS256', kid: 'k1' }).sign(secret))
  })

  test('signed with another key, under a name of its own and under ours', async () => {
    const other = await generateKeyPair('ES256')
    await refusal(await sign(good, { key: other.privateKey, kid: 'k2' }))
    await refusal(await sign(good, { key: other.privateKey, kid: 'k1' }))
  })

  test('with a key of its own in the header', async () => {
    const other = await generateKeyPair('ES256', { extractable: true })
    const header = { alg: 'ES256', kid: 'k1', jwk: await exportJWK(other.publicKey), jku: 'https://evil.example/jwks' }
    await refusal(await new SignJWT(good).setProtectedHeader(header).sign(other.privateKey))
  })

  test('with a critical header that nobody knows', async () => {
    const [, payload, signature] = (await sign(good)).split('.')
    await refusal(`${encoded({ alg: 'ES256', kid: 'k1', crit: ['x'], x: 1 })}.${payload}.${signature}`)
  })

  test('with claims changed after it was signed', async () => {
    const [header, , signature] = (await sign(good)).split('.')
    await refusal(`${header}.${encoded({ ...good, agent_id: 'admin' })}.${signature}`)
  })

  test('of 100 KB', async () => {
    await refusal(await sign({ ...good, padding: 'x'.repeat(100_000) }))
    await refusal('x'.repeat(100_000))
  })

  test.each([
    ['nothing', ''],
    ['dots', '..'],
    ['words', 'not a token'],
    ['an API key', 'gw_0123456789abcdef'],
    ['five parts', 'a.b.c.d.e'],
    ['a header that is no JSON', 'YWJj.YWJj.YWJj'],
    ['a payload that is null', `${encoded({ alg: 'ES256' })}.${encoded(null)}.AAAA`],
  ])('%s', async (_, token) => {
    await refusal(token)
  })

  test.each(['iss', 'aud', 'sub', 'exp'])('with %s nested deeper than a stack is', async claim => {
    const deep = `${'['.repeat(10_000)}${']'.repeat(10_000)}`
    const part = Buffer.from(`{"alg":"ES256","kid":"k1","${claim}":${deep}}`).toString('base64url')
    const { description } = await refusal(`${encoded({ alg: 'ES256', kid: 'k1' })}.${part}.AAAA`)
    expect(description).toBe('the token is not a JWT')
    await refusal(`${part}.${encoded(good)}.AAAA`)
  })

  test('anything', async () => {
    await fc.assert(fc.asyncProperty(fc.string(), async text => void (await refusal(text))))
    const part = fc.string({ unit: fc.constantFrom(...'abcXYZ019-_') })
    await fc.assert(fc.asyncProperty(part, part, part, async (...parts) => void (await refusal(parts.join('.')))))
  })
})

describe('a token that was good before', () => {
  test('is verified once, and refused when it has expired', async () => {
    let now = NOW
    let asked = 0
    const counting = createVerifier({
      now: () => now * 1000,
      keys: (...header) => {
        asked++
        return keys(...header)
      },
    })
    const token = await sign(good)
    const first = await counting.verify(token)
    expect(await counting.verify(token)).toEqual(first)
    expect(asked).toBe(1)

    now = good.exp + 30
    expect(await counting.verify(token)).toEqual(first)
    now = good.exp + 5 * MINUTE
    await refusal(token, counting)
    await refusal(token, counting)
  })

  test('opens the door to no other token', async () => {
    const token = await sign(good)
    await verifier.verify(token)
    await refusal(`${token}x`)
    await refusal(token.slice(0, -10))
  })
})

test('the clock tolerance can be set', async () => {
  const strict = createVerifier({ clockToleranceSeconds: 0 })
  await refusal(await sign({ ...good, exp: NOW - 1 }), strict)
  const generous = createVerifier({ clockToleranceSeconds: 10 * MINUTE })
  expect((await generous.verify(await sign({ ...good, exp: NOW - 5 * MINUTE }))).principal.id).toBe('user-1')
})

test('any one of several audiences is this server', async () => {
  const local = createVerifier({ audiences: [AUDIENCE, 'urn:local'] })
  expect((await local.verify(await sign({ ...good, aud: 'urn:local' }))).principal.id).toBe('user-1')
})

test('a failure of the issuer is not the token’s fault', async () => {
  const failing = createVerifier({ keys: () => Promise.reject(new errors.JWKSTimeout()) })
  await expect(failing.verify(await sign(good))).rejects.toBeInstanceOf(IssuerUnavailableError)
})

describe('the door of one server', () => {
  const door = 'https://gateway.example/servers/docs/mcp'

  test('takes a token for it, and one for the whole gateway', async () => {
    for (const aud of [door, AUDIENCE])
      expect((await verifier.verify(await sign({ ...good, aud }), door)).principal.id).toBe('user-1')
  })

  test('a token for it is good there only, also when it was good there before', async () => {
    const token = await sign({ ...good, aud: door })
    await verifier.verify(token, door)
    await expect(verifier.verify(token)).rejects.toThrow(
      `audience mismatch: token has ${door}, this server is ${AUDIENCE}`,
    )
    await expect(verifier.verify(token, `${door}2`)).rejects.toThrow(`this server is ${door}2`)
  })

  test('an internal issuer opens none, and is not named', async () => {
    const internal = createVerifier({ isInternal: true })
    await expect(internal.verify(await sign({ ...good, aud: door }), door)).rejects.toThrow(InvalidTokenError)
    await expect(internal.verify(await sign({ ...good, iss: 'x' }))).rejects.toThrow('this server trusts no issuer')
  })
})

describe('a kind of token', () => {
  const typed = (typ: string) => new SignJWT(good).setProtectedHeader({ alg: 'ES256', kid: 'k1', typ }).sign(privateKey)

  test.each(['JWT', 'at+jwt', 'application/at+jwt', 'AT+JWT'])('that gives access: %s', async typ => {
    expect((await verifier.verify(await typed(typ))).principal.id).toBe('user-1')
  })

  test.each(['dpop+jwt', 'logout+jwt', 'secevent+jwt', 'id_token'])('that is for something else: %s', async typ => {
    expect((await refusal(await typed(typ))).description).toContain('not an access token')
  })
})

test('of several keys that fit a token without a kid, the right one is found', async () => {
  const pairs = await Promise.all([1, 2, 3].map(() => generateKeyPair('ES256', { extractable: true })))
  const set = createLocalJWKSet({ keys: await Promise.all(pairs.map(pair => exportJWK(pair.publicKey))) })
  const several = createVerifier({ keys: set })
  for (const pair of pairs) {
    const token = await new SignJWT(good).setProtectedHeader({ alg: 'ES256' }).sign(pair.privateKey)
    expect((await several.verify(token)).principal.id).toBe('user-1')
  }
  await refusal(await new SignJWT(good).setProtectedHeader({ alg: 'ES256' }).sign(privateKey), several)
})
