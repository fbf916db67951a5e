import { isJsonObject, type JsonObject } from '../json.js'

/** A parameter that also travels as the header `Mcp-Param-NAME` (2026-07-28, "Custom Headers from Tool Parameters"). */
export interface ParameterHeader {
  readonly name: string
  readonly path: readonly string[]
}

const ANNOTATION = 'x-mcp-header'
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/
const TYPES = new Set<unknown>(['string', 'integer', 'boolean'])

/** The annotated parameters of an input schema, or in words why the tool must not be used. */
export function findParameterHeaders(inputSchema: JsonObject): readonly ParameterHeader[] | string {
  const found: ParameterHeader[] = []
  const visit = (schema: JsonObject, path: readonly string[]): string | undefined => {
    for (const [key, property] of Object.entries(isJsonObject(schema.properties) ? schema.properties : {})) {
      if (!isJsonObject(property)) continue
      const name = property[ANNOTATION]
      if (name !== undefined) {
        if (typeof name !== 'string' || !TOKEN.test(name)) return `${ANNOTATION} of "${key}" is not a header name`
        if (!TYPES.has(property.type)) return `${ANNOTATION} of "${key}" is not on a string, integer or boolean`
        if (found.some(other => other.name.toLowerCase() === name.toLowerCase()))
          return `${ANNOTATION} "${name}" is there twice`
        found.push({ name, path: [...path, key] })
      }
      const fault = visit(property, [...path, key])
      if (fault !== undefined) return fault
    }
    return undefined
  }
  const fault = visit(inputSchema, [])
  if (fault !== undefined) return fault
  const everywhere = JSON.stringify(inputSchema).split(`"${ANNOTATION}":`).length - 1
  return everywhere === found.length ? found : `${ANNOTATION} stands where no parameter of every call is`
}

/** The headers for these arguments; a parameter that is absent or null has none. */
export function toParameterHeaders(headers: readonly ParameterHeader[], args: JsonObject): Record<string, string> {
  return Object.fromEntries(
    headers.flatMap(({ name, path }) => {
      const value = path.reduce<unknown>((node, key) => (isJsonObject(node) ? node[key] : undefined), args)
      return typeof value === 'string' || typeof value === 'boolean' || typeof value === 'number'
        ? [[`mcp-param-${name.toLowerCase()}`, encodeHeaderValue(String(value))]]
        : []
    }),
  )
}

const SENTINEL = /^=\?base64\?.*\?=$/s
const PLAIN = /^[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?$/

/** A value as a header may carry it; what it may not is wrapped in base64, as is what looks wrapped already. */
export function encodeHeaderValue(value: string): string {
  return PLAIN.test(value) && !SENTINEL.test(value)
    ? value
    : `=?base64?${Buffer.from(value, 'utf8').toString('base64')}?=`
}
