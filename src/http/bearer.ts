import type { HttpBindings } from '@hono/node-server'
import type { AuthInfo } from '@modelcontextprotocol/server'
import type { Context } from 'hono'
import { createMiddleware } from 'hono/factory'
import type { Principal } from '../identity/principal.js'
import { InvalidTokenError, type TokenVerifier, type VerifiedToken } from '../identity/token-verifier.js'
import type { FailedLogin } from './failed-logins.js'
import { addressOf, type FloodGuard } from './flood.js'

/** What becomes of requests before anybody knows whose they are. */
export interface DoorWatch {
  readonly flood: FloodGuard
  /** A request that did not get in. */
  readonly onFailure: (failure: FailedLogin) => unknown
  readonly onAccepted?: (() => void) | undefined
}

export interface BearerOptions {
  /** Made only for those who bring a token. */
  readonly verifier: () => TokenVerifier
  /** Absolute URL of the protected-resource metadata document. */
  readonly metadataUrl: string
  readonly scopes: readonly string[]
  readonly watch?: DoorWatch | undefined
}

export interface Authenticated {
  readonly Bindings: HttpBindings
  readonly Variables: { readonly token: VerifiedToken; readonly challenge: Challenge }
}

/** The `WWW-Authenticate` of a refusal, with what it says beside where to get a token. */
export type Challenge = (extra?: Readonly<Record<string, string>>) => string

// b64token of RFC 6750, section 2.1.
const BEARER = /^Bearer +([A-Za-z0-9\-._~+/]+=*)$/i

/**
 * Wants a bearer token on every request and method (RFC 6750, RFC 9728 section 5.1). Without credentials the challenge carries
 * no `error`; with bad ones it says what was got and what was wanted, never the token.
 */
export function requireBearer(options: BearerOptions | ((c: Context) => BearerOptions)) {
  return createMiddleware<Authenticated>(async (c, next) => {
    const { verifier, metadataUrl, scopes, watch } = typeof options === 'function' ? options(c) : options
    const challenge: Challenge = (extra = {}) => {
      const parameters = { resource_metadata: metadataUrl, scope: scopes.join(' '), ...extra }
      return `Bearer ${Object.entries(parameters)
        .map(([name, value]) => `${name}="${quotable(value)}"`)
        .join(', ')}`
    }
    const refused = async (code: FailedLogin['code'], response: Response): Promise<Response> => {
      if (!watch) return response
      const address = addressOf(c.env.incoming.socket)
      watch.onFailure({ address, code })
      await watch.flood.failed(address)
      return response
    }
    const header = c.req.header('authorization')
    const closedForMs = watch?.flood.isActive ? watch.flood.closedFor(addressOf(c.env.incoming.socket)) : undefined
    if (closedForMs !== undefined && !verifier().knows?.(BEARER.exec(header ?? '')?.[1] ?? '')) {
      watch?.onFailure({ address: addressOf(c.env.incoming.socket), code: 'RATE_LIMITED' })
      const description = 'too many requests from this address have failed to authenticate'
      return c.json({ error: 'too_many_failures', error_description: description }, 429, {
        'Retry-After': String(Math.ceil(closedForMs / 1000)),
      })
    }
    if (header === undefined || !/^bearer\b/i.test(header)) {
      const response = c.json(
        {
          message:
            'a bearer token is needed: send "Authorization: Bearer TOKEN" (gateway token issue --agent NAME makes one)',
        },
        401,
        { 'WWW-Authenticate': challenge() },
      )
      return refused('NO_TOKEN', response)
    }
    const token = BEARER.exec(header)?.[1]
    if (token === undefined) {
      const description = 'the Authorization header is not one bearer token'
      const response = c.json({ error: 'invalid_request', error_description: description }, 400, {
        'WWW-Authenticate': challenge({ error: 'invalid_request', error_description: description }),
      })
      return refused('INVALID_REQUEST', response)
    }
    try {
      c.set('token', await verifier().verify(token))
    } catch (error) {
      if (!(error instanceof InvalidTokenError)) throw error
      const body = { error: 'invalid_token', error_description: error.description }
      return refused('INVALID_TOKEN', c.json(body, 401, { 'WWW-Authenticate': challenge(body) }))
    }
    watch?.onAccepted?.()
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

/** Only what a quoted-string of RFC 6750 may hold; a claim in an error may contain anything. */
const quotable = (text: string): string => text.replace(/[^\x20\x21\x23-\x5b\x5d-\x7e]/g, '?')

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
