import * as oauth from 'oauth4webapi'
import type { OAuthConfig } from '../config/servers-file.js'
import { createRedactor } from '../observability/redactor.js'
import type { OAuthClient } from './client.js'
import { toClientAuth, toOAuth4webapi } from './client-authentication.js'
import type { GuardedFetch, GuardedInit } from './guarded-fetch.js'
import { type Grant, readTokenResponse, TokenRefusal } from './token-response.js'

// Well under the time after which a lock counts as left behind: a refresh ends before anybody else may start one.
const TIMEOUT_MS = 8_000

/** One client at one authorization server, asking for tokens for one resource. */
export interface TokenEndpoint {
  readonly server: oauth.AuthorizationServer
  readonly client: OAuthClient
  readonly settings: OAuthConfig
  readonly resource: string | undefined
  readonly fetch: GuardedFetch
}

/** Each of these rejects as readTokenResponse does, and with what the fetch rejects with. */
export const exchangeCode = (
  endpoint: TokenEndpoint,
  answer: URLSearchParams,
  { redirectUri, verifier }: { readonly redirectUri: string; readonly verifier: string },
): Promise<Grant> =>
  request(endpoint, (server, client, auth, options) =>
    oauth.authorizationCodeGrantRequest(server, client, auth, answer, redirectUri, verifier, options),
  )

export const exchangeRefreshToken = (endpoint: TokenEndpoint, refreshToken: string): Promise<Grant> =>
  request(endpoint, (server, client, auth, options) =>
    oauth.refreshTokenGrantRequest(server, client, auth, refreshToken, options),
  )

export const exchangeDeviceCode = (endpoint: TokenEndpoint, deviceCode: string): Promise<Grant> =>
  request(endpoint, (server, client, auth, options) =>
    oauth.deviceCodeGrantRequest(server, client, auth, deviceCode, options),
  )

export const exchangeClientCredentials = (endpoint: TokenEndpoint, scopes: readonly string[]): Promise<Grant> =>
  request(endpoint, (server, client, auth, { additionalParameters, ...options }) =>
    oauth.clientCredentialsGrantRequest(
      server,
      client,
      auth,
      { ...additionalParameters, ...(scopes.length > 0 && { scope: scopes.join(' ') }) },
      options,
    ),
  )

/** Revokes a token (RFC 7009). Resolves false when the server did not say that it did. */
export async function revoke(endpoint: TokenEndpoint, token: string): Promise<boolean> {
  const { server, client, settings, fetch } = endpoint
  const auth = await toClientAuth(client, settings, server)
  const options = requestOptions(fetch)
  const response = await oauth.revocationRequest(server, toOAuth4webapi(client), auth, token, options)
  return response.ok
}

/** What oauth4webapi sends, it sends through the guard, which decides better than the library about `http:`. */
export const requestOptions = (fetch: GuardedFetch) => ({
  [oauth.allowInsecureRequests]: true,
  [oauth.customFetch]: (
    url: string,
    { method, headers, body }: { method: string; headers: Record<string, string>; body?: URLSearchParams | undefined },
  ) => fetch(url, { method, headers, body: body?.toString(), timeoutMs: TIMEOUT_MS }),
})

type TokenRequestOptions = ReturnType<typeof requestOptions> & {
  readonly additionalParameters: Record<string, string>
}

async function request(
  { server, client, settings, resource, fetch }: TokenEndpoint,
  send: (
    server: oauth.AuthorizationServer,
    client: oauth.Client,
    auth: oauth.ClientAuth,
    options: TokenRequestOptions,
  ) => Promise<Response>,
): Promise<Grant> {
  const auth = await toClientAuth(client, settings, server)
  const named = toOAuth4webapi(client)
  const additionalParameters: Record<string, string> = resource === undefined ? {} : { resource }
  const sent: string[] = []
  const listening: GuardedFetch = (url, init) => {
    sent.push(...secretsIn(init))
    return fetch(url, init)
  }
  const response = await send(server, named, auth, { ...requestOptions(listening), additionalParameters })
  return readTokenResponse(server, named, response).catch(error => {
    throw error instanceof TokenRefusal ? withoutSecrets(error, sent) : error
  })
}

const NOT_SECRET = new Set(['grant_type', 'client_id', 'redirect_uri', 'resource', 'scope', 'client_assertion_type'])

function secretsIn({ body = '', headers = {} }: GuardedInit = {}): string[] {
  const parameters = [...new URLSearchParams(body)].flatMap(([name, value]) => (NOT_SECRET.has(name) ? [] : [value]))
  const [, credentials = ''] = headers.authorization?.split(' ') ?? []
  const [, secret = ''] = Buffer.from(credentials, 'base64').toString().split(':')
  return [...parameters, credentials, decodeURIComponent(secret.replaceAll('+', ' '))]
}

/** Some servers repeat in their errors what they were sent. */
function withoutSecrets({ code, description }: TokenRefusal, secrets: readonly string[]): TokenRefusal {
  const { learn, redact } = createRedactor()
  learn('request', secrets)
  return new TokenRefusal(redact(code), description === undefined ? undefined : redact(description))
}
