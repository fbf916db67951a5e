import { z } from 'zod'
import { isJsonObject } from '../json.js'
import { parseArgumentPath, parseTemplate } from './condition-syntax.js'
import { expandIdentity, Identity } from './identity-config.js'
import type { JsonDocument } from './json-document.js'
import { Limits } from './limits.js'
import { formatPath, type Problem } from './problem.js'
import { toProblems } from './schema.js'
import type { Env } from './variables.js'

const patterns = z.array(z.string().min(1))

const ArgumentPattern = z
  .union([z.string().min(1), z.number(), z.boolean()], { error: 'is neither a glob, nor a number, true or false' })
  .superRefine((pattern, context) => {
    const parsed = typeof pattern === 'string' ? parseTemplate(pattern) : []
    if (typeof parsed === 'string') context.addIssue({ code: 'custom', message: parsed })
  })

const When = z
  .record(
    z.string().superRefine((path, context) => {
      const parsed = parseArgumentPath(path)
      if (typeof parsed === 'string') context.addIssue({ code: 'custom', message: parsed })
    }),
    z.union([ArgumentPattern, z.array(ArgumentPattern).min(1, 'an empty list can never match')], {
      error: 'is neither a pattern nor a list of patterns',
    }),
  )
  .refine(when => Object.keys(when).length > 0, 'is empty: name an argument, or leave it out')

const Annotations = z
  .strictObject({
    readOnlyHint: z.boolean().optional(),
    destructiveHint: z.boolean().optional(),
    idempotentHint: z.boolean().optional(),
    openWorldHint: z.boolean().optional(),
  })
  .refine(hints => Object.keys(hints).length > 0, 'is empty: name a hint, or leave it out')

const ToolRule = z.strictObject({
  tool: z.string().min(1),
  when: When.optional(),
  annotations: Annotations.optional(),
  effect: z.enum(['allow', 'ask']).optional(),
})

const DeniedToolRule = ToolRule.extend({
  effect: z.undefined({ error: 'has no place in a list of what is denied' }).optional(),
})

const notATool = { error: 'is neither the name or glob of a tool, nor an object with "tool"' }

const Allow = z.strictObject({
  servers: patterns.optional(),
  tools: z.record(z.string().min(1), z.array(z.union([z.string().min(1), ToolRule], notATool))).optional(),
})

const Deny = z.strictObject({
  servers: patterns.optional(),
  tools: z.record(z.string().min(1), z.array(z.union([z.string().min(1), DeniedToolRule], notATool))).optional(),
})

const Agent = z.strictObject({
  allow: Allow.optional(),
  deny: Deny.optional(),
  expose: z.enum(['discover', 'direct']).optional(),
  max_result_tokens: z.number().int().positive().optional(),
})

const Scopes = z.record(
  z.string().regex(/^[^/]+\/.+$/s, 'expected "server/tool", of which both may be globs'),
  z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'is not a scope (RFC 6749, section 3.3)')).min(1),
)

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
  roles: z.record(z.string().min(1), Agent).optional(),
  scopes: Scopes.optional(),
  defaults: z
    .strictObject({ deny_on_missing_agent: z.boolean().default(true) })
    .default({ deny_on_missing_agent: true }),
  limits: Limits.optional(),
  auditRequired: z.boolean().optional(),
})

/** An entry of a list of tools that says more than a name. */
export type ToolRule = Readonly<z.infer<typeof ToolRule>>
export type AccessPatterns = Readonly<z.infer<typeof Allow>>
export type AgentRules = Readonly<z.infer<typeof Agent>>
export type RulesConfig = Readonly<z.infer<typeof Rules>>

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
  const parsed = Rules.safeParse(withIdentity(value, env, report))
  if (!parsed.success) found.push(...toProblems(file, parsed.error, Rules))
  return { rules: parsed.success && found.length === 0 ? parsed.data : none, problems: found }
}

function withIdentity(value: unknown, env: Env, report: Parameters<typeof expandIdentity>[2]): unknown {
  if (!isJsonObject(value) || value.identity === undefined) return value
  return { ...value, identity: expandIdentity(value.identity, env, report) }
}
