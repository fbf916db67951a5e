import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseJsonDocument, readJsonDocument } from '../../src/config/json-document.js'

const parse = (text: string) => parseJsonDocument('f.json', text)
const pathsOf = (text: string) => parse(text).problems.map(({ path }) => path)

describe('what is read', () => {
  test.each([
    ['comments', '{ // one\n "a": /* two */ 1 }'],
    ['trailing commas', '{ "a": 1, }'],
    ['a byte order mark', '\uFEFF{ "a": 1 }'],
    ['Windows line ends', '{\r\n  "a": 1\r\n}\r\n'],
  ])('%s', (_, text) => {
    expect(parse(text)).toEqual({ file: 'f.json', value: { a: 1 }, problems: [] })
  })

  test('every kind of value', () => {
    const value = { text: 'a "b" \u{1F600}\n', list: [1, -2.5e3, true, false, null, []], constructor: {} }
    expect(parse(JSON.stringify(value))).toMatchObject({ value, problems: [] })
  })
})

describe('what is refused, with line and column', () => {
  test.each([
    ['an empty file', '', '1:1'],
    ['a file of comments', '// nothing', '1:11'],
    ['a missing brace', '{\n  "a": 1\n', '3:1'],
    ['a missing comma', '{\n  "a": 1\n  "b": 2\n}', '3:3'],
    ['something after the end', '{}\n{}', '2:1'],
    ['a bare word', '{ "a": yes }', '1:8'],
    ['single quotes', "{ 'a': 1 }", '1:3'],
  ])('%s', (_, text, position) => {
    expect(parse(text).value).toBeUndefined()
    expect(pathsOf(text)[0]).toBe(position)
  })

  test('a file that nests without end is a problem, not a crash', () => {
    expect(parse('['.repeat(100_000)).problems).not.toEqual([])
  })
})

describe('keys that JSON.parse would take in silence', () => {
  test('a duplicate is reported with its path, the first one counts', () => {
    const { value, problems } = parse('{ "s": [{ "a": { "x": 1 }, "a": { "x": 2 } }] }')
    expect(problems).toMatchObject([{ file: 'f.json', path: 's[0].a' }])
    expect(value).toEqual({ s: [{ a: { x: 1 } }] })
  })

  test('duplicates are found behind escapes', () => {
    expect(pathsOf('{ "a": 1, "\\u0061": 2 }')).toEqual(['a'])
  })

  test('__proto__ is reported and sets no prototype', () => {
    const { value, problems } = parse('{ "s": { "__proto__": { "isAdmin": true } } }')
    expect(problems).toMatchObject([{ path: 's.__proto__' }])
    expect(value).toEqual({ s: {} })
    expect(value).not.toHaveProperty('s.isAdmin')
  })
})

describe('readJsonDocument', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'gateway-config-'))
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  test('reads a file', async () => {
    const file = join(directory, 'a.json')
    await writeFile(file, '{ "a": 1 }')
    expect(await readJsonDocument(file)).toEqual({ file, value: { a: 1 }, problems: [] })
  })

  test('a missing file and a directory are problems of that file', async () => {
    for (const file of [join(directory, 'missing.json'), directory]) {
      const document = await readJsonDocument(file)
      expect(document).toMatchObject({ value: undefined, problems: [{ file, path: '' }] })
    }
  })
})
