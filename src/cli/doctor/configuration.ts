import { readFile, stat } from 'node:fs/promises'
import type { IdentityConfig } from '../../config/identity-config.js'
import { readJsonDocument } from '../../config/json-document.js'
import { loadConfig } from '../../config/load.js'
import { locateConfigFiles, locateServersFile } from '../../config/locate.js'
import { ConfigError, type Problem } from '../../config/problem.js'
import { parseRulesFile } from '../../config/rules-file.js'
import { parseServersFile, type ServerConfig } from '../../config/servers-file.js'
import type { Env } from '../../config/variables.js'
import type { Section } from './section.js'

const MIN_SECRET_LENGTH = 8

export interface FilesWanted {
  readonly config?: string | undefined
  readonly rules?: string | undefined
  readonly env: Env
  readonly cwd: string
}

/** The configuration, as far as it can be had: one mistake hides no other server. */
export interface Configuration {
  readonly isUsable: boolean
  readonly servers: readonly ServerConfig[]
  readonly secrets: readonly string[]
  /** Of the rules file, if that can be read. */
  readonly identity: IdentityConfig | undefined
}

export async function examineConfiguration(section: Section, wanted: FilesWanted): Promise<Configuration> {
  const { servers, secrets, file, problems } = await readServers(section, wanted)
  const rules = await readRules(section, wanted)
  const isUsable = problems === 0 && rules.problems === 0
  if (isUsable && file !== undefined && rules.file !== undefined) {
    const { warnings } = await loadConfig({ servers: file, rules: rules.file }, wanted.env)
    for (const warning of warnings)
      section.warning('rules file', locationOf(warning), 'correct the rule, or configure what it names')
  }
  return { isUsable, servers, secrets, identity: rules.identity }
}

interface Read {
  readonly file: string | undefined
  readonly problems: number
}

async function readServers(
  section: Section,
  { config, env, cwd }: FilesWanted,
): Promise<Read & { readonly servers: readonly ServerConfig[]; readonly secrets: readonly string[] }> {
  const check = 'servers file'
  const file = found(section, check, () => locateServersFile({ config, env, cwd }))
  if (file === undefined) return { file, problems: 1, servers: [], secrets: [] }
  const { servers, secrets, problems } = parseServersFile(await readJsonDocument(file), env)
  for (const problem of problems) section.failed(check, locationOf(problem), 'mend it, then run: gateway check')
  if (problems.length === 0) section.ok(check, `${file}, ${servers.length} servers`)
  await examineMode(section, file, secrets)
  return { file, servers, secrets, problems: problems.length }
}

async function readRules(
  section: Section,
  { rules, env, cwd }: FilesWanted,
): Promise<Read & { readonly identity?: IdentityConfig | undefined }> {
  const check = 'rules file'
  // Whether there is a servers file has been said.
  const file = found(section, check, () => locateConfigFiles({ config: '.', rules, env, cwd }).rules)
  if (file === undefined) return { file, problems: 1 }
  const parsed = parseRulesFile(await readJsonDocument(file), env)
  for (const problem of parsed.problems) section.failed(check, locationOf(problem), 'mend it, then run: gateway check')
  if (parsed.problems.length === 0) section.ok(check, `${file}, ${Object.keys(parsed.rules.agents).length} agents`)
  return { file, problems: parsed.problems.length, identity: parsed.rules.identity }
}

const locationOf = ({ file, path, message }: Problem): string => `${file}${path === '' ? '' : `:${path}`}: ${message}`

function found(section: Section, check: string, locate: () => string): string | undefined {
  try {
    return locate()
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems) section.failed(check, locationOf(problem), 'run: gateway init')
    return undefined
  }
}

/** Secrets that stand in the file itself are nobody else's to read; those that come out of variables are not in it. */
async function examineMode(section: Section, file: string, secrets: readonly string[]): Promise<void> {
  if (process.platform === 'win32') return
  const text = await readFile(file, 'utf8').catch(() => '')
  const mode = (await stat(file).catch(() => undefined))?.mode ?? 0
  const literal = secrets.filter(
    secret => secret.length >= MIN_SECRET_LENGTH && text.includes(JSON.stringify(secret).slice(1, -1)),
  )
  const octal = (mode & 0o777).toString(8)
  if (literal.length === 0) return section.ok('servers file mode', `${octal}, no secrets in it`)
  if ((mode & 0o077) === 0) return section.ok('servers file mode', `${octal}: its secrets are yours alone`)
  section.warning(
    'servers file mode',
    `${octal}: others may read what looks like secrets in it (${literal.length})`,
    `chmod 600 ${file}, or write \${VARIABLE} in their place`,
  )
}
