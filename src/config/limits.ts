import { z } from 'zod'

const Limit = z
  .strictObject({
    requestsPerMinute: z.number().int().positive().optional(),
    concurrent: z.number().int().positive().optional(),
  })
  .refine(
    limit => Object.values(limit).some(value => value !== undefined),
    'limits nothing: write requestsPerMinute or concurrent',
  )

/** By exact name or glob. */
const limits = z.record(z.string().min(1), Limit).optional()

/** The key `limits` of the rules file: how much each of them may do. Tools are written "server/tool". */
export const Limits = z.strictObject({ agents: limits, servers: limits, tools: limits, principals: limits })

export type LimitConfig = Readonly<z.infer<typeof Limit>>
export type LimitsConfig = Readonly<z.infer<typeof Limits>>

/** What limits name that is not there: written for somebody who may come, or wrong. */
export function unknownInLimits(
  limits: LimitsConfig | undefined,
  { agents, servers }: { readonly agents: ReadonlySet<string>; readonly servers: ReadonlySet<string> },
): { readonly path: readonly string[]; readonly message: string }[] {
  const isUnknown = (name: string, known: ReadonlySet<string>) => !/[*?[]/.test(name) && !known.has(name)
  const about = (kind: keyof LimitsConfig, message: (name: string) => string | undefined) =>
    Object.keys(limits?.[kind] ?? {}).flatMap(name => {
      const found = message(name)
      return found === undefined ? [] : [{ path: ['limits', kind, name], message: found }]
    })
  const ofServer = (name: string) => (isUnknown(name, servers) ? `the server "${name}" is not configured` : undefined)
  return [
    ...about('agents', name => (isUnknown(name, agents) ? `there are no rules for the agent "${name}"` : undefined)),
    ...about('servers', ofServer),
    ...about('tools', name => (name.includes('/') ? ofServer(name.split('/')[0] ?? '') : 'is written "server/tool"')),
  ]
}
