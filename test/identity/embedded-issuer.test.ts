import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, decodeJwt, decodeProtectedHeader } from 'jose'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { openEmbeddedIssuer } from '../../src/identity/embedded-issuer.js'
import { InvalidTokenError } from '../../src/identity/token-errors.js'
import { createTokenVerifier } from '../../src/identity/token-verifier.js'

const AUDIENCE = 'http://127.0.0.1:8080/mcp'
const request = { agent: 'developer', audience: AUDIENCE, ttlSeconds: 60 }

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-issuer-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const openIssuer = () => openEmbeddedIssuer(openCredentialStore({ directory, env: {}, warn: () => undefined }))

async function openVerifier(now = Date.now) {
  const { issuer, algorithms, jwks } = await openIssuer()
  const keys = createLocalJWKSet(jwks)
  return createTokenVerifier({ issuers: [{ issuer, algorithms, audiences: [AUDIENCE], keys }], now })
}

test('its tokens pass the checks that every token has to pass', async () => {
  const { issue } = await openIssuer()
  const verifier = await openVerifier()
  expect(await verifier.verify(await issue({ ...request, scope: 'a b' }))).toMatchObject({
    principal: { id: 'agent:developer', agents: ['developer'] },
    scopes: ['a', 'b'],
  })
  expect(await verifier.verify(await issue({ ...request, audience: ['urn:other', AUDIENCE] }))).toBeDefined()
  await expect(verifier.verify(await issue({ ...request, audience: 'urn:other' }))).rejects.toThrow(InvalidTokenError)
  const later = await openVerifier(() => Date.now() + 10 * 60_000)
  await expect(later.verify(await issue(request))).rejects.toThrow(InvalidTokenError)
})

test('its tokens are access tokens that are no two the same', async () => {
  const { issue, issuer } = await openIssuer()
  const token = await issue(request)
  expect(decodeProtectedHeader(token)).toMatchObject({ alg: 'ES256', typ: 'at+jwt', kid: expect.any(String) })
  const { iat = 0, ...claims } = decodeJwt(token)
  expect(claims).toMatchObject({ iss: issuer, aud: AUDIENCE, agent_id: 'developer', exp: iat + 60 })
  expect(claims.jti).not.toBe(decodeJwt(await issue(request)).jti)
})

test('another installation’s tokens are not its own', async () => {
  const { issue } = await openIssuer()
  const token = await issue(request)
  await rm(directory, { recursive: true })
  await expect((await openVerifier()).verify(token)).rejects.toThrow(InvalidTokenError)
})

test('several that open it at once have one key, and so has everybody after them', async () => {
  const issuers = await Promise.all([openIssuer(), openIssuer(), openIssuer()])
  const again = await openIssuer()
  expect(new Set([...issuers, again].map(({ issuer }) => issuer)).size).toBe(1)
})

test('to open it again leaves the file as it is', async () => {
  await openIssuer()
  const written = await readFile(join(directory, 'credentials.json'), 'utf8')
  await openIssuer()
  expect(await readFile(join(directory, 'credentials.json'), 'utf8')).toBe(written)
})

test('the private key is neither published nor on disk in the clear', async () => {
  const { jwks } = await openIssuer()
  expect(jwks.keys).toMatchObject([{ kty: 'EC', crv: 'P-256', alg: 'ES256', use: 'sig' }])
  expect(jwks.keys[0]).not.toHaveProperty('d')
  expect(await readFile(join(directory, 'credentials.json'), 'utf8')).not.toContain('"d"')
})
