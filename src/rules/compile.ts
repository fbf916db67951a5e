import { formatPath } from '../config/problem.js'
import type { AgentRules, RulesConfig, ToolRule } from '../config/rules-file.js'
import type { ServerConfig } from '../config/servers-file.js'
import { type Condition, compileConditions, type Mode, type Subject } from './conditions.js'
import { compileGlob, type Matcher } from './glob.js'
import { type CompiledScope, compileScopes } from './scopes.js'

/** A pattern together with the place it was written at, which is what a decision quotes. */
export interface CompiledPattern {
  readonly matches: Matcher
  readonly rule: string
}

/** An entry of a list of tools. */
export interface ToolPattern extends CompiledPattern {
  /** What else has to hold. */
  readonly conditions: readonly Condition[]
  /** Of a pattern that has a person asked first: the same as conditions for asking, which hold also where they only may. */
  readonly asksWhere: readonly Condition[] | undefined
}

/** The tool patterns under one server key. */
export interface ToolPatterns {
  readonly server: CompiledPattern
  readonly tools: readonly ToolPattern[]
}

export interface CompiledAccess {
  readonly servers: readonly CompiledPattern[]
  readonly tools: readonly ToolPatterns[]
  /** True when a person may have to be asked: then the first pattern that matches does not answer yet. */
  readonly mayAsk: boolean
}

/** The entry of an agent, or of a role. */
export interface CompiledAgent {
  readonly name: string
  /** Where it is written. */
  readonly path: readonly PropertyKey[]
  /** Itself and the ancestors of an agent, nearest first. */
  readonly lineage: readonly CompiledAgent[]
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
  readonly roles: ReadonlyMap<string, CompiledAgent>
  readonly scopes: readonly CompiledScope[]
  readonly filters: ReadonlyMap<string, ServerFilter>
  readonly denyOnMissingAgent: boolean
}

export function compileRules(rules: RulesConfig, servers: readonly ServerConfig[]): AccessRules {
  return {
    agents: compileEntries('agents', rules.agents),
    roles: compileEntries('roles', rules.roles ?? {}),
    scopes: compileScopes(rules.scopes ?? {}),
    filters: new Map(servers.map(server => [server.name, compileFilter(server)])),
    denyOnMissingAgent: rules.defaults.deny_on_missing_agent,
  }
}

/**
 * The entries that decide for an agent: its own and those of all its ancestors (`a.b.c`, `a.b`, `a`), nearest first.
 * Empty when the rules know none of them.
 */
export function entriesFor({ agents }: Pick<AccessRules, 'agents'>, agent: string): readonly CompiledAgent[] {
  for (let name = agent; name !== ''; name = parentOf(name)) {
    const entry = agents.get(name)
    if (entry) return entry.lineage
  }
  return NO_ENTRIES
}

const NO_ENTRIES: readonly CompiledAgent[] = []

/** Whether the rules say anything of this agent, or of a role that the caller has. */
export const isKnown = (rules: AccessRules, agent: string, caller?: Pick<Subject, 'roles'>): boolean =>
  entriesFor(rules, agent).length > 0 || rolesOf(rules, caller).length > 0

/** The entries of the caller's roles, as far as the rules know them. */
export const rolesOf = (
  { roles }: AccessRules,
  caller: Pick<Subject, 'roles'> | undefined,
): readonly CompiledAgent[] =>
  caller?.roles?.length && roles.size > 0 ? caller.roles.flatMap(name => roles.get(name) ?? []) : NO_ENTRIES

/** What an agent sees: its own word, else that of its nearest ancestor, else that of a role. */
export const exposureOf = (rules: AccessRules, agent: string, caller?: Pick<Subject, 'roles'>): 'discover' | 'direct' =>
  [...entriesFor(rules, agent), ...rolesOf(rules, caller)].find(({ expose }) => expose !== undefined)?.expose ??
  'discover'

/** What a result may cost an agent, in tokens: the least that it, an ancestor or a role may have; undefined: anything. */
export function resultBudgetOf(rules: AccessRules, agent: string, caller?: Pick<Subject, 'roles'>): number | undefined {
  const entries = [...entriesFor(rules, agent), ...rolesOf(rules, caller)]
  const budgets = entries.flatMap(({ maxResultTokens }) => maxResultTokens ?? [])
  return budgets.length > 0 ? Math.min(...budgets) : undefined
}

/** Parents come first, so that each finds its own. */
function compileEntries(section: 'agents' | 'roles', entries: Readonly<Record<string, AgentRules>>) {
  const compiled = new Map<string, CompiledAgent>()
  for (const [name, entry] of Object.entries(entries).sort(([a], [b]) => a.length - b.length)) {
    const lineage: CompiledAgent[] = []
    const agent = { ...compileAgent([section, name], name, entry), lineage }
    lineage.push(agent, ...(section === 'agents' ? entriesFor({ agents: compiled }, parentOf(name)) : []))
    compiled.set(name, agent)
  }
  return compiled
}

const parentOf = (agent: string): string => agent.slice(0, Math.max(0, agent.lastIndexOf('.')))

function compileAgent(path: readonly PropertyKey[], name: string, entry: AgentRules): Omit<CompiledAgent, 'lineage'> {
  return {
    name,
    path,
    expose: entry.expose,
    maxResultTokens: entry.max_result_tokens,
    allow: compileAccess(entry.allow, [...path, 'allow'], 'allow'),
    deny: compileAccess(entry.deny, [...path, 'deny'], 'deny'),
  }
}

function compileAccess(
  access: AgentRules['allow'] | AgentRules['deny'],
  path: readonly PropertyKey[],
  mode: Mode,
): CompiledAccess {
  const tools = Object.entries(access?.tools ?? {}).map(([server, listed]) => ({
    server: { matches: compileGlob(server), rule: formatPath([...path, 'tools', server]) },
    tools: listed.map((tool, index) => compileTool(tool, [...path, 'tools', server, index], mode)),
  }))
  return {
    servers: compilePatterns(access?.servers ?? [], [...path, 'servers']),
    tools,
    mayAsk: tools.some(list => list.tools.some(({ asksWhere }) => asksWhere)),
  }
}

function compileTool(listed: string | ToolRule, path: readonly PropertyKey[], mode: Mode): ToolPattern {
  const rule: ToolRule = typeof listed === 'string' ? { tool: listed } : listed
  return {
    matches: compileGlob(rule.tool),
    rule: `${formatPath(path)} ("${rule.tool}")`,
    conditions: compileConditions(rule, mode),
    asksWhere: rule.effect === 'ask' ? compileConditions(rule, 'deny') : undefined,
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
