import { z } from 'zod'
import type { JsonDocument } from './json-document.js'
import { formatPath, type Problem } from './problem.js'
import { keysOf, toProblems } from './schema.js'

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

const KNOWN_KEYS = [...keysOf(Rules), ...keysOf(Agent), ...keysOf(Access), 'deny_on_missing_agent']

// Part of the file format, but not in force in this version. To read them as if they were would grant what they forbid.
const NOT_IN_FORCE = ['identity', 'roles', 'scopes', 'limits']

export interface RulesFile {
  readonly rules: RulesConfig
  readonly problems: readonly Problem[]
}

export function parseRulesFile({ file, value, problems }: JsonDocument): RulesFile {
  const none = Rules.parse({})
  if (value === undefined) return { rules: none, problems }
  const found = [...problems, ...conditionsIn(file, value)]
  if (found.length > problems.length) return { rules: none, problems: found }
  const parsed = Rules.safeParse(value)
  if (parsed.success) return { rules: parsed.data, problems: found }
  return { rules: none, problems: [...found, ...toProblems(file, parsed.error, [], KNOWN_KEYS)] }
}

/** Finds rules this version cannot enforce: they are refused by name, with the reason. */
function conditionsIn(file: string, value: unknown): Problem[] {
  const problems: Problem[] = []
  const visit = (node: unknown, path: readonly PropertyKey[]): void => {
    if (typeof node !== 'object' || node === null) return
    if (path.length === 1 && NOT_IN_FORCE.includes(String(path[0]))) {
      problems.push({
        file,
        path: formatPath(path),
        message: 'is not enforced by this version yet: remove it, nothing would be checked by it',
      })
      return
    }
    if (!Array.isArray(node) && 'tool' in node && ('when' in node || 'effect' in node)) {
      problems.push({
        file,
        path: formatPath(path),
        message:
          'conditions and effects are not enforced by this version yet: write the tool name alone, or leave it out',
      })
      return
    }
    for (const [key, child] of Object.entries(node)) visit(child, [...path, Array.isArray(node) ? Number(key) : key])
  }
  visit(value, [])
  return problems
}
