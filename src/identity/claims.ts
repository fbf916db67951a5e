import type { ClaimConditions, IdentityConfig, IssuerConfig } from '../config/identity-config.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { compileGlob, isGlob } from '../rules/glob.js'
import { type Principal, principalKey } from './principal.js'

/** What the rules say about claims: agents and roles by conditions, and what one issuer calls things. */
export interface ClaimRules {
  readonly agents: IdentityConfig['agents']
  readonly roles: IdentityConfig['roles']
  readonly names: Pick<IssuerConfig, 'agentClaim' | 'agentsClaim' | 'tenantClaim' | 'requiredClaims'>
}

/** Who the claims say is calling. They are checked by now; `issuer` and `subject` are what they were checked to be. */
export function principalOf(
  claims: JsonObject,
  { issuer, subject }: { issuer: string; subject: string },
  rules: ClaimRules,
): Principal {
  const clientId = clientIn(claims)
  const tenant = textAt(claims, rules.names.tenantClaim)
  return {
    id: subject,
    key: principalKey(issuer, { subject, client: clientId, tenant }),
    agents: agentsIn(claims, rules),
    roles: namesThatHold(rules.roles, claims),
    scopes: scopesIn(claims),
    claims,
    name: textAt(claims, 'preferred_username') ?? textAt(claims, 'username'),
    issuer,
    clientId,
    tenant,
  }
}

/** Of the claims that have to be there, the first that is not. */
export const missingClaim = (claims: JsonObject, { names }: ClaimRules): string | undefined =>
  names.requiredClaims?.find(path => [undefined, null, ''].includes(claimAt(claims, path) as null | undefined | ''))

/** What the token lists itself; without that, the agents whose conditions in the rules hold. */
export function agentsIn(claims: JsonObject, { agents, names }: ClaimRules): readonly string[] {
  const { agentClaim = 'agent_id', agentsClaim = 'agents' } = names
  const agent = claimAt(claims, agentClaim)
  const list = claimAt(claims, agentsClaim)
  const listed = Array.isArray(list) ? list.filter(entry => typeof entry === 'string' && entry !== '') : []
  // A name; one with glob characters is none.
  const own = typeof agent === 'string' && agent !== '' && !isGlob(agent) ? [agent] : []
  const named = [...own, ...listed.filter(entry => entry !== agent)]
  return named.length > 0 ? named : namesThatHold(agents, claims)
}

const namesThatHold = (named: Readonly<Record<string, ClaimConditions>>, claims: JsonObject): string[] =>
  Object.entries(named).flatMap(([name, conditions]) => (hold(conditions, claims) ? [name] : []))

const hold = (conditions: ClaimConditions, claims: JsonObject): boolean =>
  Object.entries(conditions).every(([path, wanted]) => {
    const got = valuesOf(claimAt(claims, path), path)
    return [wanted].flat().some(one => got.some(matcherOf(one)))
  })

function matcherOf(wanted: string | number | boolean): (got: unknown) => boolean {
  if (typeof wanted !== 'string') return got => got === wanted
  const matches = compileGlob(wanted)
  return got => typeof got === 'string' && matches(got)
}

/** A list is as good as any of its values; scopes are a list in one string (RFC 6749, section 3.3). */
function valuesOf(claim: unknown, path: string): readonly unknown[] {
  if (Array.isArray(claim)) return claim
  return typeof claim === 'string' && ['scope', 'scp'].includes(path) ? claim.split(' ') : [claim]
}

/**
 * The claim at a dotted path. Names of claims may hold dots themselves (`https://acme.example/roles`), and so the longest name that
 * is there goes first.
 */
export function claimAt(claims: unknown, path: string): unknown {
  if (!isJsonObject(claims)) return undefined
  if (Object.hasOwn(claims, path)) return claims[path]
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const found = Object.hasOwn(claims, path.slice(0, dot))
      ? claimAt(claims[path.slice(0, dot)], path.slice(dot + 1))
      : undefined
    if (found !== undefined) return found
  }
  return undefined
}

function textAt(claims: JsonObject, path: string | undefined): string | undefined {
  const found = path === undefined ? undefined : claimAt(claims, path)
  return typeof found === 'string' && found !== '' ? found : undefined
}

/** `scope` (RFC 9068); `scp` of Entra ID (a string) and Okta (a list). */
function scopesIn({ scope, scp }: JsonObject): readonly string[] {
  const found = [scope, scp].flatMap(claim => (typeof claim === 'string' ? claim.split(' ') : claim))
  return [...new Set(found.filter(name => typeof name === 'string' && name !== ''))] as string[]
}

/** `client_id` (RFC 9068); `azp` of Keycloak and Auth0, `appid` of Entra ID, `cid` of Okta. */
const clientIn = (claims: JsonObject): string | undefined =>
  ['client_id', 'azp', 'appid', 'cid'].map(name => textAt(claims, name)).find(name => name !== undefined)
