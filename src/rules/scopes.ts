import { formatPath } from '../config/problem.js'
import { compileGlob, type Matcher } from './glob.js'

/** Scopes that a token needs for the tools that match. */
export interface CompiledScope {
  readonly server: Matcher
  readonly tool: Matcher
  readonly scopes: readonly string[]
  readonly rule: string
}

/** Keys are `server/tool`, both of them globs; a server's name has no slash. */
export const compileScopes = (scopes: Readonly<Record<string, readonly string[]>>): readonly CompiledScope[] =>
  Object.entries(scopes).map(([key, needed]) => {
    const slash = key.indexOf('/')
    return {
      server: compileGlob(key.slice(0, slash)),
      tool: compileGlob(key.slice(slash + 1)),
      scopes: needed,
      rule: formatPath(['scopes', key]),
    }
  })

/** What a token needs for a call: everything that is asked of it, each scope once. */
export interface NeededScopes {
  readonly scopes: readonly string[]
  /** The places that ask for them. */
  readonly rule: string
}

/** Undefined when no scope is needed. `tools`: what the tool may be called. */
export function scopesFor(
  { scopes }: { readonly scopes: readonly CompiledScope[] },
  server: string,
  tools: readonly string[],
): NeededScopes | undefined {
  if (scopes.length === 0) return undefined
  const asking = scopes.filter(entry => entry.server(server) && tools.some(entry.tool))
  if (asking.length === 0) return undefined
  return {
    scopes: [...new Set(asking.flatMap(entry => entry.scopes))],
    rule: asking.map(({ rule }) => rule).join(', '),
  }
}

/** Of these scopes the ones that the granted ones do not cover: `mcp:*` covers `mcp:github:admin`, but not `mcp`. */
export const missingScopes = (needed: readonly string[], granted: readonly string[]): readonly string[] =>
  needed.filter(scope => !granted.some(grant => covers(grant, scope)))

function covers(grant: string, scope: string): boolean {
  if (grant === scope || grant === '*') return true
  return grant.endsWith(':*') && scope.startsWith(grant.slice(0, -1)) && scope.length > grant.length - 1
}
