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

const known = new WeakMap<JsonObject, readonly ParameterHeader[]>()

/** The headers that a listed tool asks for, looked up once per list. Annotations that are wrong ask for nothing. */
function headersOf(inputSchema: JsonObject): readonly ParameterHeader[] {
  const before = known.get(inputSchema)
  if (before) return before
  const found = findParameterHeaders(inputSchema)
  const headers = typeof found === 'string' ? [] : found
  known.set(inputSchema, headers)
  return headers
}

/** What is wrong with the headers that a request came with, compared with its arguments; undefined when they agree. */
export function parameterHeaderProblem(
  inputSchema: unknown,
  args: JsonObject,
  header: (name: string) => string | undefined,
): string | undefined {
  if (!isJsonObject(inputSchema)) return undefined
  for (const { name, path } of headersOf(inputSchema)) {
    const field = `Mcp-Param-${name}`
    const value = path.reduce<unknown>((node, key) => (isJsonObject(node) ? node[key] : undefined), args)
    const sent = header(field.toLowerCase())?.trim()
    if (value === undefined || value === null) {
      if (sent !== undefined) return `${field} is there, but the body has no ${path.join('.')}`
    } else if (sent === undefined) return `${field} is missing, and the body has ${path.join('.')}`
    else if (!isSame(sent, value)) return `${field} is not what the body has as ${path.join('.')}`
  }
  return undefined
}

function isSame(sent: string, value: unknown): boolean {
  const decoded = decodeHeaderValue(sent)
  if (decoded === undefined) return false
  return typeof value === 'number' ? decoded !== '' && Number(decoded) === value : decoded === String(value)
}

/** Undefined for what no header may hold, and for base64 that is none. */
function decodeHeaderValue(text: string): string | undefined {
  const [, encoded] = /^=\?base64\?(.*)\?=$/s.exec(text) ?? []
  if (encoded === undefined) return /^[\x20-\x7e\t]*$/.test(text) ? text : undefined
  const bytes = Buffer.from(encoded, 'base64')
  return bytes.toString('base64') === encoded ? bytes.toString('utf8') : undefined
}
