import { closest } from 'fastest-levenshtein'
import type { z } from 'zod'
import { formatPath, type Problem } from './problem.js'

/** Turns zod's findings into problems that name the path and, for a key nobody knows, the nearest key that exists. */
export function toProblems(
  file: string,
  error: z.ZodError,
  prefix: readonly PropertyKey[],
  knownKeys: readonly string[],
): Problem[] {
  return error.issues.flatMap(issue => {
    const at = [...prefix, ...issue.path]
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map(key => ({ file, path: formatPath([...at, key]), message: unknownKey(key, knownKeys) }))
    }
    return [{ file, path: formatPath(at), message: issue.message }]
  })
}

export function unknownKey(key: string, knownKeys: readonly string[]): string {
  const nearest = knownKeys.length > 0 ? closest(key, [...knownKeys]) : undefined
  return nearest === undefined
    ? 'is not a key the gateway knows'
    : `is not a key the gateway knows, did you mean "${nearest}"?`
}

/** Every key of a zod object, and of the objects inside it, for suggestions. */
export function keysOf(schema: z.ZodObject): string[] {
  return Object.keys(schema.shape)
}
