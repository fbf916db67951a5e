import { createHash } from 'node:crypto'
import { identitySecrets, NO_IDENTITY } from './identity-config.js'
import { readJsonDocument } from './json-document.js'
import { unknownInLimits } from './limits.js'
import type { ConfigFiles } from './locate.js'
import { ConfigError, formatPath, type Problem } from './problem.js'
import { parseRulesFile, type RulesConfig } from './rules-file.js'
import { parseServersFile, type ServerConfig } from './servers-file.js'
import type { Env } from './variables.js'

/** Both files, checked and frozen. Nothing after this point validates configuration again. */
export interface GatewayConfig {
  readonly files: ConfigFiles
  readonly servers: readonly ServerConfig[]
  readonly rules: RulesConfig
  readonly warnings: readonly Problem[]
  readonly secrets: readonly string[]
  readonly fingerprint: string
}

/** Reads, expands and checks both files. Throws ConfigError with every problem of both. */
export async function loadConfig(files: ConfigFiles, env: Env): Promise<GatewayConfig> {
  const [serversDocument, rulesDocument] = await Promise.all([
    readJsonDocument(files.servers),
    readJsonDocument(files.rules),
  ])
  const { servers, secrets: serverSecrets, problems } = parseServersFile(serversDocument, env)
  const { rules, problems: rulesProblems } = parseRulesFile(rulesDocument, env)
  if (problems.length + rulesProblems.length > 0) {
    // An unset variable alone is no reason to refuse, but whoever mends the files wants to see everything.
    throw new ConfigError([...problems, ...rulesProblems, ...servers.flatMap(({ misconfigured }) => misconfigured)])
  }
  const secrets = [...serverSecrets, ...identitySecrets(rules.identity ?? NO_IDENTITY)]
  const warnings = crossCheck(files, servers, rules)
  const fingerprint = createHash('sha256').update(JSON.stringify({ servers, rules })).digest('hex').slice(0, 16)
  return deepFreeze({ files, servers, rules, warnings, secrets, fingerprint })
}

/** The servers alone, checked. Throws ConfigError with every problem. */
export async function loadServers(file: string, env: Env): Promise<readonly ServerConfig[]> {
  const { servers, problems } = parseServersFile(await readJsonDocument(file), env)
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(servers)
}

const isGlob = (pattern: string): boolean => /[*?[]/.test(pattern)

/** What is legal but most likely not meant. */
function crossCheck(files: ConfigFiles, servers: readonly ServerConfig[], rules: RulesConfig): Problem[] {
  const names = new Set(servers.map(({ name }) => name))
  const warnings: Problem[] = []
  const warn = (path: readonly PropertyKey[], message: string) =>
    warnings.push({ file: files.rules, path: formatPath(path), message })
  const notConfigured = (pattern: string) => !isGlob(pattern) && !names.has(pattern)
  for (const [agent, entry] of Object.entries(rules.agents)) {
    for (const effect of ['allow', 'deny'] as const) {
      const access = entry[effect]
      access?.servers?.forEach((pattern, index) => {
        if (notConfigured(pattern))
          warn(['agents', agent, effect, 'servers', index], `the server "${pattern}" is not configured`)
      })
      for (const [pattern, tools] of Object.entries(access?.tools ?? {})) {
        if (notConfigured(pattern))
          warn(['agents', agent, effect, 'tools', pattern], `the server "${pattern}" is not configured`)
        if (tools.length === 0 && effect === 'allow')
          warn(['agents', agent, effect, 'tools', pattern], 'an empty list allows no tool at all')
      }
    }
  }
  const agents = new Set(Object.keys(rules.agents))
  for (const { path, message } of unknownInLimits(rules.limits, { agents, servers: names })) warn(path, message)
  for (const agent of Object.keys(rules.identity?.agents ?? {})) {
    const isKnown = [...agents].some(known => agent === known || agent.startsWith(`${known}.`))
    if (!isKnown) warn(['identity', 'agents', agent], `there is no agent "${agent}" whose rules would hold`)
  }
  if (!rules.defaults.deny_on_missing_agent && !('default' in rules.agents)) {
    warn(['defaults', 'deny_on_missing_agent'], 'is false, but there is no agent "default" to fall back to')
  }
  return warnings
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const child of Object.values(value)) deepFreeze(child)
  }
  return value
}
