import { formatPath } from '../config/problem.js'
import {
  type AccessRules,
  type CompiledAgent,
  type CompiledPattern,
  entriesFor,
  rolesOf,
  type ServerFilter,
  type ToolPattern,
} from './compile.js'
import { type Facts, judge } from './conditions.js'

/** What an agent wants to reach. Without `tool`: may it see the server at all? The facts may be known in part, or not yet. */
export interface Wanted extends Facts {
  readonly agent: string
  readonly server: string
  readonly tool?: string | undefined
}

/** `rule` is the place in the configuration that answered, `reason` the same in words. */
export interface Decision {
  /** `ask`: allowed once a person has confirmed this very call. */
  readonly decision: 'allow' | 'deny' | 'ask'
  readonly rule: string
  readonly reason: string
  /** The condition that decided, as it is written. */
  readonly condition?: string
  /** The arguments that are not what a rule wants, or are what one denies or asks about. */
  readonly arguments?: readonly string[]
  /** Rules whose conditions cannot be judged yet, for what is not known; the answer is the best that can come of it. */
  readonly dependsOn?: readonly string[]
}

/**
 * Decides by name alone, before anything is asked whether it exists, and by conditions as far as the facts are known (DESIGN
 * section 2). A `team.role` needs the consent of its own entry and of every ancestor's, so a child never exceeds its parent; a
 * role of the caller adds what it allows. A deny of any of them wins, then what has to be asked. A server's own `tools` filter
 * holds for everybody.
 */
export function decide(rules: AccessRules, wanted: Wanted): Decision {
  const { agent, server, tool } = wanted
  const entries = entriesFor(rules, agent)
  const roles = rolesOf(rules, wanted.caller)
  const decision = roles.length === 0 ? decideByLineage(entries, wanted) : decideWithRoles({ entries, roles }, wanted)
  if (decision.decision === 'deny' || tool === undefined) return decision
  return decideByFilter(rules.filters.get(server), server, tool) ?? decision
}

function decideByLineage(entries: readonly CompiledAgent[], wanted: Wanted): Decision {
  let granted: Decision | undefined
  for (const entry of entries) {
    const decision = decideByEntry(entry, wanted)
    if (decision.decision === 'deny') return decision
    granted = stricter(granted, decision)
  }
  return granted ?? deny(ruleOf(wanted.agent), `the rules have no entry for the agent "${wanted.agent}"`)
}

/** What its own entry does not allow, one of its roles may; what any of them denies stays denied. */
function decideWithRoles(
  { entries, roles }: { readonly entries: readonly CompiledAgent[]; readonly roles: readonly CompiledAgent[] },
  wanted: Wanted,
): Decision {
  const open: string[] = []
  let asking: Decision | undefined
  for (const entry of [...entries, ...roles]) {
    const forbidden = deniedServer(entry, wanted) ?? deniedTool(entry, wanted, open)
    if (forbidden) return forbidden
    if (firstMatch(entry.allow.servers, wanted.server)) asking ??= askedTool(entry, wanted)
  }
  const own = entries.length > 0 ? decideByLineage(entries, wanted) : undefined
  let granted = own?.decision === 'deny' ? undefined : own
  let refused = own?.decision === 'deny' ? own : undefined
  for (const role of roles) {
    const decision = decideByEntry(role, wanted)
    if (decision.decision === 'deny') refused ??= decision
    else granted = stricter(granted, decision)
  }
  if (!granted) return refused ?? deny(ruleOf(wanted.agent), 'no rule allows it')
  return depending(asking ? stricter(granted, asking) : granted, open)
}

/** Of two that allow it the one that asks first. */
function stricter(one: Decision | undefined, other: Decision): Decision {
  if (!one) return other
  const [kept, dropped] = other.decision === 'ask' && one.decision !== 'ask' ? [other, one] : [one, other]
  return depending(kept, dropped.dependsOn ?? [])
}

/** The order of DESIGN section 2, steps 2 to 6; the first that matches answers. */
function decideByEntry(entry: CompiledAgent, wanted: Wanted): Decision {
  const { server, tool } = wanted
  const forbidden = deniedServer(entry, wanted)
  if (forbidden) return forbidden
  const allowedServer = firstMatch(entry.allow.servers, server)
  if (!allowedServer)
    return deny(
      formatPath([...entry.path, 'allow', 'servers']),
      `the server "${server}" is not among those allowed to ${named(entry)}`,
    )
  if (tool === undefined) return allow(allowedServer.rule, `the server "${server}" is allowed to ${named(entry)}`)
  const open: string[] = []
  return deniedTool(entry, wanted, open) ?? depending(grantedTool(entry, allowedServer, wanted), open)
}

function deniedServer(entry: CompiledAgent, { server }: Wanted): Decision | undefined {
  const denied = firstMatch(entry.deny.servers, server)
  return denied && deny(denied.rule, `the server "${server}" is denied to ${named(entry)}`)
}

/** Notes in `open` what may yet turn out to deny it. */
function deniedTool(entry: CompiledAgent, wanted: Wanted, open: string[]): Decision | undefined {
  const { server, tool } = wanted
  if (tool === undefined) return undefined
  for (const { server: key, tools } of entry.deny.tools) {
    if (!key.matches(server)) continue
    for (const pattern of tools) {
      if (!pattern.matches(tool)) continue
      const verdict = judge(pattern.conditions, wanted)
      if (verdict === 'maybe') open.push(pattern.rule)
      if (verdict === 'yes')
        return conditional(deny(pattern.rule, `the tool "${tool}" of "${server}" is denied to ${named(entry)}`), [
          pattern,
        ])
    }
  }
  return undefined
}

function grantedTool(entry: CompiledAgent, allowedServer: CompiledPattern, wanted: Wanted): Decision {
  const { server, tool = '' } = wanted
  const { tools: lists, mayAsk } = entry.allow
  let isListed = false
  let granting: ToolPattern | undefined
  let open: string[] | undefined
  let unmet: ToolPattern[] | undefined
  for (const { server: key, tools } of lists) {
    if (!key.matches(server)) continue
    isListed = true
    for (const pattern of tools) {
      if (!pattern.matches(tool)) continue
      const verdict = judge(pattern.conditions, wanted)
      if (verdict === 'no') {
        unmet ??= []
        unmet.push(pattern)
        continue
      }
      if (verdict === 'yes' && !mayAsk) return allowedBy(pattern, entry, wanted)
      if (verdict === 'maybe') {
        open ??= []
        open.push(pattern.rule)
      }
      if (!granting || verdict === 'yes') granting = pattern
    }
  }
  if (!isListed) return allow(allowedServer.rule, `${named(entry)} may call every tool of "${server}"`)
  if (granting) return depending(askedTool(entry, wanted) ?? allowedBy(granting, entry, wanted), open ?? [])
  return unmet ? refusedBy(unmet, entry, wanted) : notListed(entry, wanted)
}

/** What a person has to confirm, whatever allows it. */
function askedTool(entry: CompiledAgent, wanted: Wanted): Decision | undefined {
  const { server, tool } = wanted
  if (tool === undefined || !entry.allow.mayAsk) return undefined
  const reason = `a person has to confirm the tool "${tool}" of "${server}" for ${named(entry)}`
  for (const { server: key, tools } of entry.allow.tools) {
    if (!key.matches(server)) continue
    for (const pattern of tools) {
      const verdict = pattern.asksWhere && pattern.matches(tool) ? judge(pattern.asksWhere, wanted) : 'no'
      if (verdict === 'no') continue
      const asking = conditional({ decision: 'ask', rule: pattern.rule, reason }, [pattern])
      return verdict === 'maybe' ? depending(asking, [pattern.rule]) : asking
    }
  }
  return undefined
}

const allowedBy = (pattern: ToolPattern, entry: CompiledAgent, { server, tool }: Wanted): Decision =>
  conditional(allow(pattern.rule, `the tool "${tool}" of "${server}" is allowed to ${named(entry)}`), [pattern])

/** Its name is among those allowed, what else has to hold does not. */
function refusedBy(patterns: readonly ToolPattern[], entry: CompiledAgent, wanted: Wanted): Decision {
  const { server, tool } = wanted
  const failing = patterns.flatMap(pattern => pattern.conditions.find(each => each.judge(wanted) === 'no') ?? [])
  const reason = `the tool "${tool}" of "${server}" is allowed to ${named(entry)} only where this holds: ${failing.map(({ text }) => text).join('; or ')}`
  return {
    ...deny(patterns.map(({ rule }) => rule).join(', '), reason),
    condition: failing.map(({ text }) => text).join('; or '),
    ...argumentsOf(failing),
  }
}

function notListed(entry: CompiledAgent, { server, tool }: Wanted): Decision {
  const lists = entry.allow.tools.filter(({ server: key }) => key.matches(server))
  return deny(
    lists.map(({ server: key }) => key.rule).join(', '),
    `the tool "${tool}" of "${server}" is not among those allowed to ${named(entry)}`,
  )
}

function decideByFilter(filter: ServerFilter | undefined, server: string, tool: string): Decision | undefined {
  if (!filter) return undefined
  const denied = firstMatch(filter.deny, tool)
  if (denied) return deny(denied.rule, `the tool "${tool}" of "${server}" is denied to everybody`)
  if (filter.allow && !firstMatch(filter.allow, tool))
    return deny(filter.allowRule, `the tool "${tool}" of "${server}" is not offered to anybody`)
  return undefined
}

const ruleOf = (agent: string): string => formatPath(['agents', agent])

const named = ({ name, path }: CompiledAgent): string => (path[0] === 'roles' ? `the role "${name}"` : `"${name}"`)

const firstMatch = (patterns: readonly CompiledPattern[], name: string): CompiledPattern | undefined =>
  patterns.find(({ matches }) => matches(name))

const allow = (rule: string, reason: string): Decision => ({ decision: 'allow', rule, reason })
const deny = (rule: string, reason: string): Decision => ({ decision: 'deny', rule, reason })

/** With the conditions of the rule that answered, if it has some. */
function conditional(decision: Decision, [pattern]: readonly [ToolPattern]): Decision {
  if (pattern.conditions.length === 0) return decision
  const condition = pattern.conditions.map(({ text }) => text).join(', ')
  return { ...decision, condition, ...(decision.decision !== 'allow' && argumentsOf(pattern.conditions)) }
}

function argumentsOf(conditions: ToolPattern['conditions']): { readonly arguments?: readonly string[] } {
  const names = [...new Set(conditions.flatMap(({ argument }) => argument ?? []))]
  return names.length > 0 ? { arguments: names } : {}
}

const depending = (decision: Decision, open: readonly string[]): Decision =>
  open.length === 0 || decision.decision === 'deny'
    ? decision
    : { ...decision, dependsOn: [...new Set([...(decision.dependsOn ?? []), ...open])] }
