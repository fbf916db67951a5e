import { userInfo } from 'node:os'

/** Who is calling. Made once per token (or once per process over stdio), never per request. */
export interface Principal {
  /** For the audit line: the token's `sub`, or `local:USER`. */
  readonly id: string
  /** Names and globs of the agents it may act as, descendants included; `any` is the local user who chose none. */
  readonly agents: readonly string[] | 'any'
  /** Names of roles in the rules: it has theirs beside those of its agent. */
  readonly roles?: readonly string[]
  /** What conditions may ask for. */
  readonly claims?: Readonly<Record<string, unknown>>
  /** What its token is good for; the local user has no token, and needs none. */
  readonly scopes?: readonly string[]
  /** What people call it. */
  readonly name?: string
  /** True for the person at this machine, whose browser is on it too. */
  readonly isLocal?: boolean | undefined
  /** The agent of a local user who names none (`GATEWAY_DEFAULT_AGENT`). */
  readonly fallbackAgent?: string | undefined
}

/** The person at this machine, over stdio and from the command line. `--agent` pins the agent. */
export function localPrincipal({
  pinnedAgent,
  fallbackAgent,
}: {
  pinnedAgent?: string | undefined
  fallbackAgent?: string | undefined
}): Principal {
  return {
    id: `local:${userName()}`,
    agents: pinnedAgent === undefined ? 'any' : [pinnedAgent],
    fallbackAgent: fallbackAgent || undefined,
    isLocal: true,
  }
}

function userName(): string {
  try {
    return userInfo().username
  } catch {
    return 'unknown' // a container may run under a uid without a passwd entry
  }
}
