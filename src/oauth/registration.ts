import type { AuthorizationServer } from 'oauth4webapi'
import { z } from 'zod'
import type { HttpServerConfig, OAuthConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, parseJson } from '../json.js'
import { AUTH_METHODS, type AuthMethod, type OAuthClient } from './client.js'
import { chooseAuthMethod } from './client-authentication.js'
import { oauthOf } from './discovery.js'
import type { GuardedFetch } from './guarded-fetch.js'
import { readSigningKey } from './private-key.js'
import { quoted } from './quoted.js'

const CLIENT_NAME = 'Agent MCP Gateway'

/** A client that was registered dynamically (RFC 7591), as kept for its issuer. */
const Registration = z.object({
  clientId: z.string().min(1),
  clientSecret: z.string().optional(),
  authMethod: z.enum(AUTH_METHODS),
  redirectUris: z.array(z.string()),
  /** The server entries that have logged in with it. */
  usedBy: z.array(z.string()).default([]),
  /** Milliseconds since the epoch; absent when the secret does not expire. */
  secretExpiresAt: z.number().optional(),
})

export type Registration = Readonly<z.infer<typeof Registration>>

// Longer ones are none, and would go into every request.
const MAX_LENGTH = 4096

// The registration response, of which servers leave out and get wrong a good deal: only what is used is checked.
const Response201 = z.object({
  client_id: z
    .string()
    .max(MAX_LENGTH)
    .regex(/^[\x20-\x7e]+$/),
  client_secret: z.string().max(MAX_LENGTH).optional().catch(undefined),
  client_secret_expires_at: z.number().optional().catch(undefined),
  token_endpoint_auth_method: z.string().optional().catch(undefined),
})

export const registrationEntry = (issuer: string): string => `registration/${issuer}`

/** The client of the servers file: pre-registered, or a document that describes it. Undefined when there is neither. */
export function configuredClient(config: HttpServerConfig, server: AuthorizationServer): OAuthClient | undefined {
  const settings = oauthOf(config)
  if (settings.clientId !== undefined) {
    return { clientId: settings.clientId, authMethod: chooseAuthMethod(settings, server), source: 'configured' }
  }
  if (settings.clientMetadataUrl !== undefined && server.client_id_metadata_document_supported === true) {
    const authMethod = settings.privateKeyFile === undefined ? 'none' : 'private_key_jwt'
    return { clientId: settings.clientMetadataUrl, authMethod, source: 'metadata document' }
  }
  return undefined
}

/** The registration kept for the issuer, if it still holds and covers the redirect URI. */
export async function readRegistration(
  store: CredentialStore,
  issuer: string,
  redirectUri: string | undefined,
): Promise<Registration | undefined> {
  const stored = await store.read(registrationEntry(issuer))
  const { data } = Registration.safeParse(stored?.value)
  if (!data || stored?.issuer !== issuer) return undefined
  if (data.secretExpiresAt !== undefined && data.secretExpiresAt <= Date.now()) return undefined
  return redirectUri === undefined || data.redirectUris.includes(redirectUri) ? data : undefined
}

export async function keepRegistration(
  store: CredentialStore,
  issuer: string,
  registration: Registration,
): Promise<void> {
  await store.update(registrationEntry(issuer), () => ({ issuer, resource: '', value: registration }))
}

export const registeredClient = ({ clientId, clientSecret, authMethod }: Registration): OAuthClient => ({
  clientId,
  ...(clientSecret !== undefined && { clientSecret }),
  authMethod,
  source: 'registered',
})

export interface RegistrationRequest {
  readonly server: AuthorizationServer
  readonly settings: OAuthConfig
  /** None for the device flow. */
  readonly redirectUris: readonly string[]
  readonly grantTypes: readonly string[]
  readonly fetch: GuardedFetch
}

/** Registers a new client. Throws LOGIN_FAILED that says what the server objects to, or which key to set when it registers nobody. */
export async function register(request: RegistrationRequest): Promise<Registration> {
  const { server, redirectUris, fetch } = request
  if (server.registration_endpoint === undefined) {
    throw new GatewayError(
      'LOGIN_FAILED',
      `${server.issuer} does not register clients by itself: register one there (redirect URI ${redirectUris[0] ?? 'not needed'}) and set "oauth": { "clientId": "…" } for this server`,
    )
  }
  const response = await fetch(server.registration_endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(await toMetadata(request)),
  })
  const json = parseJson(await response.text())?.value
  const parsed = Response201.safeParse(json)
  if (response.status >= 500 || response.status === 429) {
    throw new GatewayError(
      'SERVER_UNAVAILABLE',
      `the registration at ${server.issuer} answered HTTP ${response.status}`,
    )
  }
  if (!response.ok || !parsed.success) throw rejected(server, response.status, json)
  const { client_id, client_secret, client_secret_expires_at: expires } = parsed.data
  return {
    clientId: client_id,
    ...(client_secret !== undefined && { clientSecret: client_secret }),
    ...(client_secret !== undefined && expires && { secretExpiresAt: expires * 1000 }),
    authMethod: methodOf(parsed.data, server),
    redirectUris: [...redirectUris],
    usedBy: [],
  }
}

async function toMetadata({ server, settings, redirectUris, grantTypes }: RegistrationRequest): Promise<object> {
  const authMethod = wantedMethod(settings, server)
  const signing =
    authMethod === 'private_key_jwt'
      ? await readSigningKey(settings, server.token_endpoint_auth_signing_alg_values_supported)
      : undefined
  return {
    client_name: CLIENT_NAME,
    application_type: 'native',
    redirect_uris: redirectUris,
    grant_types: grantTypes,
    response_types: redirectUris.length > 0 ? ['code'] : [],
    token_endpoint_auth_method: authMethod,
    ...(signing && { jwks: { keys: [signing.publicJwk] }, token_endpoint_auth_signing_alg: signing.algorithm }),
  }
}

/** A native client keeps no secret well, so it asks for none where that is possible. */
function wantedMethod(settings: OAuthConfig, server: AuthorizationServer): AuthMethod {
  if (settings.tokenEndpointAuthMethod !== undefined) return settings.tokenEndpointAuthMethod
  const listed = server.token_endpoint_auth_methods_supported ?? ['none']
  if (settings.privateKeyFile !== undefined && listed.includes('private_key_jwt')) return 'private_key_jwt'
  const preferred: readonly AuthMethod[] = ['none', 'client_secret_basic', 'client_secret_post']
  return preferred.find(method => listed.includes(method)) ?? 'none'
}

/** What the server settled on counts, not what was asked for; without a word about it, what the secret and the list tell. */
function methodOf(response: z.infer<typeof Response201>, server: AuthorizationServer): AuthMethod {
  const stated = AUTH_METHODS.find(method => method === response.token_endpoint_auth_method)
  if (stated !== undefined) return stated
  if (response.client_secret === undefined) return 'none'
  return chooseAuthMethod({ clientSecret: response.client_secret }, server)
}

function rejected(server: AuthorizationServer, status: number, json: unknown): GatewayError {
  const error = isJsonObject(json) && typeof json.error === 'string' ? json.error : undefined
  const description = isJsonObject(json) && typeof json.error_description === 'string' ? json.error_description : ''
  const reason = error === undefined ? `HTTP ${status}` : quoted(`${error} ${description}`.trim())
  return new GatewayError(
    'LOGIN_FAILED',
    `${server.issuer} rejected the registration of a client (${reason}): register one there and set "oauth": { "clientId": "…" } for this server`,
  )
}
