import { formatPath } from '../config/problem.js'
import type { AccessPatterns, AgentRules, RulesConfig } from '../config/rules-file.js'
import type { ServerConfig } from '../config/servers-file.js'
import { compileGlob, type Matcher } from './glob.js'

/** A pattern together with the place it was written at, which is what a decision quotes. */
export interface CompiledPattern {
  readonly matches: Matcher
  readonly rule: string
}

/** The tool patterns under one server key. */
export interface ToolPatterns {
  readonly server: CompiledPattern
  readonly tools: readonly CompiledPattern[]
}

export interface CompiledAccess {
  readonly servers: readonly CompiledPattern[]
  readonly tools: readonly ToolPatterns[]
}

export interface CompiledAgent {
  readonly name: string
  /** What the agent sees; undefined: what its ancestors say. */
  readonly expose: AgentRules['expose']
  /** What a result may cost it; undefined: what its ancestors say. */
  readonly maxResultTokens: number | undefined
  readonly allow: CompiledAccess
  readonly deny: CompiledAccess
}

/** The `tools` filter of a server's own entry, which holds for everybody. */
export interface ServerFilter {
  readonly allow: readonly CompiledPattern[] | undefined
  readonly deny: readonly CompiledPattern[]
  readonly allowRule: string
}

/** Everything a decision needs, compiled once per load. Immutable. */
export interface AccessRules {
  readonly agents: ReadonlyMap<string, CompiledAgent>
  readonly filters: ReadonlyMap<string, ServerFilter>
  readonly denyOnMissingAgent: boolean
}

export function compileRules(rules: RulesConfig, servers: readonly ServerConfig[]): AccessRules {
  return {
    agents: new Map(Object.entries(rules.agents).map(([name, entry]) => [name, compileAgent(name, entry)])),
    filters: new Map(servers.map(server => [server.name, compileFilter(server)])),
    denyOnMissingAgent: rules.defaults.deny_on_missing_agent,
  }
}

/**
 * The entries that decide for an agent: its own and those of all its ancestors (`a.b.c`, `a.b`, `a`), nearest first.
 * Empty when the rules know none of them.
 */
export function entriesFor(rules: AccessRules, agent: string): readonly CompiledAgent[] {
  const entries: CompiledAgent[] = []
  for (let name = agent; name !== ''; name = name.slice(0, Math.max(0, name.lastIndexOf('.')))) {
    const entry = rules.agents.get(name)
    if (entry) entries.push(entry)
  }
  return entries
}

/** What an agent sees: its own word, else that of its nearest ancestor. */
export const exposureOf = (rules: AccessRules, agent: string): 'discover' | 'direct' =>
  entriesFor(rules, agent).find(({ expose }) => expose !== undefined)?.expose ?? 'discover'

/** What a result may cost an agent, in tokens: the least that it or an ancestor may have; undefined: anything. */
export function resultBudgetOf(rules: AccessRules, agent: string): number | undefined {
  const budgets = entriesFor(rules, agent).flatMap(({ maxResultTokens }) => maxResultTokens ?? [])
  return budgets.length > 0 ? Math.min(...budgets) : undefined
}

function compileAgent(name: string, entry: AgentRules): CompiledAgent {
  return {
    name,
    expose: entry.expose,
    maxResultTokens: entry.max_result_tokens,
    allow: compileAccess(entry.allow, ['agents', name, 'allow']),
    deny: compileAccess(entry.deny, ['agents', name, 'deny']),
  }
}

function compileAccess(access: AccessPatterns | undefined, path: readonly PropertyKey[]): CompiledAccess {
  return {
    servers: compilePatterns(access?.servers ?? [], [...path, 'servers']),
    tools: Object.entries(access?.tools ?? {}).map(([server, tools]) => ({
      server: { matches: compileGlob(server), rule: formatPath([...path, 'tools', server]) },
      tools: compilePatterns(tools, [...path, 'tools', server]),
    })),
  }
}

function compileFilter({ name, tools }: ServerConfig): ServerFilter {
  const path = ['mcpServers', name, 'tools']
  return {
    allow: tools.allow && compilePatterns(tools.allow, [...path, 'allow']),
    deny: compilePatterns(tools.deny, [...path, 'deny']),
    allowRule: formatPath([...path, 'allow']),
  }
}

const compilePatterns = (patterns: readonly string[], path: readonly PropertyKey[]): CompiledPattern[] =>
  patterns.map((pattern, index) => ({
    matches: compileGlob(pattern),
    rule: `${formatPath([...path, index])} ("${pattern}")`,
  }))
