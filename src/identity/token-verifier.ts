import { hash } from 'node:crypto'
import { errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { LRUCache } from 'lru-cache'
import { isGlob } from '../rules/glob.js'
import type { Principal } from './principal.js'

/** A token that is not good here. `description` says what was got and what was wanted, and never contains the token. */
export class InvalidTokenError extends Error {
  override readonly name = 'InvalidTokenError'
  readonly description: string

  constructor(description: string, options: { cause?: unknown } = {}) {
    super(description, options)
    this.description = description
  }
}

export interface VerifiedToken {
  readonly principal: Principal
  readonly clientId: string
  readonly scopes: readonly string[]
  /** Seconds since the epoch. */
  readonly expiresAt: number
  /** When it is no longer taken: clocks may differ. */
  readonly acceptedUntil: number
}

export interface TokenVerifierOptions {
  readonly issuer: string
  /** Any one of them is this server. The first is the one named in errors. */
  readonly audiences: readonly [string, ...string[]]
  readonly algorithms: readonly string[]
  readonly keys: JWTVerifyGetKey
  readonly clockToleranceSeconds?: number
  /** How many good tokens are remembered. */
  readonly maxCached?: number
  readonly now?: () => number
}

export interface TokenVerifier {
  /** Throws InvalidTokenError; anything else that is thrown is the issuer's failure, not the caller's. */
  verify(token: string): Promise<VerifiedToken>
  /** Whether a token was found good before: for when there is no time to look at others. */
  knows?(token: string): boolean
}

const MAX_TOKEN_LENGTH = 16 * 1024
const MAX_CACHED_TOKENS = 10_000

/** Verifies JWT access tokens (RFC 9068, RFC 8725). A signature is checked once: good tokens are remembered by hash until they expire. */
export function createTokenVerifier(options: TokenVerifierOptions): TokenVerifier {
  const { clockToleranceSeconds = 60, now = Date.now, maxCached = MAX_CACHED_TOKENS } = options
  const verified = new LRUCache<string, VerifiedToken>({ max: maxCached })

  return {
    knows: token => verified.has(hash('sha256', token, 'base64')),
    async verify(token) {
      if (token.length > MAX_TOKEN_LENGTH)
        throw new InvalidTokenError(`the token is longer than ${MAX_TOKEN_LENGTH} characters`)
      const key = hash('sha256', token, 'base64')
      const known = verified.get(key)
      if (known) {
        if (known.acceptedUntil > now() / 1000) return known
        verified.delete(key)
        throw new InvalidTokenError(expired(known.expiresAt))
      }
      const payload = await checkedPayload(token, options, clockToleranceSeconds, now())
      if (typeof payload.sub !== 'string' || payload.sub === '')
        throw new InvalidTokenError('the claim "sub" is not a name')
      const fresh = toVerifiedToken(payload, clockToleranceSeconds)
      verified.set(key, fresh)
      return fresh
    },
  }
}

async function checkedPayload(
  token: string,
  options: TokenVerifierOptions,
  clockTolerance: number,
  nowMs: number,
): Promise<JWTPayload> {
  try {
    const { payload } = await jwtVerify(token, options.keys, {
      issuer: options.issuer,
      audience: [...options.audiences],
      algorithms: [...options.algorithms],
      clockTolerance,
      currentDate: new Date(nowMs),
      requiredClaims: ['iss', 'aud', 'exp', 'sub'],
    })
    return payload
  } catch (error) {
    const description = describe(error, options)
    if (description === undefined) throw error
    throw new InvalidTokenError(description, { cause: error })
  }
}

/** In words a caller can act on; undefined for what is not the token's fault. */
function describe(error: unknown, { issuer, audiences, algorithms }: TokenVerifierOptions): string | undefined {
  if (error instanceof errors.JWTExpired) return expired(error.payload.exp)
  if (error instanceof errors.JWTClaimValidationFailed) {
    const got = error.payload[error.claim]
    if (error.reason === 'missing') return `the claim "${error.claim}" is missing`
    if (error.claim === 'aud') return `audience mismatch: token has ${inWords(got)}, this server is ${audiences[0]}`
    if (error.claim === 'iss') return `issuer mismatch: token has ${inWords(got)}, this server trusts ${issuer}`
    if (error.claim === 'nbf') return `the token is not valid before ${inWords(toTime(got))}`
    return `the claim "${error.claim}" is not valid`
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return `the token is not signed with ${algorithms.join(' or ')}`
  if (error instanceof errors.JWKSNoMatchingKey) return 'the token was signed with a key this server does not know'
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'the signature does not fit the token'
  if (error instanceof errors.JOSENotSupported)
    return 'the token uses a critical header or an algorithm this server does not support'
  if (error instanceof errors.JWSInvalid || error instanceof errors.JWTInvalid) return 'the token is not a JWT'
  return undefined
}

const expired = (expiresAt: unknown): string => `the token expired at ${inWords(toTime(expiresAt))}`

const toTime = (seconds: unknown): string => {
  const date = new Date(Number(seconds) * 1000)
  return Number.isNaN(date.getTime()) ? 'an unknown time' : date.toISOString()
}

const inWords = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value)).slice(0, 200)

function toVerifiedToken(payload: JWTPayload, clockToleranceSeconds: number): VerifiedToken {
  const scope = payload.scope
  const clientId = payload.client_id
  const scopes = typeof scope === 'string' ? scope.split(' ').filter(part => part !== '') : []
  return {
    principal: { id: payload.sub ?? '', agents: agentsIn(payload), scopes },
    clientId: typeof clientId === 'string' ? clientId : '',
    scopes,
    expiresAt: payload.exp ?? 0,
    acceptedUntil: (payload.exp ?? 0) + clockToleranceSeconds,
  }
}

/** The claims `agent_id` (a name; one with glob characters is none) and `agents` (names and globs). */
function agentsIn(payload: JWTPayload): string[] {
  const { agent_id: agent, agents } = payload
  const listed = Array.isArray(agents) ? agents.filter(entry => typeof entry === 'string' && entry !== '') : []
  return typeof agent === 'string' && agent !== '' && !isGlob(agent)
    ? [agent, ...listed.filter(entry => entry !== agent)]
    : listed
}
