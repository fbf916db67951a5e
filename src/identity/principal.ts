import { userInfo } from 'node:os'

/** Who is calling. Made once per token (or once per process over stdio), never per request. */
export interface Principal {
  /** For the audit line: the token's `sub`, or `local:USER`. */
  readonly id: string
  /**
   * What sessions, caches and limits are kept by: issuer, tenant, subject and client in one. A subject is a name only to the issuer
   * that gave it, and two clients of one person are two.
   */
  readonly key: string
  /** Names and globs of the agents it may act as, descendants included; `any` is the local user who chose none. */
  readonly agents: readonly string[] | 'any'
  /** Roles that the rules (`identity.roles`) give to who has these claims: it has theirs beside those of its agent. */
  readonly roles?: readonly string[] | undefined
  /** What the token was granted; undefined for callers without a token, who need no scopes. */
  readonly scopes?: readonly string[] | undefined
  /** Everything the token says, for conditions of the rules. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined
  /** What people call it: `preferred_username` (OpenID Connect), `username` (RFC 7662), or who is logged in at this machine. */
  readonly name?: string | undefined
  readonly issuer?: string | undefined
  readonly clientId?: string | undefined
  readonly tenant?: string | undefined
  /** True for the person at this machine, whose browser is on it too. */
  readonly isLocal?: boolean | undefined
  /** The agent of a local user who names none (`GATEWAY_DEFAULT_AGENT`). */
  readonly fallbackAgent?: string | undefined
}

/** The key of a principal that an issuer vouches for. */
export const principalKey = (
  issuer: string,
  { subject, client = '', tenant = '' }: { subject: string; client?: string | undefined; tenant?: string | undefined },
): string => JSON.stringify([issuer, tenant, subject, client])

/** The person at this machine, over stdio and from the command line. `--agent` pins the agent. */
export function localPrincipal({
  pinnedAgent,
  fallbackAgent,
}: {
  pinnedAgent?: string | undefined
  fallbackAgent?: string | undefined
}): Principal {
  const name = userName()
  const id = `local:${name ?? 'unknown'}`
  return {
    id,
    key: id,
    name,
    agents: pinnedAgent === undefined ? 'any' : [pinnedAgent],
    fallbackAgent: fallbackAgent || undefined,
    isLocal: true,
  }
}

function userName(): string | undefined {
  try {
    return userInfo().username
  } catch {
    return undefined // a container may run under a uid without a passwd entry
  }
}
