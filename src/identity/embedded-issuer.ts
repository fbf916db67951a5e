import { randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose'
import { z } from 'zod'
import type { CredentialStore } from '../credentials/store.js'

const ALGORITHM = 'ES256'
const ENTRY = 'embedded-issuer'

/**
 * Audience of tokens that were issued without knowing the address the gateway will listen on. Accepted by the installation
 * that holds the key, as long as it has no public URL (MCP_RESOURCE_URI) that would name it.
 */
export const LOCAL_AUDIENCE = 'urn:agent-mcp-gateway:local'

/** Audience of the tokens of `gateway connect`, which are good even where an external issuer has replaced this one. */
export const CONNECT_AUDIENCE = 'urn:agent-mcp-gateway:connect'

/** Audience of tokens for what only the person at this machine may ask of a running gateway: how it is. */
export const STATUS_AUDIENCE = 'urn:agent-mcp-gateway:status'

const StoredKey = z.object({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: z.string(),
  y: z.string(),
  d: z.string(),
})

export interface TokenRequest {
  readonly agent: string
  readonly audience: string | readonly string[]
  readonly ttlSeconds: number
  readonly scope?: string | undefined
}

/** The issuer a gateway has when no other is configured: one ES256 key, kept with the credentials. */
export interface EmbeddedIssuer {
  readonly issuer: string
  readonly algorithms: readonly [typeof ALGORITHM]
  /** The public half, as served under `/.well-known/jwks.json`. */
  readonly jwks: { readonly keys: JWK[] }
  /** A signed access token (RFC 9068). */
  issue(request: TokenRequest): Promise<string>
}

/** Opens the issuer; the first to open it makes the key. */
export async function openEmbeddedIssuer(store: CredentialStore): Promise<EmbeddedIssuer> {
  const stored = await store.update(ENTRY, async current => {
    return StoredKey.safeParse(current?.value).success ? current : { issuer: '', resource: '', value: await newKey() }
  })
  const jwk = StoredKey.parse(stored?.value)
  const kid = await calculateJwkThumbprint(jwk)
  const privateKey = await importJWK(jwk, ALGORITHM)
  const { d: _private, ...publicJwk } = jwk
  const issuer = `urn:agent-mcp-gateway:${kid}`
  return {
    issuer,
    algorithms: [ALGORITHM],
    jwks: { keys: [{ ...publicJwk, kid, alg: ALGORITHM, use: 'sig' }] },
    issue: ({ agent, audience, ttlSeconds, scope }) =>
      new SignJWT({ agent_id: agent, client_id: 'gateway-cli', ...(scope === undefined ? {} : { scope }) })
        .setProtectedHeader({ alg: ALGORITHM, typ: 'at+jwt', kid })
        .setIssuer(issuer)
        .setSubject(`agent:${agent}`)
        .setAudience(typeof audience === 'string' ? audience : [...audience])
        .setJti(randomUUID())
        .setIssuedAt()
        .setExpirationTime(Math.floor(Date.now() / 1000) + ttlSeconds)
        .sign(privateKey),
  }
}

async function newKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair(ALGORITHM, { extractable: true })
  return exportJWK(privateKey)
}
