import { compactVerify, decodeJwt, decodeProtectedHeader } from 'jose'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import type { JsonObject } from '../json.js'
import type { AccessRules } from '../rules/compile.js'
import { agentsIn, missingClaim } from './claims.js'
import type { Principal } from './principal.js'
import { resolveAgent } from './resolve-agent.js'
import { InvalidTokenError } from './token-errors.js'
import {
  audienceProblem,
  createTokenVerifier,
  describe,
  issuerIn,
  NO_CLAIM_RULES,
  type TrustedIssuer,
  toTime,
  withEachKey,
} from './token-verifier.js'

/** One thing that has to be right about a credential. */
export interface Check {
  readonly check: string
  readonly ok: boolean
  readonly got: string
  readonly wanted: string
  /** What to do about it; present when it is not right. */
  readonly change?: string
}

export interface InspectOptions {
  readonly issuers: readonly TrustedIssuer[]
  readonly clockToleranceSeconds: number
  /** The URL of the endpoint of one server, when the token is for that. */
  readonly door?: string | undefined
  /** Without them any agent is as good as another. */
  readonly rules?: AccessRules | undefined
  readonly now?: () => number
}

/** Every check of a JWT, not only up to the first that fails. Fetches the keys of its issuer, and sends the token nowhere. */
export async function inspectJwt(token: string, options: InspectOptions): Promise<readonly Check[]> {
  const { issuers, rules } = options
  const claims = decodeJwt(token)
  const own = issuers.find(({ issuer }) => issuer === claims.iss)
  // Without its issuer it is held against the one that was most likely meant.
  const issuer = own ?? issuers[0]
  const claimRules = issuer?.claims ?? NO_CLAIM_RULES
  const missing = missingClaim(claims, claimRules)
  const checks = [
    await checkSignature(token, own, options),
    checkIssuer(claims, own, issuers),
    ...(issuer ? [checkAudience(claims, issuer, options.door)] : []),
    ...checkTimes(claims, options),
    ...(missing === undefined ? [] : [missingCheck(missing)]),
    checkAgent(agentsIn(claims, claimRules), rules),
  ]
  return [...checks, ...(checks.some(({ ok }) => !ok) ? [] : await checkWhole(token, options))]
}

/** A token that only its issuer can read, which is shown to it here. */
export async function inspectByAsking(token: string, options: InspectOptions): Promise<readonly Check[]> {
  const check = 'introspection'
  const wanted = 'an active token for this server'
  try {
    const { principal } = await createTokenVerifier(options).verify(token, options.door)
    const got = `active, of ${principal.id}`
    return [{ check, ok: true, got, wanted }, checkPrincipal(principal, options.rules)]
  } catch (error) {
    const change = error instanceof InvalidTokenError ? 'get a token for this server from its issuer' : UNREACHABLE
    return [{ check, ok: false, got: messageOf(error), wanted, change }]
  }
}

export const isJwt = (token: string): boolean => issuerIn(token) !== undefined

export const checkPrincipal = ({ agents }: Principal, rules: AccessRules | undefined): Check =>
  checkAgent(agents === 'any' ? [] : agents, rules)

const UNREACHABLE = 'make the issuer reachable from here, or correct where it is (OAUTH_GATEWAY_URL, OAUTH_JWKS_URI)'

async function checkSignature(
  token: string,
  issuer: TrustedIssuer | undefined,
  { clockToleranceSeconds: clockTolerance, now = Date.now }: InspectOptions,
): Promise<Check> {
  const check = 'signature'
  const { alg = 'none', kid } = decodeProtectedHeader(token)
  const got = `${alg}${kid === undefined ? '' : `, key ${kid}`}`
  if (!issuer) {
    return { check, ok: false, got, wanted: 'a key of a trusted issuer', change: 'see iss: nobody knows whose key' }
  }
  const wanted = `a key of ${issuer.issuer}, ${issuer.algorithms.join(' or ')}`
  try {
    const algorithms = [...issuer.algorithms]
    await withEachKey(issuer.keys, key => compactVerify(token, key, { algorithms }))
    return { check, ok: true, got, wanted }
  } catch (error) {
    const description = describe(error, { token, issuer, clockTolerance, now })
    const change =
      description === undefined ? UNREACHABLE : 'get a new token; if that fails too, correct OAUTH_JWKS_URI'
    return { check, ok: false, got: `${got} (${description ?? messageOf(error)})`, wanted, change }
  }
}

function checkIssuer({ iss }: JsonObject, own: TrustedIssuer | undefined, issuers: readonly TrustedIssuer[]): Check {
  const got = inWords(iss)
  const wanted = issuers.map(({ issuer }) => issuer).join(' or ')
  if (own) return { check: 'iss', ok: true, got, wanted: own.issuer }
  const change =
    iss === undefined
      ? 'get an access token: this is none'
      : `if it is to be trusted, set OAUTH_ISSUER or identity.issuers to exactly ${got} (a slash at the end counts)`
  return { check: 'iss', ok: false, got, wanted, change }
}

function checkAudience({ aud }: JsonObject, issuer: TrustedIssuer, door: string | undefined): Check {
  const wanted = door === undefined ? issuer.audiences[0] : `${door} or ${issuer.audiences[0]}`
  const got = inWords(aud)
  if (audienceProblem(aud, issuer, door) === undefined) return { check: 'aud', ok: true, got, wanted }
  const change = `ask the issuer for a token for ${issuer.audiences[0]}; or, if ${got} is this gateway's name there, set OAUTH_AUDIENCE (or the issuer's audience) to it`
  return { check: 'aud', ok: false, got, wanted, change }
}

function checkTimes({ exp, nbf }: JsonObject, { clockToleranceSeconds: tolerance, now = Date.now }: InspectOptions) {
  const seconds = now() / 1000
  const at = (limit: number) => `${toTime(limit)} (${tolerance} s tolerance)`
  const isFresh = typeof exp === 'number' && exp + tolerance > seconds
  const hasBegun = nbf === undefined || (typeof nbf === 'number' && nbf - tolerance <= seconds)
  const expiry = {
    check: 'exp',
    ok: isFresh,
    got: exp === undefined ? 'none' : toTime(exp),
    wanted: `after ${at(seconds)}`,
  }
  const begin = {
    check: 'nbf',
    ok: hasBegun,
    got: nbf === undefined ? 'none' : toTime(nbf),
    wanted: `before ${at(seconds)}`,
  }
  return [
    isFresh ? expiry : { ...expiry, change: 'get a new token; if it is new, compare the clocks of both machines' },
    hasBegun ? begin : { ...begin, change: 'wait until then, or compare the clocks of both machines' },
  ]
}

const missingCheck = (claim: string): Check => ({
  check: claim,
  ok: false,
  got: 'none',
  wanted: 'a value (requiredClaims)',
  change: 'have the issuer add the claim, or take it out of requiredClaims',
})

function checkAgent(agents: readonly string[], rules: AccessRules | undefined): Check {
  const check = 'agent'
  const got = agents.join(', ') || 'none'
  const wanted = 'an agent of the rules'
  if (agents.length === 0) {
    const change =
      'have the issuer add the claim agent_id, or map claims to an agent under identity.agents in the rules'
    return { check, ok: false, got, wanted, change }
  }
  // Several are good: the call picks one.
  if (!rules || agents.length > 1) return { check, ok: true, got, wanted }
  try {
    resolveAgent(rules, { id: '', key: '', agents }, undefined)
    return { check, ok: true, got, wanted }
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return { check, ok: false, got, wanted, change: `${error.message}: add it to "agents" in the rules file` }
  }
}

/** The gateway has the last word, from the very code that lets callers in. */
async function checkWhole(token: string, options: InspectOptions): Promise<readonly Check[]> {
  try {
    await createTokenVerifier(options).verify(token, options.door)
    return []
  } catch (error) {
    if (!(error instanceof InvalidTokenError)) throw error
    const change = 'get a token without that'
    return [{ check: 'token', ok: false, got: error.description, wanted: 'an access token', change }]
  }
}

const inWords = (value: unknown): string =>
  (typeof value === 'string' ? value : (JSON.stringify(value) ?? 'none')).slice(0, 200)
