// More is no list of scopes but an attack on whoever has to read or send it.
const MAX_SCOPES = 100
const MAX_LENGTH = 4_000

/** A `scope` value as a list (RFC 6749, section 3.3). */
export const toScopes = (scope: string | undefined): string[] => withinReason(scope?.split(' ') ?? [])

/** What is a scope by its characters, up to a sensible number; servers send anything. */
export function withinReason(scopes: readonly string[]): string[] {
  const wellFormed = scopes.filter(scope => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope)).slice(0, MAX_SCOPES)
  const isShort = wellFormed.join(' ').length <= MAX_LENGTH
  return isShort ? wellFormed : wellFormed.filter(scope => scope.length <= MAX_LENGTH / MAX_SCOPES)
}

/** Every scope once, in order of first mention. */
export const unionOf = (...lists: readonly (readonly string[])[]): string[] => [...new Set(lists.flat())]

export interface ScopeSources {
  /** `oauth.scopes` of the servers file: whoever writes them means them. */
  readonly configured: readonly string[] | undefined
  readonly challenged: readonly string[]
  /** `scopes_supported` of the protected resource. */
  readonly supported: readonly string[] | undefined
  /** Asked for before, granted before, or wanted by a 403 since: a new authorization must not take anything away. */
  readonly earlier: readonly string[]
  /** `scopes_supported` of the authorization server. */
  readonly offered: readonly string[] | undefined
}

/**
 * The scopes of an authorization request: configured, else challenged, else all that the resource lists, else none
 * (MCP authorization, "Scope Selection Strategy"); with a refresh token wherever the server says that it has them.
 */
export function selectScopes({ configured, challenged, supported, earlier, offered }: ScopeSources): string[] {
  const base = configured ?? (challenged.length > 0 ? challenged : withinReason(supported ?? []))
  const offline = offered?.includes('offline_access') ? ['offline_access'] : []
  return unionOf(base, earlier, offline)
}
