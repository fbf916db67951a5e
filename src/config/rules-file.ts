import { z } from 'zod'
import { isJsonObject } from '../json.js'
import { expandIdentity, Identity } from './identity-config.js'
import type { JsonDocument } from './json-document.js'
import { formatPath, type Problem } from './problem.js'
import { toProblems } from './schema.js'
import type { Env } from './variables.js'

const patterns = z.array(z.string().min(1))

const Access = z.strictObject({
  servers: patterns.optional(),
  tools: z.record(z.string().min(1), patterns).optional(),
})

const Agent = z.strictObject({
  allow: Access.optional(),
  deny: Access.optional(),
  expose: z.enum(['discover', 'direct']).optional(),
  max_result_tokens: z.number().int().positive().optional(),
})

const Rules = z.strictObject({
  $schema: z.string().optional(),
  identity: Identity.optional(),
  agents: z
    .record(
      z
        .string()
        .regex(/^[^\s.*?[\]]+(\.[^\s.*?[\]]+)*$/, 'an agent name is "name" or "team.role", without spaces or globs'),
      Agent,
    )
    .default({}),
  defaults: z
    .strictObject({ deny_on_missing_agent: z.boolean().default(true) })
    .default({ deny_on_missing_agent: true }),
})

export type AccessPatterns = Readonly<z.infer<typeof Access>>
export type AgentRules = Readonly<z.infer<typeof Agent>>
export type RulesConfig = Readonly<z.infer<typeof Rules>>

// Part of the file format, but not in force in this version. To read them as if they were would grant what they forbid.
const NOT_IN_FORCE = ['roles', 'scopes', 'limits']

export interface RulesFile {
  readonly rules: RulesConfig
  readonly problems: readonly Problem[]
}

export function parseRulesFile({ file, value, problems }: JsonDocument, env: Env = {}): RulesFile {
  const none = Rules.parse({})
  if (value === undefined) return { rules: none, problems }
  const found = [...problems]
  const report = (path: readonly PropertyKey[], message: string) =>
    void found.push({ file, path: formatPath(path), message })
  const enforced = withIdentity(withoutUnenforced(value, [], report), env, report)
  const parsed = Rules.safeParse(enforced)
  if (!parsed.success) found.push(...toProblems(file, parsed.error, Rules))
  return { rules: parsed.success && found.length === 0 ? parsed.data : none, problems: found }
}

function withIdentity(value: unknown, env: Env, report: Parameters<typeof expandIdentity>[2]): unknown {
  if (!isJsonObject(value) || value.identity === undefined) return value
  return { ...value, identity: expandIdentity(value.identity, env, report) }
}

/** Takes out, and reports by name, what this version cannot enforce: sections, and conditions in lists of tools. */
function withoutUnenforced(
  value: unknown,
  path: readonly PropertyKey[],
  report: (path: readonly PropertyKey[], message: string) => void,
): unknown {
  if (Array.isArray(value)) return value.map((item, index) => withoutUnenforced(item, [...path, index], report))
  if (!isJsonObject(value)) return value
  if (typeof path.at(-1) === 'number' && typeof value.tool === 'string' && ('when' in value || 'effect' in value)) {
    report(
      path,
      'conditions and effects are not enforced by this version yet: write the tool name alone, or leave it out',
    )
    return value.tool
  }
  const kept = Object.entries(value).filter(([key]) => {
    const unenforced = path.length === 0 && NOT_IN_FORCE.includes(key)
    if (unenforced) report([key], 'is not enforced by this version yet: remove it, nothing would be checked by it')
    return !unenforced
  })
  return Object.fromEntries(kept.map(([key, item]) => [key, withoutUnenforced(item, [...path, key], report)]))
}
