import { Ajv, type AnySchema, type ErrorObject, type Options } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { RE2JS } from 're2js'
import { isJsonObject } from '../json.js'

/** The first thing about the arguments that the schema does not allow. */
export interface ArgumentProblem {
  /** JSON pointer into the arguments; '' is the whole. */
  readonly path: string
  readonly message: string
  /** The part of the schema that failed, and where it stands in the schema. */
  readonly schema: unknown
  readonly schemaPath: string
}

export type ArgumentCheck = (args: Readonly<Record<string, unknown>>) => ArgumentProblem | undefined

const MAX_SCHEMA_LENGTH = 256 * 1024

const OPTIONS: Options = {
  strict: false, // schemas come from backends: unknown keywords and formats are theirs to know
  logger: false,
  verbose: true, // errors carry the schema part they quote
  // Patterns come from backends too: RE2 matches in linear time, whatever they are.
  code: { regExp: Object.assign(compilePattern, { code: 'compilePattern' }) },
}

/**
 * Compiles a tool's input schema (JSON Schema 2020-12, or draft 7 where `$schema` says so; MCP 2026-07-28, "JSON Schema").
 * A schema that cannot be compiled checks nothing: the backend validates anyway, and its answer is relayed.
 */
export function compileArgumentCheck(inputSchema: unknown): ArgumentCheck {
  const nothing: ArgumentCheck = () => undefined
  try {
    if (!isJsonObject(inputSchema) || JSON.stringify(inputSchema).length > MAX_SCHEMA_LENGTH) return nothing
    const { $schema: dialect, $id: _ignored, ...schema } = inputSchema
    // One instance per schema, so that equal `$id`s of different backends never meet.
    const ajv = typeof dialect === 'string' && /draft-0[67]/.test(dialect) ? new Ajv(OPTIONS) : new Ajv2020(OPTIONS)
    formats.default(ajv)
    // Quadratic in the length of an array; the backend checks it itself.
    ajv.removeKeyword('uniqueItems').addKeyword('uniqueItems')
    let spent = 0
    ajv.addKeyword({
      keyword: BUDGET,
      validate: (cost: number) => {
        spent += cost
        if (spent > MAX_COST) throw new BudgetExceeded()
        return true
      },
    })
    const validate = ajv.compile(metered(schema) as AnySchema)
    return args => {
      spent = 0
      try {
        if (validate(args)) return undefined
      } catch (error) {
        if (error instanceof BudgetExceeded) return undefined // undecided: the backend decides
        return { path: '', message: 'is nested too deeply', schema: {}, schemaPath: '#' }
      }
      const [first] = validate.errors ?? []
      return first && toProblem(first)
    }
  } catch {
    return nothing
  }
}

// A few lines of nested references can ask for more work than there is time: each subschema says what it costs to look at.
const BUDGET = 'x-gateway-budget'
const MAX_COST = 1_000_000

class BudgetExceeded extends Error {}

const SCHEMA_MAPS = new Set(['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas'])
const SCHEMAS = new Set([
  'items',
  'additionalItems',
  'additionalProperties',
  'unevaluatedItems',
  'unevaluatedProperties',
  'contains',
])
const IN_PLACE = new Set(['allOf', 'anyOf', 'oneOf', 'prefixItems', 'not', 'if', 'then', 'else', 'propertyNames'])

/** The schema with its cost written into every subschema. */
function metered(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(metered)
  if (!isJsonObject(schema)) return schema
  const entries = Object.entries(schema).map(([key, value]): [string, unknown] => {
    if (SCHEMAS.has(key) || IN_PLACE.has(key)) return [key, metered(value)]
    if (!SCHEMA_MAPS.has(key) || !isJsonObject(value)) return [key, value]
    return [key, Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, metered(inner)]))]
  })
  const size = Object.values(schema).reduce<number>(
    (sum, value) => sum + (Array.isArray(value) ? value.length : isJsonObject(value) ? Object.keys(value).length : 1),
    1,
  )
  return Object.fromEntries([...entries, [BUDGET, size]]) // last: a schema cannot set its own price
}

/** What is quoted goes to a model, which the meter is no concern of. */
function withoutMeter(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(withoutMeter)
  if (!isJsonObject(schema)) return schema
  return Object.fromEntries(
    Object.entries(schema).flatMap(([key, value]) => (key === BUDGET ? [] : [[key, withoutMeter(value)]])),
  )
}

// What is quoted goes into a model's context.
const MAX_QUOTE_LENGTH = 4_000

function toProblem({
  instancePath,
  message = 'is not valid',
  keyword,
  params,
  schema,
  schemaPath,
  parentSchema,
}: ErrorObject): ArgumentProblem {
  const unexpected =
    keyword === 'additionalProperties' || keyword === 'unevaluatedProperties'
      ? `: ${JSON.stringify(Object.values(params)[0])}`
      : ''
  const keywordAlone = { [keyword]: schema }
  const isShort = parentSchema !== undefined && JSON.stringify(parentSchema).length <= MAX_QUOTE_LENGTH
  return {
    path: instancePath,
    message: `${message}${unexpected}`,
    schema: withoutMeter(isShort ? parentSchema : keywordAlone),
    schemaPath,
  }
}

/** A `pattern` that RE2 cannot express (look-around, back-references) matches everything: the backend decides. */
function compilePattern(pattern: string): { test(text: string): boolean; toString(): string } {
  const asText = () => `/${pattern}/` // Ajv tells patterns apart by this
  try {
    const compiled = RE2JS.compile(RE2JS.translateRegExp(pattern))
    return { test: text => compiled.test(text), toString: asText }
  } catch {
    return { test: () => true, toString: asText }
  }
}
