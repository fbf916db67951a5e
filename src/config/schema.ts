import { closest } from 'fastest-levenshtein'
import { z } from 'zod'
import { formatPath, type Problem } from './problem.js'

/** Turns zod's findings into problems that name the path and, for a key nobody knows, the nearest key that would be right there. */
export function toProblems(
  file: string,
  error: z.ZodError,
  schema: z.ZodType,
  prefix: readonly PropertyKey[] = [],
): Problem[] {
  return error.issues.flatMap(flatten).flatMap(issue => {
    const at = [...prefix, ...issue.path]
    if (issue.code === 'unrecognized_keys') {
      const known = keysAt(schema, issue.path)
      return issue.keys.map(key => ({ file, path: formatPath([...at, key]), message: unknownKey(key, known) }))
    }
    // A bad key of a record says why one level further down.
    const message = issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message
    return [{ file, path: formatPath(at), message }]
  })
}

/** Of the forms a value may have, the one that was meant: what is wrong below it, rather than that it is none of them. */
function flatten(issue: z.core.$ZodIssue): z.core.$ZodIssue[] {
  if (issue.code !== 'invalid_union') return [issue]
  const meant = issue.errors.find(form =>
    form.some(({ code, path }) => code === 'unrecognized_keys' || path.length > 0),
  )
  return meant?.flatMap(inner => flatten({ ...inner, path: [...issue.path, ...inner.path] })) ?? [issue]
}

export function unknownKey(key: string, known: readonly string[]): string {
  if (known.length === 0) return 'is not a key the gateway knows'
  return `is not a key the gateway knows, did you mean "${closest(key, known)}"?`
}

/** The keys an object may have at this place of a schema. */
function keysAt(schema: unknown, path: readonly PropertyKey[]): string[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault) return keysAt(schema.unwrap(), path)
  if (schema instanceof z.ZodUnion) return schema.options.flatMap(option => keysAt(option, path))
  const [next, ...rest] = path
  if (schema instanceof z.ZodObject)
    return next === undefined ? Object.keys(schema.shape) : keysAt(schema.shape[String(next)], rest)
  if (schema instanceof z.ZodRecord) return next === undefined ? [] : keysAt(schema.valueType, rest)
  if (schema instanceof z.ZodArray) return next === undefined ? [] : keysAt(schema.element, rest)
  return []
}
