import type { HttpBindings } from '@hono/node-server'
import type { AuthInfo } from '@modelcontextprotocol/server'
import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import { API_KEY_PREFIX } from '../identity/api-keys.js'
import type { Principal } from '../identity/principal.js'
import { InvalidTokenError, IssuerUnavailableError } from '../identity/token-errors.js'
import type { VerifiedToken } from '../identity/token-verifier.js'
import type { FailedLogin } from './failed-logins.js'
import { addressOf, type FloodGuard } from './flood.js'

/** What becomes of requests before anybody knows whose they are, and of those that are not meant for whose they are. */
export interface DoorWatch {
  readonly flood: FloodGuard
  /** A request that did not get in. */
  readonly onFailure: (failure: FailedLogin) => unknown
  readonly onAccepted?: (() => void) | undefined
  /** Somebody names the session of somebody else. */
  readonly onStranger?: ((principal: Principal) => void) | undefined
}

export interface BearerOptions {
  /** Throws InvalidTokenError or IssuerUnavailableError. */
  readonly verify: (credential: string) => Promise<VerifiedToken>
  /** Whether that takes no question to anybody else: of addresses that keep failing only these are looked at. */
  readonly judgesAlone?: (credential: string) => boolean
  /** Absolute URL of the protected-resource metadata document. */
  readonly metadataUrl: string
  readonly scopes: readonly string[]
  readonly watch?: DoorWatch | undefined
}

export interface Authenticated {
  readonly Bindings: HttpBindings
  readonly Variables: {
    readonly token: VerifiedToken
    /** Looks at it again; as `verify`. */
    readonly recheck: () => Promise<VerifiedToken>
    readonly challenge: Challenge
  }
}

/** The `WWW-Authenticate` of a refusal, with what it says beside where to get a token. */
export type Challenge = (extra?: Readonly<Record<string, string>>) => string

// b64token of RFC 6750, section 2.1.
const BEARER = /^Bearer +([A-Za-z0-9\-._~+/]+=*)$/i

/**
 * Wants a bearer token, or an API key in its place, on every request and method (RFC 6750, RFC 9728 section 5.1). Without credentials
 * the challenge carries no `error`; with bad ones it says what was got and what was wanted, never the token.
 */
export function requireBearer(options: BearerOptions | ((c: Context) => BearerOptions)) {
  return createMiddleware<Authenticated>(async (c, next) => {
    const { verify, judgesAlone, metadataUrl, scopes, watch } = typeof options === 'function' ? options(c) : options
    const challenge: Challenge = extra => toChallenge({ metadataUrl, scopes }, extra)
    const closedForMs = watch?.flood.isActive ? watch.flood.closedFor(addressOf(c.env.incoming.socket)) : undefined
    const refused = async (code: FailedLogin['code'], response: Response): Promise<Response> => {
      if (!watch) return response
      const address = addressOf(c.env.incoming.socket)
      if (closedForMs !== undefined) {
        watch.onFailure({ address, code: 'RATE_LIMITED' })
        return tooManyFailures(c, closedForMs)
      }
      watch.onFailure({ address, code })
      await watch.flood.failed(address)
      return response
    }
    const refuse = (status: 400 | 401, error: 'invalid_request' | 'invalid_token', description: string) => {
      const body = { error, error_description: description }
      const response = c.json(body, status, { 'WWW-Authenticate': challenge(body) })
      return refused(error === 'invalid_token' ? 'INVALID_TOKEN' : 'INVALID_REQUEST', response)
    }
    const found = readCredential(c)
    if (found === undefined)
      return refused('NO_TOKEN', c.json({ message: HOW }, 401, { 'WWW-Authenticate': challenge() }))
    if ('problem' in found) return refuse(400, 'invalid_request', found.problem)
    const { credential } = found
    if (found.isApiKey && !credential.startsWith(API_KEY_PREFIX))
      return refuse(401, 'invalid_token', 'what X-API-Key holds is no API key of this gateway')
    // Others share the address: a good credential gets in, as long as finding out costs nobody else anything.
    if (closedForMs !== undefined && judgesAlone?.(credential) === false)
      return refuse(401, 'invalid_token', 'the token is opaque')
    try {
      c.set('token', await verify(credential))
    } catch (error) {
      if (error instanceof InvalidTokenError) return refuse(401, 'invalid_token', error.description)
      if (!(error instanceof IssuerUnavailableError)) throw error
      watch?.onFailure({ address: addressOf(c.env.incoming.socket), code: 'ISSUER_UNAVAILABLE' })
      // Whether the token is good cannot be said now: a client that is told 401 would throw it away.
      const body = { error: 'temporarily_unavailable', error_description: UNAVAILABLE }
      return c.json(body, 503, { 'Retry-After': String(error.retryAfterSeconds) })
    }
    watch?.onAccepted?.()
    c.set('recheck', () => verify(credential))
    c.set('challenge', challenge)
    return next()
  })
}

/** A token that is good, but not for this (RFC 6750, section 3.1; 2026-07-28, "Scope Challenge"): all that is needed, at once. */
export function insufficientScope(
  challenge: Challenge,
  { required, missing }: { readonly required: readonly string[]; readonly missing: readonly string[] },
): Response {
  const error = { error: 'insufficient_scope', error_description: `the token lacks the scope ${missing.join(' ')}` }
  const headers = { 'WWW-Authenticate': challenge({ ...error, scope: required.join(' ') }) }
  return Response.json({ ...error, required_scopes: required }, { status: 403, headers })
}

function tooManyFailures(c: Context, closedForMs: number): Response {
  const description = 'too many requests from this address have failed to authenticate'
  return c.json({ error: 'too_many_failures', error_description: description }, 429, {
    'Retry-After': String(Math.ceil(closedForMs / 1000)),
  })
}

const HOW =
  'a bearer token is needed: send "Authorization: Bearer TOKEN" (gateway token issue --agent NAME makes one, where no identity provider does), or an API key'
const UNAVAILABLE = 'the issuer of the token cannot be asked about it at the moment: try again soon'

/** The one credential of a request; undefined when there is none, and a problem when it is not plain which one it is. */
function readCredential(
  c: Context<Authenticated>,
): { readonly credential: string; readonly isApiKey?: boolean } | { readonly problem: string } | undefined {
  const { headers, headersDistinct, url = '' } = c.env.incoming
  if (hasTokenInQuery(url))
    return { problem: 'a token in the URL ends up in logs: send it in the Authorization header' }
  const { authorization = [], 'x-api-key': apiKeys = [] } = headersDistinct
  if (authorization.length + apiKeys.length > 1) return { problem: 'the request carries more than one credential' }
  const [apiKey] = apiKeys
  if (apiKey !== undefined) return { credential: apiKey.trim(), isApiKey: true }
  const header = headers.authorization
  if (header === undefined || !/^bearer\b/i.test(header)) return undefined
  const credential = BEARER.exec(header)?.[1]
  return credential === undefined ? { problem: 'the Authorization header is not one bearer token' } : { credential }
}

/** RFC 6750, section 2.3, which MCP forbids. */
const hasTokenInQuery = (url: string): boolean => {
  const query = url.indexOf('?')
  return query >= 0 && new URLSearchParams(url.slice(query)).has('access_token')
}

/** A `WWW-Authenticate` header: where to get a token, with which scopes, and what is wrong with the one that came. */
export function toChallenge(
  { metadataUrl, scopes }: Pick<BearerOptions, 'metadataUrl' | 'scopes'>,
  extra: Readonly<Record<string, string>> = {},
): string {
  const parameters = { resource_metadata: metadataUrl, scope: scopes.join(' '), ...extra }
  return `Bearer ${Object.entries(parameters)
    .map(([name, value]) => `${name}="${quotable(value)}"`)
    .join(', ')}`
}

/** Only what a quoted-string of RFC 6750 may hold; a claim in an error may contain anything. */
const quotable = (text: string): string => text.replaceAll('"', "'").replace(/[^\x20\x21\x23-\x5b\x5d-\x7e]/g, '?')

/** What the SDK carries along with a request. The token itself stays behind: nothing after this needs it. */
export function toAuthInfo({ principal, clientId, scopes, expiresAt }: VerifiedToken): AuthInfo {
  return { token: '', clientId, scopes: [...scopes], expiresAt, extra: { principal } }
}

/** The principal that toAuthInfo put there. */
export function principalIn(authInfo: AuthInfo | undefined): Principal {
  const principal = authInfo?.extra?.principal
  if (principal === undefined) throw new Error('a request reached MCP without authentication')
  return principal as Principal
}
