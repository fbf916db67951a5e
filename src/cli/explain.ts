import { type IdentityConfig, NO_IDENTITY } from '../config/identity-config.js'
import { loadConfig } from '../config/load.js'
import { locateConfigFiles } from '../config/locate.js'
import { principalOf } from '../identity/claims.js'
import type { Principal } from '../identity/principal.js'
import type { JsonObject } from '../json.js'
import { compileRules } from '../rules/compile.js'
import { type Decision, decide } from '../rules/decide.js'
import { missingScopes, scopesFor } from '../rules/scopes.js'
import type { ConfigFlags } from './config-flags.js'
import { print, printJson } from './output.js'

export interface ExplainFlags extends ConfigFlags {
  readonly json?: boolean
  /** Of the call; without them the conditions on them stay open. */
  readonly args?: JsonObject
  /** Of the token. */
  readonly claims?: JsonObject
  readonly roles?: readonly string[]
}

interface Asked {
  readonly agent: string
  readonly server: string
  readonly tool?: string | undefined
}

export async function explain(asked: Asked, { json, args, claims, roles, ...flags }: ExplainFlags): Promise<number> {
  const config = await loadConfig(locateConfigFiles({ ...flags, env: process.env, cwd: process.cwd() }), process.env)
  const rules = compileRules(config.rules, config.servers)
  const caller = toCaller(asked.agent, { claims, roles }, config.rules.identity)
  // Whom nothing is said about may be anybody.
  const byRules = decide(rules, { ...asked, args, caller: claims || roles || args ? caller : undefined })
  const needed = asked.tool === undefined ? undefined : scopesFor(rules, asked.server, [asked.tool])
  const scopes = needed?.scopes
  const missing = scopes && claims ? missingScopes(scopes, caller.scopes ?? []) : []
  const decision: Decision =
    needed && missing.length > 0 && byRules.decision !== 'deny'
      ? { decision: 'deny', rule: needed.rule, reason: `a token with these claims lacks ${missing.join(' ')}` }
      : byRules
  if (json) {
    const { dependsOn, ...rest } = decision
    printJson({
      ...rest,
      ...(dependsOn && { depends_on: dependsOn }),
      ...(scopes && { scopes }),
      ...(missing.length > 0 && { missing_scopes: missing }),
    })
  } else {
    printDecision(decision)
    if (scopes) print(`scopes: a token needs ${scopes.join(' ')}`)
    if (!config.servers.some(({ name }) => name === asked.server))
      print(`note: the server "${asked.server}" is not configured`)
  }
  return decision.decision === 'allow' ? 0 : 1
}

function printDecision({ decision, rule, reason, condition, dependsOn = [] }: Decision): void {
  print(`${decision}: ${reason}`)
  print(`rule: ${rule}`)
  if (condition !== undefined) print(`condition: ${condition}`)
  for (const open of dependsOn) print(`depends on: ${open}: its conditions cannot be judged without the call`)
}

/** The caller that a token with these claims makes, with these roles beside those that the claims give it. */
function toCaller(
  agent: string,
  { claims = {}, roles = [] }: { claims: JsonObject | undefined; roles: readonly string[] | undefined },
  { issuers, agents, roles: roleClaims }: IdentityConfig = NO_IDENTITY,
): Principal {
  const { iss, sub } = claims
  const names = issuers.find(({ issuer }) => iss === undefined || issuer === iss) ?? {}
  const subject = typeof sub === 'string' ? sub : `agent:${agent}`
  const issuer = typeof iss === 'string' ? iss : ''
  const principal = principalOf(claims, { issuer, subject }, { agents, roles: roleClaims, names })
  return { ...principal, roles: [...new Set([...(principal.roles ?? []), ...roles])] }
}
