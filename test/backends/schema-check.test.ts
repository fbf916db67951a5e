import { describe, expect, test } from 'vitest'
import { problemWithSchema } from '../../src/backends/schema-check.js'

const DRAFT_06 = 'http://json-schema.org/draft-06/schema#'
const DRAFT_07 = 'http://json-schema.org/draft-07/schema#'
const DRAFT_2019 = 'https://json-schema.org/draft/2019-09/schema'
const DRAFT_2020 = 'https://json-schema.org/draft/2020-12/schema'

const string = { type: 'string' }
const object = (properties: Record<string, unknown>, rest: Record<string, unknown> = {}) => ({
  type: 'object',
  properties,
  ...rest,
})
const ref = (to: string) => ({ $ref: to })
const problem = (schema: unknown) => problemWithSchema(schema, 'input')

describe('what can be used', () => {
  test.each([
    { name: 'no parameters', schema: { type: 'object' } },
    { name: 'nothing at all', schema: {} },
    { name: 'true and false as schemas', schema: object({ any: true, none: false }, { additionalProperties: false }) },
    { name: 'unknown keywords and formats', schema: object({ a: { type: 'string', format: 'flux', 'x-own': [1] } }) },
    { name: 'choices at the root', schema: { type: 'object', anyOf: [{ required: ['a'] }, { required: ['b'] }] } },
    {
      name: 'a shared definition',
      schema: object({ a: ref('#/$defs/s'), b: ref('#/$defs/s') }, { $defs: { s: string } }),
    },
    { name: 'a reference to another parameter', schema: object({ a: string, b: { items: ref('#/properties/a') } }) },
    { name: 'a reference into a list', schema: object({ a: { anyOf: [string] }, b: ref('#/properties/a/anyOf/0') }) },
    { name: 'a reference to true', schema: object({ a: ref('#/$defs/any') }, { $defs: { any: true } }) },
    {
      name: 'a reference to where only a reference leads',
      schema: object({ a: ref('#/x-own/a') }, { 'x-own': { a: string } }),
    },
    {
      name: 'references with escapes',
      schema: object(
        { a: ref('#/$defs/a~1b~0c'), b: ref('#/$defs/100%25'), c: ref('#/$defs/A%20B'), d: ref('#/$defs/Page<Item>') },
        { $defs: { 'a/b~c': string, '100%': string, 'A B': string, 'Page<Item>': string } },
      ),
    },
    {
      name: 'names',
      schema: object(
        { a: ref('#text'), b: { $dynamicRef: '#more' } },
        { $defs: { text: { $anchor: 'text', ...string }, more: { $dynamicAnchor: 'more' } } },
      ),
    },
    {
      name: 'names, draft 7',
      schema: { $schema: DRAFT_07, ...object({ a: ref('#text') }), definitions: { text: { $id: '#text', ...string } } },
    },
    {
      name: 'references within a part that has an $id',
      schema: object(
        {
          a: {
            $id: 'https://example.com/part',
            $ref: '#/$defs/own',
            $defs: { own: ref('#name'), b: { $anchor: 'name' } },
          },
        },
        { $id: 'https://example.com/whole' },
      ),
    },
    {
      name: 'a recursive definition that nothing uses',
      schema: object(
        { a: ref('#/$defs/text') },
        { $defs: { text: string, node: object({ next: ref('#/$defs/node') }) } },
      ),
    },
    {
      name: 'patterns of other languages',
      schema: object({ a: { pattern: '(?P<year>[0-9]{4})(?i)[' } }, { patternProperties: { '(((a+)+)+)+$[': true } }),
    },
    {
      name: 'a dependency on names',
      schema: { $schema: DRAFT_07, type: 'object', dependencies: { a: ['b'], c: object({}) } },
    },
    { name: 'prototype names', schema: JSON.parse('{"properties":{"__proto__":{"type":"string"},"constructor":{}}}') },
  ])('$name', ({ schema }) => {
    expect(problem(schema)).toBeUndefined()
  })

  test.each(['$ref', '$dynamicRef', '$recursiveRef', '$anchor', '$id', '$defs'])('a parameter named %s', name => {
    expect(problem(object({ [name]: { type: 'string', description: 'https://example.com' } }))).toBeUndefined()
    expect(problem(object({ a: object({ [name]: string }, { required: [name] }) }))).toBeUndefined()
  })

  test.each(['enum', 'examples'])('what looks like a reference in %s', keyword => {
    expect(
      problem(object({ a: { [keyword]: [ref('https://example.com'), ref('#/nowhere'), ref('#')] } })),
    ).toBeUndefined()
  })

  test.each(['const', 'default', 'x-own'])('what looks like a reference in %s', keyword => {
    expect(problem(object({ a: { [keyword]: ref('https://example.com') } }))).toBeUndefined()
    expect(problem(object({ a: { [keyword]: { properties: { b: ref('#') } } } }))).toBeUndefined()
  })
})

describe('dialects', () => {
  const tuple = { type: 'array', items: [string] }

  test.each([
    { dialect: DRAFT_06, schema: object({ tuple }) },
    { dialect: DRAFT_07, schema: object({ tuple }) },
    { dialect: DRAFT_07.replace('http:', 'https:').replace('#', ''), schema: object({ tuple }) },
    { dialect: DRAFT_2019, schema: object({ tuple }, { unevaluatedProperties: false }) },
    { dialect: DRAFT_2020, schema: object({ tuple: { prefixItems: [string] } }) },
    { dialect: `${DRAFT_2020}#`, schema: object({ tuple: { prefixItems: [string] } }) },
  ])('$dialect', ({ dialect, schema }) => {
    expect(problem({ $schema: dialect, ...schema })).toBeUndefined()
    expect(problem({ $schema: dialect, ...schema, required: 'a' })).toBe('"/required" must be array')
    expect(problem({ $schema: dialect, ...schema, not: ref('#/nowhere') })).toContain('nowhere')
  })

  test('without $schema it is 2020-12', () => {
    expect(problem(object({ tuple }))).toBe('"/properties/tuple/items" must be object or boolean')
    expect(problem({ $schema: DRAFT_2020, ...object({ tuple }) })).toContain('/properties/tuple/items')
  })

  test.each([
    'http://json-schema.org/draft-04/schema#',
    'https://example.com/draft-07/schema',
    'https://json-schema.org/draft/2030-01/schema',
    '',
    7,
    null,
  ])('%j is not known', dialect => {
    const text = typeof dialect === 'string' ? dialect : JSON.stringify(dialect)
    expect(problem({ $schema: dialect, type: 'object' })).toBe(`the dialect "${text}" is not known`)
  })
})

describe('what cannot be used', () => {
  test.each([undefined, null, true, 'object', 1, [], [{ type: 'object' }]])('%j is not an object', schema => {
    expect(problem(schema)).toBe('it is not an object')
    expect(problemWithSchema(schema, 'output')).toBe('it is not an object')
  })

  test.each(['string', 'array', ['object'], ['object', 'null'], null, 3])('an input of type %j', type => {
    expect(problem({ type })).toContain('not "object"')
  })

  test('an output may be of any type', () => {
    expect(problemWithSchema({ type: 'array', items: string }, 'output')).toBeUndefined()
    expect(problemWithSchema({ type: 'nonsense' }, 'output')).toContain('"/type" must be one of')
  })

  test.each([
    {
      fault: 'an unknown type',
      schema: object({ a: { type: 'any' } }),
      says: '"/properties/a/type" must be one of array, boolean, integer, null, number, object, string',
    },
    { fault: 'parameters in a list', schema: { type: 'object', properties: [] }, says: '"/properties" must be object' },
    {
      fault: 'a parameter that is none',
      schema: object({ a: 'string' }),
      says: '"/properties/a" must be object or boolean',
    },
    {
      fault: 'required as a flag',
      schema: object({ a: { type: 'string', required: true } }),
      says: '"/properties/a/required" must be array',
    },
    {
      fault: 'a name required twice',
      schema: object({ a: string }, { required: ['a', 'a'] }),
      says: '"/required" must not have an item twice',
    },
    {
      fault: 'an empty choice',
      schema: object({ a: { anyOf: [] } }),
      says: '"/properties/a/anyOf" must NOT have fewer',
    },
    { fault: 'a limit of draft 4', schema: object({ a: { exclusiveMinimum: true } }), says: 'must be number' },
    { fault: 'a negative length', schema: object({ a: { minLength: -1 } }), says: 'must be >= 0' },
    { fault: 'a pattern that is no text', schema: object({ a: { pattern: 1 } }), says: 'must be string' },
    { fault: 'a reference that is no text', schema: object({ a: { $ref: 1 } }), says: 'must be string' },
    { fault: 'a fault deep inside', schema: object({ a: { items: { not: { if: { type: 1 } } } } }), says: 'if/type' },
    { fault: 'a fault in a definition', schema: { $defs: { a: { items: 1 } } }, says: '"/$defs/a/items"' },
    {
      fault: 'a fault where only a reference leads',
      schema: object({ a: ref('#/x-own/a') }, { 'x-own': { a: { type: 'any' } } }),
      says: 'where the reference "#/x-own/a" points, "/type" must be one of',
    },
  ])('$fault', ({ schema, says }) => {
    expect(problem(schema)).toContain(says)
    expect(problemWithSchema(schema, 'output')).toContain(says)
  })
})

describe('references', () => {
  test.each([
    'https://example.com/schema.json',
    'https://example.com/schema.json#/$defs/a',
    '//example.com/a',
    'file:///etc/passwd',
    'other.json',
    '/$defs/a',
    '$defs/a',
    DRAFT_2020,
    'urn:a:b',
  ])('%s points outside', to => {
    const reason = `the reference "${to}" points outside of the schema`
    expect(problem(object({ a: ref(to) }))).toBe(reason)
    expect(problem(object({ a: { $dynamicRef: to } }))).toBe(reason)
    expect(problem(object({}, { $defs: { unused: { items: ref(to) } } }))).toBe(reason)
  })

  test.each(['not', 'if', 'then', 'else', 'contains', 'items', 'propertyNames', 'additionalProperties'])(
    'in %s',
    keyword => {
      expect(problem(object({ a: { [keyword]: ref('https://example.com') } }))).toContain('outside')
      expect(problem(object({ a: { [keyword]: ref('#/properties/a') } }))).toContain('is recursive')
    },
  )

  test.each(['allOf', 'anyOf', 'oneOf', 'prefixItems'])('in %s', keyword => {
    expect(problem(object({ a: { [keyword]: [string, ref('https://example.com')] } }))).toContain('outside')
    expect(problem(object({ a: { [keyword]: [string, ref('#/properties/a')] } }))).toContain('is recursive')
  })

  test.each(['properties', 'patternProperties', 'dependentSchemas', 'dependencies'])('in %s', keyword => {
    expect(problem(object({ a: { [keyword]: { b: ref('https://example.com') } } }))).toContain('outside')
    expect(problem(object({ a: { [keyword]: { b: ref('#/properties/a') } } }))).toContain('is recursive')
  })

  test.each([
    '#/$defs/missing',
    '#/definitions/text',
    '#/$defs/text/items',
    '#/$defs/text/type',
    '#/$defs/list/anyOf',
    '#/$defs/list/anyOf/1',
    '#/$defs/list/anyOf/length',
    '#/$defs/__proto__',
    '#/constructor',
    '#/toString/name',
    '#text',
    '#%',
    '#/$defs/%E0%A4%A',
    '#/',
  ])('%s points nowhere', to => {
    const schema = object({ a: ref(to) }, { $defs: { text: string, list: { anyOf: [string] } } })
    expect(problem(schema)).toBe(`the reference "${to}" points nowhere`)
  })

  test('within a part that has an $id, the whole is out of reach', () => {
    const part = { $id: 'https://example.com/part', properties: { b: ref('#/$defs/text') } }
    expect(problem(object({ a: part }, { $defs: { text: string } }))).toBe(
      'the reference "#/$defs/text" points nowhere',
    )
    const named = { $id: 'https://example.com/part', properties: { b: ref('#text') } }
    expect(problem(object({ a: named }, { $defs: { text: { $anchor: 'text' } } }))).toContain('"#text" points nowhere')
  })

  test('a name that is there twice points nowhere in particular', () => {
    const named = { $anchor: 'a' }
    expect(problem(object({ a: named, b: { ...named, ...string } }))).toBe('the name "a" is there twice')
    expect(problem(object({ a: { ...named, $dynamicAnchor: 'a' } }))).toBeUndefined()
    expect(problem(object({ a: { $id: '#' }, b: { $id: '#' } }))).toBeUndefined()
    expect(problem(object({ a: named, b: { $id: 'https://example.com/part', not: { ...named } } }))).toBeUndefined()
  })

  test.each([
    { name: 'the schema itself', schema: object({ a: ref('#') }), to: '#' },
    { name: 'the schema itself, empty', schema: object({ a: { items: ref('') } }), to: '' },
    { name: 'itself', schema: object({ a: ref('#/properties/a') }), to: '#/properties/a' },
    { name: 'what it stands in', schema: object({ a: { items: ref('#/properties/a') } }), to: '#/properties/a' },
    {
      name: 'a definition of itself',
      schema: object({ root: ref('#/$defs/node') }, { $defs: { node: object({ next: ref('#/$defs/node') }) } }),
      to: '#/$defs/node',
    },
    {
      name: 'two definitions of each other',
      schema: object(
        { root: ref('#/$defs/a') },
        { $defs: { a: { items: ref('#/$defs/b') }, b: { anyOf: [{ type: 'null' }, ref('#/$defs/a')] } } },
      ),
      to: '#/$defs/a',
    },
    {
      name: 'a name',
      schema: object({ root: { $anchor: 'node', items: { $dynamicRef: '#node' } } }),
      to: '#node',
    },
    {
      name: 'a recursive reference',
      schema: { $schema: DRAFT_2019, ...object({ children: { items: { $recursiveRef: '#' } } }) },
      to: '#',
    },
    {
      name: 'the part that has an $id',
      schema: object({ a: { $id: 'https://example.com/part', items: ref('#') } }),
      to: '#',
    },
    {
      name: 'a part of what refers to it',
      schema: object({ a: ref('#/$defs/b/items') }, { $defs: { b: { items: { not: ref('#/$defs/b') } } } }),
      to: '#/$defs/b',
    },
    {
      name: 'where only references lead',
      schema: object({ a: ref('#/x-own/a') }, { 'x-own': { a: { items: ref('#/x-own/a') } } }),
      to: '#/x-own/a',
    },
  ])('to $name is recursive', ({ schema, to }) => {
    expect(problem(schema)).toBe(`the reference "${to}" is recursive`)
    expect(problemWithSchema(schema, 'output')).toBe(`the reference "${to}" is recursive`)
  })
})

describe('too much', () => {
  const nested = (levels: number) => JSON.parse(`${'{"not":'.repeat(levels)}{}${'}'.repeat(levels)}`) as unknown

  test('levels', () => {
    expect(problem(nested(64))).toBeUndefined()
    expect(problem(nested(65))).toBe('it is nested too deeply')
    const properties = (levels: number): unknown => (levels === 0 ? {} : object({ a: properties(levels - 1) }))
    expect(problem(properties(64))).toBeUndefined()
    expect(problem(properties(65))).toBe('it is nested too deeply')
    expect(problem(nested(100_000))).toBe('it is nested too deeply')
  })

  test.each(['default', 'const', 'x-own'])('levels in %s', keyword => {
    expect(problem({ [keyword]: nested(1_000) })).toBe('it is nested too deeply')
    expect(problem({ [keyword]: nested(20) })).toBeUndefined()
  })

  test('size', () => {
    expect(problem(object({ a: { description: 'x'.repeat(200_000) } }))).toBeUndefined()
    expect(problem(object({ a: { description: 'x'.repeat(300_000) } }))).toBe('it is larger than 256 KiB')
    expect(problem(object({ ['x'.repeat(300_000)]: {} }))).toBe('it is larger than 256 KiB')
    expect(problem({ enum: Array.from({ length: 1_000_000 }, () => 1) })).toBe('it is larger than 256 KiB')
  })

  test('subschemas', () => {
    const choices = (count: number) => ({ anyOf: Array.from({ length: count }, () => ({})) })
    expect(problem(choices(9_999))).toBeUndefined()
    expect(problem(choices(10_000))).toBe('it has more than 10000 subschemas')
  })

  test('a value that contains itself', () => {
    const loop: Record<string, unknown> = {}
    loop.not = loop
    expect(problem(loop)).toBe('it is nested too deeply')
  })
})

describe('hostile schemas', () => {
  const definitions = (count: number, toSchema: (index: number) => unknown) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`d${index}`, toSchema(index)]))

  test.each([
    {
      name: 'references that fan out without end',
      schema: object(
        { a: ref('#/$defs/d0') },
        { $defs: { ...definitions(60, i => ({ allOf: Array(40).fill(ref(`#/$defs/d${i + 1}`)) })), d60: string } },
      ),
      reason: undefined,
    },
    {
      name: 'a chain of thousands of references',
      schema: object(
        { a: ref('#/$defs/d0') },
        { $defs: { ...definitions(4_000, i => ref(`#/$defs/d${i + 1}`)), d4000: string } },
      ),
      reason: undefined,
    },
    {
      name: 'a circle of thousands of references',
      schema: object({ a: ref('#/$defs/d0') }, { $defs: definitions(4_000, i => ref(`#/$defs/d${(i + 1) % 4_000}`)) }),
      reason: 'the reference "#/$defs/d0" is recursive',
    },
    {
      name: 'a chain that only references lead along, from the inside out',
      schema: object(
        { a: ref(`#${'/x'.repeat(100)}`) },
        { x: Array.from({ length: 100 }).reduce((x, _, i) => ({ x, ...ref(`#${'/x'.repeat(100 - i)}`) }), {}) },
      ),
      reason: expect.stringContaining('is recursive'),
    },
    {
      name: 'names by the ten thousand',
      schema: object({}, { required: Array.from({ length: 20_000 }, (_, i) => `n${i}`) }),
      reason: undefined,
    },
    {
      name: 'types by the ten thousand',
      schema: object({ a: { type: Array.from({ length: 20_000 }, (_, i) => `t${i}`) } }),
      reason: expect.stringContaining('/properties/a/type'),
    },
    {
      name: 'choices by the ten thousand, draft 7',
      schema: { $schema: DRAFT_07, enum: Array.from({ length: 15_000 }, (_, i) => [i]) },
      reason: undefined,
    },
    {
      name: 'a reference that is one long path',
      schema: { $ref: `#${'/x'.repeat(100_000)}` },
      reason: expect.stringContaining('points nowhere'),
    },
    {
      name: 'patterns that never end',
      schema: object({ a: { pattern: `${'(a+)+'.repeat(1_000)}$` } }, { patternProperties: { '^(a|a)*$': {} } }),
      reason: undefined,
    },
  ])('$name', ({ schema, reason }) => {
    const started = performance.now()
    expect(problem(schema)).toEqual(reason)
    expect(performance.now() - started).toBeLessThan(2_000)
  })

  const evil = `a\u0000b\u001b[2J\nc\u202ed\u2028\ud800${'é'.repeat(5_000)}`

  test.each([
    { $schema: evil },
    { type: evil },
    { type: { [evil]: evil } },
    { $ref: evil },
    { $ref: `#${evil}` },
    { properties: { [evil]: { type: evil } } },
    { properties: { [evil]: ref('#') } },
    { properties: { a: ref(`#/x-own/${encodeURIComponent('é'.repeat(500))}`) }, 'x-own': { ['é'.repeat(500)]: evil } },
    { properties: { a: ref(`#/x-own/${'é'.repeat(500)}`) }, 'x-own': { ['é'.repeat(500)]: { [evil]: 1, type: evil } } },
  ])('are described in one short line: %#', schema => {
    const reason = problem(schema)
    expect(reason).toMatch(/^[^\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]{10,200}$/u)
  })

  test('a check leaves the schema as it is', () => {
    const deepFreeze = <T>(value: T): T => {
      if (typeof value === 'object' && value !== null) Object.values(Object.freeze(value)).forEach(deepFreeze)
      return value
    }
    const schema = deepFreeze(object({ a: ref('#/$defs/a') }, { $defs: { a: string }, default: {} }))
    expect(problem(schema)).toBeUndefined()
    expect(problem(schema)).toBeUndefined()
  })
})
