import type { AuthorizationServer } from 'oauth4webapi'
import { z } from 'zod'
import { GatewayError } from '../errors/gateway-error.js'
import { parseJson } from '../json.js'
import { checkAuthorizationEndpoint } from './authorization-endpoint.js'
import type { OAuthClient } from './client.js'
import type { GuardedFetch } from './guarded-fetch.js'
import { quoted } from './quoted.js'

const list = z.array(z.string()).optional().catch(undefined)
const flag = z.boolean().optional().catch(undefined)

/** What the flow needs of RFC 8414 and OpenID Connect Discovery metadata. */
const Metadata = z.object({
  issuer: z.string(),
  authorization_endpoint: z.string().optional(),
  token_endpoint: z.string().optional(),
  registration_endpoint: z.string().optional(),
  revocation_endpoint: z.string().optional(),
  device_authorization_endpoint: z.string().optional(),
  userinfo_endpoint: z.string().optional(),
  scopes_supported: list,
  code_challenge_methods_supported: list,
  token_endpoint_auth_methods_supported: list,
  token_endpoint_auth_signing_alg_values_supported: list,
  authorization_response_iss_parameter_supported: flag,
  client_id_metadata_document_supported: flag,
})

/** Where the metadata of an issuer may be, in the order of MCP authorization ("Authorization Server Metadata Discovery"). */
export function metadataUrls(issuer: string): string[] {
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/+$/, '')
  const oauth = `${origin}/.well-known/oauth-authorization-server${path}`
  const openid = `${origin}/.well-known/openid-configuration${path}`
  return path === '' ? [oauth, openid] : [oauth, openid, `${origin}${path}/.well-known/openid-configuration`]
}

export interface Wanted {
  /** From the resource's metadata, or configured. */
  readonly issuer: string
  /** Where to look; default: the well-known URLs of the issuer. */
  readonly urls?: readonly string[]
  /** Further issuers that count as the same one. */
  readonly aliases?: readonly string[]
}

/** The metadata of the authorization server, checked; undefined when it has none. Throws LOGIN_FAILED when it must not be used. */
export async function findServerMetadata(
  wanted: Wanted,
  fetch: GuardedFetch,
): Promise<AuthorizationServer | undefined> {
  for (const url of wanted.urls ?? metadataUrls(wanted.issuer)) {
    const response = await fetch(url)
    if (response.status >= 500) {
      throw new GatewayError('SERVER_UNAVAILABLE', `${url} answered HTTP ${response.status}`)
    }
    const json = response.status === 200 ? parseJson(await response.text())?.value : undefined
    const { data: metadata } = Metadata.safeParse(json)
    if (!metadata) continue
    check(metadata, url, wanted)
    // To zod an optional member may also be there and undefined.
    return metadata as AuthorizationServer
  }
  return undefined
}

/**
 * The server of a stored login, as far as a secret of the servers file may be sent to it: endpoints on the issuer's own origin are
 * as good as the issuer; others are asked for again, because a stored login may have come from anybody's export.
 */
export async function vouchedServer(
  server: AuthorizationServer,
  client: OAuthClient,
  fetch: GuardedFetch,
): Promise<AuthorizationServer> {
  const { origin } = new URL(server.issuer)
  const endpoints = [server.token_endpoint, server.revocation_endpoint].filter(endpoint => endpoint !== undefined)
  const isOwn = (endpoint: string) => URL.canParse(endpoint) && new URL(endpoint).origin === origin
  if (client.source !== 'configured' || endpoints.every(isOwn)) return server
  const current = await findServerMetadata({ issuer: server.issuer }, fetch)
  if (current) return current
  throw new GatewayError('LOGIN_FAILED', `the endpoints of ${server.issuer} cannot be confirmed: log in again`)
}

function check(metadata: z.infer<typeof Metadata>, url: string, { issuer, aliases = [] }: Wanted): void {
  // RFC 8414, section 3.3: identical, not similar.
  if (metadata.issuer !== issuer && !aliases.includes(metadata.issuer)) {
    throw new GatewayError(
      'LOGIN_FAILED',
      `${url} says that its issuer is ${quoted(metadata.issuer)}, expected ${quoted(issuer)}: if it is right, set "oauth": { "issuer": ${quoted(metadata.issuer)} } for this server`,
    )
  }
  if (metadata.token_endpoint === undefined) throw new GatewayError('LOGIN_FAILED', `${url} names no token_endpoint`)
  if (metadata.authorization_endpoint !== undefined) checkAuthorizationEndpoint(metadata.authorization_endpoint)
}

/** PKCE with S256, or no login in a browser: without it a stolen code is as good as a login. */
export function requireS256(server: AuthorizationServer): void {
  const methods = server.code_challenge_methods_supported
  if (methods?.includes('S256')) return
  throw new GatewayError(
    'LOGIN_FAILED',
    `the authorization server ${server.issuer} does not say that it supports PKCE with S256 (code_challenge_methods_supported is ${quoted(methods?.join(' ') ?? 'absent')}), which MCP requires`,
  )
}

/** A server of 2025-03-26 without any metadata has its endpoints where that revision puts them ("Fallbacks for Servers without Metadata Discovery"). */
export const defaultEndpoints = (origin: string): AuthorizationServer => ({
  issuer: origin,
  authorization_endpoint: `${origin}/authorize`,
  token_endpoint: `${origin}/token`,
  registration_endpoint: `${origin}/register`,
  code_challenge_methods_supported: ['S256'],
})
