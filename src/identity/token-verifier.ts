import { hash } from 'node:crypto'
import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { LRUCache } from 'lru-cache'
import { isTooDeep, type JsonObject } from '../json.js'
import { type ClaimRules, missingClaim, principalOf } from './claims.js'
import type { Introspection } from './introspection.js'
import type { Principal } from './principal.js'
import { InvalidTokenError, IssuerUnavailableError } from './token-errors.js'

export interface VerifiedToken {
  readonly principal: Principal
  readonly clientId: string
  readonly scopes: readonly string[]
  /** Seconds since the epoch. */
  readonly expiresAt: number
  /** When it is no longer taken: clocks may differ. */
  readonly acceptedUntil: number
}

/** An issuer whose tokens are good here, as far as they are made out to this server. */
export interface TrustedIssuer {
  readonly issuer: string
  /** Any one of them is the whole gateway. The first is the one named in errors. */
  readonly audiences: readonly [string, ...string[]]
  readonly algorithms: readonly string[]
  readonly keys: JWTVerifyGetKey
  /** For tokens that only the issuer can read. */
  readonly introspection?: Introspection | undefined
  readonly claims?: ClaimRules | undefined
  /** Good for its own audiences alone, at no door of one server; and nobody needs to know of it. */
  readonly isInternal?: boolean | undefined
}

export interface TokenVerifierOptions {
  readonly issuers: readonly TrustedIssuer[]
  readonly clockToleranceSeconds?: number
  /** How many good tokens are remembered. */
  readonly maxCached?: number
  readonly now?: () => number
}

export interface TokenVerifier {
  /**
   * `door`: the URL of the endpoint of one server, if the token came to that. A token made out to it is good there, one for the whole
   * gateway everywhere. Throws InvalidTokenError, or IssuerUnavailableError when that cannot be said now.
   */
  verify(token: string, door?: string): Promise<VerifiedToken>
  /** Whether that takes no question to an issuer about this very token. */
  judgesAlone(token: string): boolean
}

export const MAX_TOKEN_LENGTH = 32 * 1024
const MAX_CACHED_TOKENS = 10_000
const MAX_CACHED_CHARACTERS = 32 * 1024 * 1024
// So long may a token go on whose key the issuer has withdrawn.
const CHECKED_MS = 5 * 60_000
export const NO_CLAIM_RULES: ClaimRules = { agents: {}, roles: {}, names: {} }

/** A token without a look at the door it came to. */
interface CheckedToken extends VerifiedToken {
  readonly issuer: TrustedIssuer
  readonly audience: unknown
}

/** Verifies access tokens (RFC 9068, RFC 8725, RFC 7662). A signature is checked once: good tokens are remembered by hash for a while. */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const { issuers, clockToleranceSeconds = 60, now = Date.now } = options
  const context: Context = { issuers, clockTolerance: clockToleranceSeconds, now }
  const checked = new LRUCache<string, CheckedToken>({
    max: MAX_CACHED_TOKENS,
    maxSize: MAX_CACHED_CHARACTERS,
    ttl: CHECKED_MS,
    ttlResolution: 0,
    perf: { now },
  })

  async function check(token: string): Promise<CheckedToken> {
    if (token.length > MAX_TOKEN_LENGTH)
      throw new InvalidTokenError(`the token has ${token.length} characters, more than ${MAX_TOKEN_LENGTH}`)
    const key = hash('sha256', token, 'base64')
    const known = checked.get(key)
    if (known) {
      if (known.acceptedUntil > now() / 1000) return known
      throw new InvalidTokenError(expired(known.expiresAt, context))
    }
    const iss = issuerIn(token)
    if (iss === undefined) return checkOpaque(token, context) // its issuer has a cache of its own
    const fresh = await checkJwt(token, iss, context)
    checked.set(key, fresh, { size: token.length })
    return fresh
  }

  return {
    judgesAlone: token =>
      issuerIn(token) !== undefined || issuers.every(({ introspection }) => introspection?.knows(token) ?? true),
    async verify(token, door) {
      const found = await check(token)
      const problem = audienceProblem(found.audience, found.issuer, door)
      // An internal issuer is none for other uses.
      const { issuer, isInternal } = found.issuer
      if (problem !== undefined) throw new InvalidTokenError(isInternal ? issuerProblem(issuer, issuers) : problem)
      return found
    },
  }
}

interface Context {
  readonly issuers: readonly TrustedIssuer[]
  readonly clockTolerance: number
  readonly now: () => number
}

/** Who the token says has issued it, in a box of its own; undefined for what is no JWT, whatever it is then. */
export function issuerIn(token: string): { readonly claim: unknown } | undefined {
  try {
    decodeProtectedHeader(token)
    const { iss: claim } = decodeJwt(token)
    const [, claims = ''] = token.split('.')
    // Whoever puts such a claim into words runs out of stack.
    return isTooDeep(Buffer.from(claims, 'base64url').toString('utf8')) ? undefined : { claim }
  } catch {
    return undefined
  }
}

async function checkJwt(token: string, { claim }: { claim: unknown }, context: Context): Promise<CheckedToken> {
  const issuer = context.issuers.find(trusted => trusted.issuer === claim)
  if (!issuer) throw new InvalidTokenError(issuerProblem(claim, context.issuers))
  const { payload, protectedHeader } = await verified(token, issuer, context)
  const type = protectedHeader.typ?.toLowerCase()
  if (type !== undefined && !ACCESS_TOKENS.includes(type))
    throw new InvalidTokenError(`the token is a ${inWords(protectedHeader.typ)}, not an access token`)
  return toCheckedToken(payload, issuer, context)
}

/** RFC 9068, and what issuers write who do not follow it. Tokens of other kinds (RFC 8725, section 3.11) are for other uses. */
const ACCESS_TOKENS = ['jwt', 'application/jwt', 'at+jwt', 'application/at+jwt']

async function verified(token: string, issuer: TrustedIssuer, context: Context) {
  const { clockTolerance, now } = context
  const checks = {
    issuer: issuer.issuer,
    algorithms: [...issuer.algorithms],
    clockTolerance,
    currentDate: new Date(now()),
    requiredClaims: ['iss', 'exp', 'sub'], // and `aud`, which is for the door to look at
  }
  try {
    return await withEachKey(issuer.keys, key => jwtVerify(token, key, checks))
  } catch (error) {
    const description = describe(error, { token, issuer, ...context })
    if (description !== undefined) throw new InvalidTokenError(description, { cause: error })
    if (error instanceof IssuerUnavailableError) throw error
    throw new IssuerUnavailableError(`the keys of ${issuer.issuer} cannot be used`, { cause: error })
  }
}

/** A token that does not say which of several keys it was signed with is tried with each. */
export async function withEachKey<T>(keys: JWTVerifyGetKey, verify: (key: JWTVerifyGetKey) => Promise<T>): Promise<T> {
  try {
    return await verify(keys)
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
    for await (const key of error) {
      const found = await verify(async () => key).catch(orNotThisKey)
      if (found) return found
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

function orNotThisKey(error: unknown): undefined {
  if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error
}

async function checkOpaque(token: string, context: Context): Promise<CheckedToken> {
  const asked = context.issuers.filter(({ introspection }) => introspection !== undefined)
  if (asked.length === 0) throw new InvalidTokenError('the token is not a JWT')
  let unavailable: unknown
  for (const issuer of asked) {
    try {
      const claims = await issuer.introspection?.ask(token)
      if (claims) return toCheckedToken(checkedIntrospection(claims, issuer, context), issuer, context)
    } catch (error) {
      if (!(error instanceof IssuerUnavailableError)) throw error
      unavailable ??= error
    }
  }
  if (unavailable !== undefined) throw unavailable
  throw new InvalidTokenError('the token is not active: it has expired, was revoked, or is not one of this issuer')
}

/** The same checks as for a JWT. What RFC 7662 lets the issuer leave out is as the issuer is: its own, and for now. */
function checkedIntrospection(claims: JsonObject, issuer: TrustedIssuer, context: Context): JsonObject {
  const { clockTolerance, now } = context
  const seconds = now() / 1000
  const { iss = issuer.issuer, exp = Math.ceil(seconds) + 60, nbf, sub = claims.client_id } = claims
  if (iss !== issuer.issuer) throw new InvalidTokenError(issuerProblem(iss, [issuer]))
  if (typeof exp !== 'number') throw new InvalidTokenError("the claim 'exp' is not valid")
  if (exp + clockTolerance <= seconds) throw new InvalidTokenError(expired(exp, context))
  if (typeof nbf === 'number' && nbf - clockTolerance > seconds) throw new InvalidTokenError(notYet(nbf, context))
  return { ...claims, iss, exp, sub }
}

function toCheckedToken(claims: JWTPayload & JsonObject, issuer: TrustedIssuer, context: Context): CheckedToken {
  const { sub, iat, exp = 0, aud } = claims
  const { claims: rules = NO_CLAIM_RULES } = issuer
  const kind = otherKind(claims)
  if (kind !== undefined) throw new InvalidTokenError(`the token is a ${inWords(kind)}, not an access token`)
  if (typeof sub !== 'string' || sub === '') throw new InvalidTokenError("the claim 'sub' is not a name")
  if (typeof iat === 'number' && iat - context.clockTolerance > context.now() / 1000)
    throw new InvalidTokenError(`the token was issued in the future, at ${toTime(iat)}${itIs(context)}`)
  const missing = missingClaim(claims, rules)
  if (missing !== undefined) throw new InvalidTokenError(`the claim '${missing}' is missing`)
  const principal = principalOf(claims, { issuer: issuer.issuer, subject: sub }, rules)
  const { clientId = '', scopes = [] } = principal
  const acceptedUntil = exp + context.clockTolerance
  return { principal, clientId, scopes, expiresAt: exp, acceptedUntil, issuer, audience: aud }
}

/** What the claims say that the token is for, where that is another use: `token_use` of Cognito, `typ` of Keycloak. */
function otherKind({ token_use: use, typ }: JsonObject): unknown {
  if (use !== undefined && !['access', 'access_token'].includes(String(use))) return use
  return ['ID', 'Refresh', 'Offline', 'Logout'].includes(String(typ)) ? typ : undefined
}

/** What is wrong with the audience, if anything is (RFC 8707: character by character). */
export function audienceProblem(claim: unknown, issuer: TrustedIssuer, door?: string): string | undefined {
  const wanted = door === undefined || issuer.isInternal ? issuer.audiences : [door, ...issuer.audiences]
  const got = Array.isArray(claim) ? claim : [claim]
  if (got.some(audience => wanted.includes(audience))) return undefined
  return `audience mismatch: token has ${inWords(claim)}, this server is ${wanted[0]}`
}

export function issuerProblem(claim: unknown, issuers: readonly TrustedIssuer[]): string {
  const trusted = issuers.filter(({ isInternal }) => !isInternal).map(({ issuer }) => issuer)
  return `issuer mismatch: token has ${inWords(claim)}, this server trusts ${trusted.join(' and ') || 'no issuer'}`
}

/** What is held against a token, and the token itself. */
interface Looked extends Pick<Context, 'clockTolerance' | 'now'> {
  readonly token: string
  readonly issuer: Pick<TrustedIssuer, 'issuer' | 'algorithms'>
}

/** In words a caller can act on: what was got, and what was wanted. Undefined for what is not the token's fault. */
export function describe(error: unknown, looked: Looked): string | undefined {
  const { issuer, token } = looked
  if (error instanceof errors.JWTExpired) return expired(error.payload.exp, looked)
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === 'missing') return `the claim '${error.claim}' is missing`
    if (error.claim === 'nbf' && error.payload.nbf !== undefined) return notYet(error.payload.nbf, looked)
    return `the claim '${error.claim}' is not valid`
  }
  const { alg, kid, crit } = decodeProtectedHeader(token)
  if (error instanceof errors.JOSEAlgNotAllowed)
    return `algorithm mismatch: token has ${inWords(alg)}, this server takes ${issuer.algorithms.join(', ')}`
  if (error instanceof errors.JWKSNoMatchingKey)
    return `the token was signed with a key this server does not know: token has ${inWords(kid)}, which is none of ${issuer.issuer}`
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return `the signature does not fit the token: it was not made with the key ${inWords(kid)} of ${issuer.issuer}`
  if (error instanceof errors.JOSENotSupported)
    return `the token uses a critical header or an algorithm this server does not support: token has ${inWords(crit ?? alg)}`
  if (error instanceof errors.JWSInvalid || error instanceof errors.JWTInvalid) return 'the token is not a JWT'
  return undefined
}

const expired = (expiresAt: unknown, context: Pick<Context, 'clockTolerance' | 'now'>): string =>
  `the token expired at ${toTime(expiresAt)}${itIs(context)}`

const notYet = (notBefore: unknown, context: Pick<Context, 'clockTolerance' | 'now'>): string =>
  `the token is not valid before ${toTime(notBefore)}${itIs(context)}`

const itIs = ({ now, clockTolerance }: Pick<Context, 'clockTolerance' | 'now'>): string =>
  `, and it is ${toTime(now() / 1000)} here (${clockTolerance} s tolerance)`

export const toTime = (seconds: unknown): string => {
  const date = new Date(Number(seconds) * 1000)
  return Number.isNaN(date.getTime()) ? 'an unknown time' : date.toISOString()
}

const inWords = (value: unknown): string =>
  (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'none')).slice(0, 200)
