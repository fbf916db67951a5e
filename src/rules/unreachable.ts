import { formatPath } from '../config/problem.js'
import type { AgentRules, RulesConfig, ToolRule } from '../config/rules-file.js'
import type { ServerConfig } from '../config/servers-file.js'
import { compileGlob, isGlob } from './glob.js'

/** A rule that can never decide anything, where it is written and why. */
export interface Unreachable {
  readonly path: string
  readonly message: string
}

/**
 * Rules that can never match, or never make a difference: most likely something else was meant. Servers that are not configured
 * are reported with the files.
 */
export function findUnreachable(rules: RulesConfig, servers: readonly ServerConfig[]): readonly Unreachable[] {
  const names = servers.map(({ name }) => name)
  return [
    ...Object.entries(rules.agents).flatMap(([name, entry]) => inEntry(entry, ['agents', name], names)),
    ...Object.entries(rules.roles ?? {}).flatMap(([name, entry]) => [
      ...inEntry(entry, ['roles', name], names),
      ...notConfigured(entry, ['roles', name], names),
    ]),
    ...Object.keys(rules.scopes ?? {}).flatMap(key => {
      const server = key.slice(0, key.indexOf('/'))
      return names.some(compileGlob(server)) ? [] : [at(['scopes', key], `no configured server matches "${server}"`)]
    }),
  ]
}

function inEntry({ allow = {}, deny = {} }: AgentRules, path: readonly PropertyKey[], names: readonly string[]) {
  const found: Unreachable[] = []
  allow.servers?.forEach((pattern, index) => {
    const denying = deny.servers?.findIndex(other => covers(other, pattern)) ?? -1
    if (denying < 0) return
    const rule = formatPath([...path, 'deny', 'servers', denying])
    found.push(at([...path, 'allow', 'servers', index], `can never match: ${rule} denies all of it`))
  })
  for (const [server, tools] of Object.entries(allow.tools ?? {})) {
    const place = [...path, 'allow', 'tools', server]
    const meant = names.filter(compileGlob(server))
    if (meant.length > 0 && !meant.some(name => allow.servers?.some(pattern => compileGlob(pattern)(name)))) {
      found.push(at(place, `can never match: ${formatPath([...path, 'allow', 'servers'])} has no such server`))
    }
    tools.forEach((tool, index) => {
      const message = deniedBy(toRule(tool), server, deny.tools ?? {}, path) ?? madeUseless(toRule(tool), tools, index)
      if (message !== undefined) found.push(at([...place, index], message))
    })
  }
  return found
}

function deniedBy(
  { tool }: ToolRule,
  server: string,
  deny: Readonly<Record<string, readonly (string | object)[]>>,
  path: readonly PropertyKey[],
): string | undefined {
  for (const [key, denied] of Object.entries(deny)) {
    if (!covers(key, server)) continue
    const index = denied.findIndex(other => typeof other === 'string' && covers(other, tool))
    if (index >= 0)
      return `can never match: ${formatPath([...path, 'deny', 'tools', key, index])} denies it, whatever the arguments`
  }
  return undefined
}

/** A condition says nothing where the same list has the tool without one. */
function madeUseless(rule: ToolRule, tools: readonly (string | ToolRule)[], index: number): string | undefined {
  if (rule.effect === 'ask' || !isConditional(rule)) return undefined
  const other = tools.findIndex((listed, at) => {
    const free = toRule(listed)
    return at !== index && !isConditional(free) && free.effect !== 'ask' && covers(free.tool, rule.tool)
  })
  return other < 0 ? undefined : `makes no difference: entry ${other} of this list allows the tool without a condition`
}

const isConditional = ({ when, annotations }: ToolRule): boolean => when !== undefined || annotations !== undefined

function notConfigured({ allow, deny }: AgentRules, path: readonly PropertyKey[], names: readonly string[]) {
  const found: Unreachable[] = []
  for (const [effect, access] of Object.entries({ allow, deny })) {
    const report = (pattern: string, place: readonly PropertyKey[]) => {
      if (!isGlob(pattern) && !names.includes(pattern))
        found.push(at([...path, effect, ...place], `the server "${pattern}" is not configured`))
    }
    access?.servers?.forEach((pattern, index) => {
      report(pattern, ['servers', index])
    })
    for (const server of Object.keys(access?.tools ?? {})) report(server, ['tools', server])
  }
  return found
}

const toRule = (listed: string | ToolRule): ToolRule => (typeof listed === 'string' ? { tool: listed } : listed)

/** Whether a pattern matches everything that the other does, as far as that is plain to see. */
const covers = (pattern: string, other: string): boolean =>
  pattern === other || /^\*+$/.test(pattern) || (!isGlob(other) && compileGlob(pattern)(other))

const at = (path: readonly PropertyKey[], message: string): Unreachable => ({ path: formatPath(path), message })
