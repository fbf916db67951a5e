import { Ajv, type ErrorObject, type Options, type ValidateFunction } from 'ajv'
import { Ajv2019 } from 'ajv/dist/2019.js'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { isJsonObject, type JsonObject } from '../json.js'

// Larger schemas are not checked against either, see argument-check.ts.
const MAX_LENGTH = 256 * 1024
const MAX_SUBSCHEMAS = 10_000
const MAX_LEVELS = 64
// A level of `properties` nests twice in JSON, and a list in an example may add a little.
const MAX_DEPTH = 2 * MAX_LEVELS + 8

/**
 * Why a tool's schema cannot be used, in words; undefined when it can. A schema that is not valid, that needs another
 * document or that contains itself makes model APIs and clients refuse everything that is sent along with it.
 * Nothing is fetched, no pattern is compiled, and the work is linear in the size of the schema.
 */
export function problemWithSchema(schema: unknown, use: 'input' | 'output'): string | undefined {
  if (!isJsonObject(schema)) return 'it is not an object'
  const tooMuch = problemWithSize(schema)
  if (tooMuch !== undefined) return tooMuch
  const validate = metaschemaFor(schema.$schema)
  if (!validate) return `the dialect ${quote(schema.$schema)} is not known`
  if (use === 'input' && schema.type !== undefined && schema.type !== 'object')
    return `its type is ${quote(schema.type)}, not "object"`
  return problemWithKeywords(schema, validate) ?? problemWithReferences(schema, validate)
}

/** Level by level: whatever comes later may recurse into what passes. */
function problemWithSize(schema: JsonObject): string | undefined {
  let length = 0
  let level: readonly unknown[] = [schema]
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) return 'it is nested too deeply'
    const next: unknown[] = []
    for (const value of level) {
      length += typeof value === 'string' ? value.length + 3 : 3
      if (length > MAX_LENGTH) return `it is larger than ${MAX_LENGTH / 1024} KiB`
      if (Array.isArray(value)) for (const item of value) next.push(item)
      else if (isJsonObject(value)) {
        for (const key of Object.keys(value)) {
          length += key.length + 3
          next.push(value[key])
        }
      }
    }
    level = next
  }
  return undefined
}

const OPTIONS: Options = {
  strict: false,
  logger: false,
  validateFormats: false, // `format: regex` would compile patterns
}
const DIALECT = /^https?:\/\/json-schema\.org\/(draft-0[67]|draft\/2019-09|draft\/2020-12)\/schema#?$/
const DRAFT_07 = 'http://json-schema.org/draft-07/schema'
const DRAFT_2019 = 'https://json-schema.org/draft/2019-09/schema'
const DRAFT_2020 = 'https://json-schema.org/draft/2020-12/schema'
const metaschemas = new Map<string, ValidateFunction | undefined>()

/** Compiled on first use, once a process. */
function metaschemaFor(dialect: unknown = DRAFT_2020): ValidateFunction | undefined {
  const name = typeof dialect === 'string' ? DIALECT.exec(dialect)?.[1] : undefined
  if (name === undefined) return undefined
  const known = metaschemas.get(name) ?? compileMetaschema(name)
  metaschemas.set(name, known)
  return known
}

function compileMetaschema(name: string): ValidateFunction | undefined {
  if (name === 'draft/2020-12') return withLinearKeywords(new Ajv2020(OPTIONS)).getSchema(DRAFT_2020)
  if (name === 'draft/2019-09') return withLinearKeywords(new Ajv2019(OPTIONS)).getSchema(DRAFT_2019)
  return withLinearKeywords(new Ajv(OPTIONS)).getSchema(DRAFT_07) // what holds in draft 6 holds in it too
}

/** Ajv compares each item with each other one. */
function withLinearKeywords(ajv: Ajv): Ajv {
  return ajv.removeKeyword('uniqueItems').addKeyword({
    keyword: 'uniqueItems',
    type: 'array',
    validate: (wanted: boolean, items: readonly unknown[]) =>
      !wanted || new Set(items.map(item => JSON.stringify(item))).size === items.length,
    error: { message: 'must not have an item twice' },
  })
}

function problemWithKeywords(schema: JsonObject, validate: ValidateFunction): string | undefined {
  if (validate(schema)) return undefined
  const [first] = validate.errors ?? []
  const path = first?.instancePath ?? ''
  return `${path === '' ? 'it' : quote(path)} ${first ? sentenceOf(first) : 'is not valid'}`
}

function sentenceOf({ keyword, message = 'is not valid', params }: ErrorObject): string {
  if (keyword === 'enum') return `must be one of ${params.allowedValues.join(', ')}`
  return keyword === 'type' ? `must be ${[params.type].flat().join(' or ')}` : message
}

interface Reference {
  readonly text: string
  readonly from: Subschema
}

interface Subschema {
  /** What its references are relative to: the whole, or the part around it that has an `$id`. */
  readonly base: JsonObject
  /** What applies when it does: the schemas it contains, definitions aside, and those it refers to. */
  readonly applies: { readonly schema: JsonObject; readonly reference?: string }[]
}

interface Walk {
  readonly subschemas: Map<JsonObject, Subschema>
  readonly references: Reference[]
  /** The schemas by name, of each base. */
  readonly anchors: Map<JsonObject, Map<string, JsonObject>>
  /** Schemas that are only referred to, with the reference: the metaschema knows nothing of them. */
  readonly strays: Map<JsonObject, string>
}

function problemWithReferences(root: JsonObject, validate: ValidateFunction): string | undefined {
  const walk: Walk = { subschemas: new Map(), references: [], anchors: new Map(), strays: new Map() }
  const tooMuch = collect(walk, root, { base: root, level: 0 })
  if (tooMuch !== undefined) return tooMuch
  for (const { text, from } of walk.references) {
    if (text !== '' && !text.startsWith('#')) return `the reference ${quote(text)} points outside of the schema`
    const target = resolveReference(walk, text, from.base)
    if (typeof target === 'boolean') continue
    if (!isJsonObject(target)) return `the reference ${quote(text)} points nowhere`
    from.applies.push({ schema: target, reference: text })
    if (walk.subschemas.has(target)) continue
    walk.strays.set(target, text)
    const tooMuch = collect(walk, target, { base: from.base, level: 0 }) // may add references
    if (tooMuch !== undefined) return tooMuch
  }
  for (const [stray, reference] of walk.strays) {
    const problem = problemWithKeywords(stray, validate)
    if (problem !== undefined) return `where the reference ${quote(reference)} points, ${problem}`
  }
  return problemWithRecursion(walk, root)
}

const ONE_SCHEMA = new Set([
  'additionalItems',
  'additionalProperties',
  'contains',
  'contentSchema',
  'else',
  'if',
  'items',
  'not',
  'propertyNames',
  'then',
  'unevaluatedItems',
  'unevaluatedProperties',
])
const SCHEMAS = new Set(['allOf', 'anyOf', 'items', 'oneOf', 'prefixItems'])
const DEFINITIONS = new Set(['$defs', 'definitions'])
const NAMED_SCHEMAS = new Set(['dependencies', 'dependentSchemas', 'patternProperties', 'properties', ...DEFINITIONS])
const REFERENCES = new Set(['$dynamicRef', '$recursiveRef', '$ref'])

/** Takes in a schema and all that it contains. What stands in `enum`, `const`, `default` or an example is no schema. */
function collect(
  walk: Walk,
  schema: JsonObject,
  { base: outerBase, level }: { readonly base: JsonObject; readonly level: number },
): string | undefined {
  if (walk.subschemas.has(schema)) {
    walk.strays.delete(schema) // it belongs to something that is checked
    return undefined
  }
  if (level > MAX_LEVELS) return 'it is nested too deeply'
  if (walk.subschemas.size >= MAX_SUBSCHEMAS) return `it has more than ${MAX_SUBSCHEMAS} subschemas`
  const base = hasOwnBase(schema) && level > 0 ? schema : outerBase
  const subschema: Subschema = { base, applies: [] }
  walk.subschemas.set(schema, subschema)
  for (const [key, value] of Object.entries(schema)) {
    if (typeof value === 'string') {
      if (REFERENCES.has(key)) walk.references.push({ text: value, from: subschema })
      const name = anchorName(key, value)
      if (name !== undefined && isTaken(walk, { base, name, schema })) return `the name ${quote(name)} is there twice`
      continue
    }
    for (const inner of schemasOf(key, value)) {
      if (!isJsonObject(inner)) continue // true, false, or a list of names in `dependencies`
      if (!DEFINITIONS.has(key)) subschema.applies.push({ schema: inner })
      const problem = collect(walk, inner, { base, level: level + 1 })
      if (problem !== undefined) return problem
    }
  }
  return undefined
}

function schemasOf(keyword: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return SCHEMAS.has(keyword) ? value : []
  if (!isJsonObject(value)) return []
  if (ONE_SCHEMA.has(keyword)) return [value]
  return NAMED_SCHEMAS.has(keyword) ? Object.values(value) : []
}

const hasOwnBase = ({ $id }: JsonObject) => typeof $id === 'string' && $id !== '' && !$id.startsWith('#')

function anchorName(keyword: string, value: string): string | undefined {
  if (keyword === '$anchor' || keyword === '$dynamicAnchor') return value
  return keyword === '$id' && /^#./.test(value) ? value.slice(1) : undefined // drafts 6 and 7
}

interface Anchor {
  readonly base: JsonObject
  readonly name: string
  readonly schema: JsonObject
}

/** Notes the name of a schema, unless another one has it. */
function isTaken({ anchors }: Walk, { base, name, schema }: Anchor): boolean {
  const names = anchors.get(base) ?? new Map<string, JsonObject>()
  const holder = names.get(name) ?? schema
  anchors.set(base, names.set(name, holder))
  return holder !== schema
}

/** What a reference within the document points to: a JSON pointer, or a name (RFC 6901, section 6). */
function resolveReference(walk: Walk, text: string, base: JsonObject): unknown {
  const fragment = decode(text.slice(1))
  if (fragment === '') return base
  if (!fragment?.startsWith('/')) return fragment && walk.anchors.get(base)?.get(fragment)
  let target: unknown = base
  for (const token of fragment.slice(1).split('/')) {
    const key = token.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof target !== 'object' || target === null || !Object.hasOwn(target, key)) return undefined
    target = (target as JsonObject)[key]
  }
  return target
}

function decode(fragment: string): string | undefined {
  try {
    return decodeURIComponent(fragment)
  } catch {
    return undefined
  }
}

/** Finds a way back to where it came from. Definitions that nothing uses may be as recursive as they like. */
function problemWithRecursion({ subschemas }: Walk, root: JsonObject): string | undefined {
  const done = new Map<JsonObject, boolean>([[root, false]])
  // Not by recursion: a chain of references may be as long as the schema.
  const path: { schema: JsonObject; reference?: string | undefined; next: number }[] = [{ schema: root, next: 0 }]
  for (let end = path.at(-1); end; end = path.at(-1)) {
    const step = subschemas.get(end.schema)?.applies[end.next++]
    if (!step) {
      done.set(end.schema, true)
      path.pop()
    } else if (!done.has(step.schema)) {
      done.set(step.schema, false)
      path.push({ ...step, next: 0 })
    } else if (done.get(step.schema) === false) {
      const reference = step.reference ?? path.findLast(entry => entry.reference !== undefined)?.reference
      return `the reference ${quote(reference)} is recursive`
    }
  }
  return undefined
}

const MAX_QUOTE_LENGTH = 80

/** What a server wrote, as a part of one line. */
function quote(value: unknown): string {
  const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  const clean = text.slice(0, MAX_QUOTE_LENGTH).replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, '')
  return `"${clean}${text.length > MAX_QUOTE_LENGTH ? '…' : ''}"`
}
