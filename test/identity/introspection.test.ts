import { afterEach, describe, expect, test } from 'vitest'
import { openIntrospection } from '../../src/identity/introspection.js'
import { InvalidTokenError, IssuerUnavailableError } from '../../src/identity/token-errors.js'
import { createTokenVerifier } from '../../src/identity/token-verifier.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'

const AUDIENCE = 'https://gateway.example/mcp'
const START = 1_800_000_000 // seconds
const good = { active: true, sub: 'user-1', aud: AUDIENCE, client_id: 'cli', scope: 'mcp:read', agent_id: 'team' }

let issuer: TestIssuer
afterEach(() => issuer?.stop())

/** A verifier that has to ask about every token which is no JWT. */
async function openVerifier(answers: Record<string, Record<string, unknown> | number>) {
  issuer = await openIssuer({ introspection: answers })
  const clock = { seconds: START }
  const now = () => clock.seconds * 1000
  const endpoint = { endpoint: `${issuer.origin}/introspect`, clientId: 'gate:way', clientSecret: 's e+cret' }
  const introspection = openIntrospection(endpoint, { now })
  const keys = () => Promise.reject(new Error('nobody asks for keys'))
  const trusted = { issuer: issuer.issuer, audiences: [AUDIENCE], algorithms: ['RS256'], keys, introspection } as const
  return { clock, verifier: createTokenVerifier({ issuers: [trusted], now }) }
}

describe('an opaque token', () => {
  test('is what the issuer says it is', async () => {
    const { verifier } = await openVerifier({ opaque: { ...good, exp: START + 300 } })
    expect(await verifier.verify('opaque')).toMatchObject({
      principal: { id: 'user-1', agents: ['team'], clientId: 'cli', issuer: issuer.issuer },
      scopes: ['mcp:read'],
      expiresAt: START + 300,
    })
    const [asked] = issuer.introspected
    expect(asked?.authorization).toBe(`Basic ${Buffer.from('gate%3Away:s+e%2Bcret').toString('base64')}`)
    expect(Object.fromEntries(asked?.body ?? [])).toEqual({ token: 'opaque', token_type_hint: 'access_token' })
  })

  test('of a client without a user has the client for a subject', async () => {
    const { verifier } = await openVerifier({ opaque: { ...good, sub: undefined } })
    expect((await verifier.verify('opaque')).principal.id).toBe('cli')
  })

  test.each<[why: string, answer: Record<string, unknown>, description: string]>([
    ['is not active', { active: false }, 'not active'],
    ['has another audience', { ...good, aud: 'x' }, `audience mismatch: token has x, this server is ${AUDIENCE}`],
    ['has no audience', { ...good, aud: undefined }, `audience mismatch: token has none, this server is ${AUDIENCE}`],
    ['has another issuer', { ...good, iss: 'https://other.example' }, 'issuer mismatch'],
    ['has expired', { ...good, exp: START - 300 }, 'expired'],
    ['is of tomorrow', { ...good, nbf: START + 300 }, 'not valid before'],
    ['is nobody’s', { ...good, sub: undefined, client_id: undefined }, "the claim 'sub' is not a name"],
  ])('that %s is refused', async (_, answer, description) => {
    const { verifier } = await openVerifier({ opaque: answer })
    const error = await verifier.verify('opaque').catch(thrown => thrown)
    expect(error).toBeInstanceOf(InvalidTokenError)
    expect(error.description).toContain(description)
    expect(error.description).not.toContain('opaque')
  })

  test('is asked about once a minute, by however many', async () => {
    const { verifier, clock } = await openVerifier({ opaque: good })
    await Promise.all([1, 2, 3].map(() => verifier.verify('opaque')))
    clock.seconds += 59
    await verifier.verify('opaque')
    expect(issuer.introspected).toHaveLength(1)
    clock.seconds += 2
    await verifier.verify('opaque')
    expect(issuer.introspected).toHaveLength(2)
  })

  test('is asked about again when it has expired, if that is sooner', async () => {
    const { verifier, clock } = await openVerifier({ opaque: { ...good, exp: START + 10 } })
    await verifier.verify('opaque')
    clock.seconds += 11
    await verifier.verify('opaque')
    expect(issuer.introspected).toHaveLength(2)
  })

  test('that is not active is not asked about all the time', async () => {
    const { verifier } = await openVerifier({})
    for (let times = 0; times < 5; times++) await expect(verifier.verify('bad')).rejects.toThrow(InvalidTokenError)
    expect(issuer.introspected).toHaveLength(1)
  })

  test.each([500, 401, 302, 404])('is not refused when the endpoint answers %i', async status => {
    const { verifier } = await openVerifier({ opaque: status })
    await expect(verifier.verify('opaque')).rejects.toThrow(IssuerUnavailableError)
    await expect(verifier.verify('opaque')).rejects.toThrow(IssuerUnavailableError)
    expect(issuer.introspected).toHaveLength(2) // a failure is not remembered
  })

  test('is not refused when the endpoint does not say', async () => {
    const { verifier } = await openVerifier({ opaque: { sub: 'user-1' } })
    await expect(verifier.verify('opaque')).rejects.toThrow(IssuerUnavailableError)
  })
})

test('a JWT is not shown to anybody', async () => {
  const { verifier } = await openVerifier({})
  const token = await issuer.sign({ aud: AUDIENCE, iss: 'https://other.example' })
  await expect(verifier.verify(token)).rejects.toThrow('issuer mismatch')
  expect(issuer.introspected).toEqual([])
})
