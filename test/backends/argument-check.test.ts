import { describe, expect, test } from 'vitest'
import { compileArgumentCheck } from '../../src/backends/argument-check.js'

const DRAFT_07 = 'http://json-schema.org/draft-07/schema#'
const DRAFT_2020 = 'https://json-schema.org/draft/2020-12/schema'

const object = (properties: Record<string, unknown>, rest: Record<string, unknown> = {}) => ({
  type: 'object',
  properties,
  ...rest,
})
const string = { type: 'string' }
const check = (schema: unknown, args: Record<string, unknown>) => compileArgumentCheck(schema)(args)

describe('the error quotes the part of the schema that failed, and where', () => {
  const limit = { type: 'integer', minimum: 1, description: 'how many' }

  test.each([
    {
      fault: 'a value out of range',
      schema: object({ page: object({ limit }) }),
      args: { page: { limit: 0 } },
      problem: {
        path: '/page/limit',
        message: 'must be >= 1',
        schema: limit,
        schemaPath: '#/properties/page/properties/limit/minimum',
      },
    },
    {
      fault: 'a wrong type',
      schema: object({ limit }),
      args: { limit: 'ten' },
      problem: { path: '/limit', message: 'must be integer', schema: limit, schemaPath: '#/properties/limit/type' },
    },
    {
      fault: 'a missing property',
      schema: object({ a: string }, { required: ['a'] }),
      args: {},
      problem: {
        path: '',
        message: "must have required property 'a'",
        schema: object({ a: string }, { required: ['a'] }),
        schemaPath: '#/required',
      },
    },
    {
      fault: 'an item of a list',
      schema: object({ list: { type: 'array', items: string } }),
      args: { list: ['a', 2] },
      problem: {
        path: '/list/1',
        message: 'must be string',
        schema: string,
        schemaPath: '#/properties/list/items/type',
      },
    },
    {
      fault: 'a value that is none of the choices',
      schema: object({ color: { enum: ['red', 'blue'] } }),
      args: { color: 'green' },
      problem: { path: '/color', schema: { enum: ['red', 'blue'] }, schemaPath: '#/properties/color/enum' },
    },
    {
      fault: 'a name that needs escaping in a JSON pointer',
      schema: object({ 'a/b~c': string }),
      args: { 'a/b~c': 1 },
      problem: { path: '/a~1b~0c', schema: string },
    },
  ])('$fault', ({ schema, args, problem }) => {
    expect(check(schema, args)).toMatchObject(problem)
  })

  test.each(['additionalProperties', 'unevaluatedProperties'])('%s names the property', keyword => {
    const schema = object({ query: string }, { [keyword]: false })
    expect(check(schema, { query: 'a', qeury: 'b' })).toMatchObject({
      path: '',
      message: expect.stringContaining('"qeury"'),
    })
  })

  test('a long part is not quoted whole', () => {
    const long = { type: 'string', minLength: 3, description: 'x'.repeat(10_000) }
    expect(check(object({ text: long }), { text: 'a' })?.schema).toEqual({ minLength: 3 })
  })

  test('arguments that fit are no problem', () => {
    expect(
      check(object({ limit, when: { type: 'string', format: 'date-time' } }), {
        limit: 3,
        when: '2026-01-01T00:00:00Z',
      }),
    ).toBeUndefined()
  })
})

describe('dialects', () => {
  const tuple2020 = object({ pair: { type: 'array', prefixItems: [string, { type: 'integer' }], items: false } })
  const tuple07 = object({ pair: { type: 'array', items: [string, { type: 'integer' }], additionalItems: false } })

  test.each([
    { dialect: 'none (2020-12)', schema: tuple2020 },
    { dialect: '2020-12', schema: { $schema: DRAFT_2020, ...tuple2020 } },
    { dialect: 'draft-07', schema: { $schema: DRAFT_07, ...tuple07 } },
    { dialect: 'draft-07 over https', schema: { $schema: DRAFT_07.replace('http:', 'https:'), ...tuple07 } },
  ])('$dialect', ({ schema }) => {
    expect(check(schema, { pair: ['a', 1] })).toBeUndefined()
    expect(check(schema, { pair: ['a', 'b'] })).toMatchObject({ path: '/pair/1' })
    expect(check(schema, { pair: ['a', 1, 2] })).toMatchObject({ path: '/pair' })
  })

  test('$defs and $ref, recursive ones too', () => {
    const node = object({ next: { $ref: '#/$defs/node' }, value: { type: 'integer' } })
    const schema = object({ root: { $ref: '#/$defs/node' } }, { $defs: { node } })
    expect(check(schema, { root: { next: { next: { value: 1 } } } })).toBeUndefined()
    expect(check(schema, { root: { next: { next: { value: 'x' } } } })).toMatchObject({ path: '/root/next/next/value' })
  })

  test('$ref to the schema itself', () => {
    const schema = object({ next: { $ref: '#' }, value: { type: 'integer' } })
    expect(check(schema, { next: { next: { value: 1 } } })).toBeUndefined()
    expect(check(schema, { next: { next: { value: 'x' } } })).toMatchObject({ path: '/next/next/value' })
  })

  test('equal $ids of different schemas do not meet', () => {
    const $id = 'https://example.com/schema'
    const checks = [string, { type: 'integer' }].map(a => compileArgumentCheck({ $id, ...object({ a }) }))
    expect(checks.map(each => each({ a: 1 })?.path)).toEqual(['/a', undefined])
    expect(checks.map(each => each({ a: 'x' })?.path)).toEqual([undefined, '/a'])
  })
})

describe('a schema that cannot be compiled checks nothing', () => {
  test.each([
    { fault: 'an unknown type', schema: object({ a: { type: 'nonsense' } }) },
    { fault: 'a keyword of the wrong kind', schema: object({ a: string }, { required: 'a' }) },
    { fault: 'a reference to nowhere', schema: object({ a: { $ref: '#/$defs/missing' } }) },
    { fault: 'a reference to another document', schema: object({ a: { $ref: 'https://example.com/other.json' } }) },
    {
      fault: 'a dialect of the past',
      schema: {
        $schema: 'http://json-schema.org/draft-04/schema#',
        ...object({ a: { minimum: 1, exclusiveMinimum: true } }),
      },
    },
    { fault: 'far too long', schema: object({ a: { type: 'integer', description: 'x'.repeat(300_000) } }) },
    { fault: 'no object', schema: 'string' },
    { fault: 'null', schema: null },
    { fault: 'undefined', schema: undefined },
  ])('$fault', ({ schema }) => {
    expect(check(schema, { a: 'anything', b: {} })).toBeUndefined()
  })

  test('unknown keywords and formats are not faults', () => {
    const schema = object({ a: { type: 'integer', format: 'flux-capacitor', 'x-mcp-header': 'A' } }, { 'x-own': 1 })
    expect(check(schema, { a: 1 })).toBeUndefined()
    expect(check(schema, { a: 'x' })).toMatchObject({ path: '/a' })
  })
})

describe('hostile schemas cost no more than friendly ones', () => {
  const hostile = `${'a'.repeat(50_000)}!`

  test.each(['^(a+)+$', '^(a|a)*$', '^(.*a){20}$'])('the pattern %s', pattern => {
    const started = performance.now()
    expect(check(object({ text: { type: 'string', pattern } }), { text: hostile })).toMatchObject({ path: '/text' })
    expect(check(object({}, { patternProperties: { [pattern]: false } }), { [hostile]: 1 })).toBeUndefined()
    expect(performance.now() - started).toBeLessThan(5_000)
  })

  test('a pattern beyond RE2 matches everything', () => {
    expect(check(object({ text: { type: 'string', pattern: '^(?!x).*(a)\\1$' } }), { text: 'x' })).toBeUndefined()
  })

  test('ordinary patterns do hold, each its own', () => {
    const schema = object({ code: { pattern: '^\\p{Lu}\\d{2,3}$' }, tag: { pattern: '^#\\w+#\\w+$' } })
    expect(check(schema, { code: 'Ä123', tag: '#a#b' })).toBeUndefined()
    expect(check(schema, { code: 'ä123', tag: '#a#b' })).toMatchObject({ path: '/code' })
    expect(check(schema, { code: 'Ä123', tag: 'a#b' })).toMatchObject({ path: '/tag' })
  })

  test('uniqueItems over 100,000 objects', () => {
    const schema = object({ list: { type: 'array', uniqueItems: true, items: { type: 'object' } } })
    const list = Array.from({ length: 100_000 }, (_, i) => ({ i }))
    const started = performance.now()
    expect(check(schema, { list })).toBeUndefined()
    expect(performance.now() - started).toBeLessThan(5_000)
  })

  test('a recursive schema over arguments nested 100,000 deep', () => {
    const schema = object({ a: { $ref: '#/$defs/node' } }, { $defs: { node: object({ a: { $ref: '#/$defs/node' } }) } })
    const args = JSON.parse(`${'{"a":'.repeat(100_000)}{}${'}'.repeat(100_000)}`) as Record<string, unknown>
    expect(() => check(schema, args)).not.toThrow()
  })
})
