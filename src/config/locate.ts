import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { ConfigError, type Problem } from './problem.js'
import type { Env } from './variables.js'

const PACKAGE_NAME = 'agent-mcp-gateway'
const SERVERS_FILE = '.mcp.json'
const RULES_FILE = '.mcp-gateway-rules.json'

export interface ConfigFiles {
  readonly servers: string
  readonly rules: string
}

export interface LocateOptions {
  /** `--config` and `--rules`, when given. */
  readonly config?: string | undefined
  readonly rules?: string | undefined
  readonly env: Env
  readonly cwd: string
}

/** Finds both files (DESIGN section 2). Throws ConfigError that lists every place looked at. */
export function locateConfigFiles({ config, rules, env, cwd }: LocateOptions): ConfigFiles {
  const servers = locate({ option: config, variable: 'GATEWAY_MCP_CONFIG', name: SERVERS_FILE, env, cwd })
  const rulesFile = locate({ option: rules, variable: 'GATEWAY_RULES', name: RULES_FILE, env, cwd })
  const problems = [servers, rulesFile].filter(found => typeof found !== 'string')
  if (typeof servers !== 'string' || typeof rulesFile !== 'string') throw new ConfigError(problems)
  return { servers, rules: rulesFile }
}

/** Finds the servers file alone, for what needs no rules. Throws ConfigError likewise. */
export function locateServersFile({ config, env, cwd }: Omit<LocateOptions, 'rules'>): string {
  const found = locate({ option: config, variable: 'GATEWAY_MCP_CONFIG', name: SERVERS_FILE, env, cwd })
  if (typeof found === 'string') return found
  throw new ConfigError([found])
}

interface Wanted {
  readonly option: string | undefined
  readonly variable: string
  readonly name: string
  readonly env: Env
  readonly cwd: string
}

function locate({ option, variable, name, env, cwd }: Wanted): string | Problem {
  const chosen = option ?? env[variable]
  if (chosen !== undefined && chosen !== '') return resolve(cwd, chosen)
  const places = [join(cwd, name), join(configDirectory(env), name), join(cwd, 'config', name)]
  const found = places.find(place => existsSync(place))
  if (found !== undefined) return found
  const message = `not found (looked for ${places.join(', ')}): run "gateway init" to write one, or set ${variable}`
  return { file: name, path: '', message }
}

export const configDirectory = (env: Env): string =>
  join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config'), PACKAGE_NAME)

/** Where the gateway keeps what it makes itself: `credentials.json` and `audit.jsonl`. */
export function stateDirectory(env: Env): string {
  if (env.GATEWAY_STATE_DIR) return resolve(env.GATEWAY_STATE_DIR)
  if (process.platform === 'win32' && env.LOCALAPPDATA) return join(env.LOCALAPPDATA, PACKAGE_NAME)
  return join(env.XDG_STATE_HOME || join(env.HOME || homedir(), '.local', 'state'), PACKAGE_NAME)
}
