import { decodeJwt } from 'jose'
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, parseJson } from '../json.js'
import { quoted } from './quoted.js'
import { Tokens } from './tokens.js'

export interface Grant {
  readonly tokens: Tokens
  /** Who logged in, when an ID token tells. For people to read, never for decisions. */
  readonly account: string | undefined
}

const MAX_ACCOUNT_LENGTH = 200
// Ten years: beyond any token, within any calendar.
const MAX_LIFETIME_SECONDS = 10 * 365 * 86_400

/** The authorization server understood the request and says no (RFC 6749, section 5.2). */
export class TokenRefusal extends Error {
  override readonly name = 'TokenRefusal'
  /** `invalid_grant`, `invalid_client`, … */
  readonly code: string
  readonly description: string | undefined

  constructor(code: string, description: string | undefined) {
    super(code)
    this.code = code
    this.description = description
  }
}

/**
 * The tokens in a response of the token endpoint. Throws TokenRefusal for an OAuth error, SERVER_UNAVAILABLE for everything that
 * says nothing about the grant (5xx, 429, a page of HTML), LOGIN_FAILED for tokens that cannot be used.
 */
export async function readTokenResponse(
  server: oauth.AuthorizationServer,
  client: oauth.Client,
  response: Response,
): Promise<Grant> {
  const body = parseBody(response.headers.get('content-type') ?? '', await response.text())
  const error = typeof body?.error === 'string' ? body.error : undefined
  // These are about the server's day, whatever the body says.
  if (!body || response.status >= 500 || response.status === 429 || error === 'temporarily_unavailable') {
    throw unavailable(server, response)
  }
  // Some send their errors with 200.
  if (error !== undefined) {
    throw new TokenRefusal(error, typeof body.error_description === 'string' ? body.error_description : undefined)
  }
  if (!response.ok) throw unavailable(server, response)
  const issuedAt = Date.now()
  const { id_token: idToken, ...json } = withoutNonsense(body)
  if (String(json.token_type).toLowerCase() !== 'bearer') {
    const type = quoted(String(json.token_type).slice(0, 50))
    throw new GatewayError('LOGIN_FAILED', `${server.issuer} issues ${type} tokens, expected bearer`)
  }
  const clean = new Response(JSON.stringify(json), { headers: { 'content-type': 'application/json' } })
  const result = await oauth.processGenericTokenEndpointResponse(server, client, clean).catch(cause => {
    throw new GatewayError('LOGIN_FAILED', `the tokens from ${server.issuer} cannot be used: ${reasonOf(cause)}`)
  })
  if (!Tokens.shape.accessToken.safeParse(result.access_token).success) {
    throw new GatewayError('LOGIN_FAILED', `${server.issuer} issued an access token that no header can carry`)
  }
  return {
    tokens: {
      accessToken: result.access_token,
      issuedAt,
      ...(result.refresh_token !== undefined && { refreshToken: result.refresh_token }),
      ...(result.expires_in !== undefined && { expiresAt: issuedAt + result.expires_in * 1000 }),
      ...(result.scope !== undefined && { scope: result.scope }),
    },
    account: accountOf(idToken),
  }
}

/**
 * What is there but unusable counts as absent. To refuse the whole answer for it would throw away a refresh token for which the old
 * one has just been used up.
 */
function withoutNonsense({ expires_in, ...rest }: Record<string, unknown>): Record<string, unknown> {
  const present = Object.fromEntries(Object.entries(rest).filter(([, value]) => typeof value === 'string'))
  const seconds = typeof expires_in === 'string' && expires_in.trim() !== '' ? Number(expires_in) : expires_in
  const isLifetime = typeof seconds === 'number' && seconds > 0 && seconds < Number.POSITIVE_INFINITY
  return {
    token_type: 'bearer',
    ...present,
    ...(isLifetime && { expires_in: Math.min(seconds, MAX_LIFETIME_SECONDS) }),
  }
}

/** JSON, or the form that some servers answer with although JSON was asked for. */
function parseBody(contentType: string, text: string): Record<string, unknown> | undefined {
  if (contentType.startsWith('application/x-www-form-urlencoded')) return Object.fromEntries(new URLSearchParams(text))
  const value = parseJson(text)?.value
  return isJsonObject(value) ? value : undefined
}

const unavailable = ({ issuer }: oauth.AuthorizationServer, response: Response): GatewayError => {
  const seconds = Number(response.headers.get('retry-after') ?? Number.NaN)
  return new GatewayError('SERVER_UNAVAILABLE', `the token endpoint of ${issuer} answered HTTP ${response.status}`, {
    details: seconds > 0 ? { retry_after_ms: seconds * 1000 } : {},
  })
}

/** The library's reasons name a field; its causes hold the tokens. */
const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : 'unknown reason')

/** It came from the token endpoint itself, so its signature adds nothing (OpenID Connect Core, section 3.1.3.7), and it is only shown. */
function accountOf(idToken: unknown): string | undefined {
  if (typeof idToken !== 'string') return undefined
  try {
    const { email, preferred_username: userName, name, sub } = decodeJwt<Record<string, unknown>>(idToken)
    const account = [email, userName, name, sub].find(claim => typeof claim === 'string' && claim !== '')
    return account === undefined ? undefined : String(account).slice(0, MAX_ACCOUNT_LENGTH)
  } catch {
    return undefined
  }
}
