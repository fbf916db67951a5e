import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileGlob } from '../../src/rules/glob.js'

describe('compileGlob', () => {
  test.each<[pattern: string, matching: string[], others: string[]]>([
    ['query', ['query'], ['Query', 'query2', 'a query', 'quer', '']],
    ['', [''], ['a', '*']],
    ['*', ['', 'a', 'a/b', '..', '.', 'a\nb', '\0', '\u{1F600}'], []],
    ['**', ['', 'a/b/c'], []],
    [
      'drop_*',
      ['drop_', 'drop_table', 'drop_a/b', 'drop_..', 'drop_a\nb'],
      ['drop', 'a_drop_b', 'Drop_table', '\ndrop_a'],
    ],
    ['*_user', ['_user', 'get_user', 'a\n_user'], ['get_users', 'get_user\n']],
    ['*get*', ['get', 'forget', 'get/it'], ['g-et']],
    ['a*b*c', ['abc', 'aXbXc', 'abcbc'], ['ac', 'acb']],
    ['?', ['a', '/', '.', '\n', '\u{1F600}'], ['', 'ab']],
    ['a?c', ['abc', 'a/c', 'a?c'], ['ac', 'abbc']],
    ['[ab]', ['a', 'b'], ['c', 'ab', '', '[ab]']],
    ['db-[0-9]', ['db-0', 'db-9'], ['db-a', 'db-10', 'db-']],
    ['[a-c]x', ['ax', 'cx'], ['dx', '-x']],
    ['[!a]', ['b', '/', '\n'], ['a', '']],
    ['[^a-c]', ['d'], ['b']],
    ['[a-]', ['a', '-'], ['b']],
    ['[]]', [']'], ['[', '']],
    ['[]*', ['[]', '[]a'], ['a', ']']],
    ['[!]*', ['[!]', '[!]a'], ['a']],
    ['a[b*', ['a[b', 'a[bc'], ['ab']],
    ['[*]', ['*'], ['a']],
    ['*[?]', ['?', 'why?'], ['why']],
    ['a.b*', ['a.bc'], ['aXbc']],
    ['(a|b)*', ['(a|b)'], ['a', 'b']],
    ['{a,b}*', ['{a,b}'], ['a', 'b']],
    ['\\*', ['\\', '\\a'], ['*']],
  ])('%j', (pattern, matching, others) => {
    const matches = compileGlob(pattern)
    expect(matching.filter(name => !matches(name))).toEqual([])
    expect(others.filter(matches)).toEqual([])
  })

  test('many stars against a long name do not multiply', () => {
    const name = 'a'.repeat(20_000)
    expect(compileGlob('a*'.repeat(50))(name)).toBe(true)
    expect(compileGlob(`${'*a'.repeat(50)}*b`)(name)).toBe(false)
    expect(compileGlob(`${'?*'.repeat(50)}b`)(name)).toBe(false)
    expect(compileGlob('*'.repeat(20_000))(name)).toBe(true)
  })
})

// A pattern as a list of parts that know what they match, so that the reference needs no parser.
interface Part {
  readonly text: string
  readonly matches: 'many' | ((character: string) => boolean)
}

const alphabet = ['a', 'b', 'c', 'd', '.', '/', '\n', '\u{1F600}']
const character = fc.constantFrom(...alphabet)
const part: fc.Arbitrary<Part> = fc.oneof(
  character.map(text => ({ text, matches: (name: string) => name === text })),
  fc.constant<Part>({ text: '*', matches: 'many' }),
  fc.constant<Part>({ text: '?', matches: () => true }),
  fc.record({ negation: fc.constantFrom('', '!', '^'), members: fc.subarray(alphabet, { minLength: 1 }) }).map(
    ({ negation, members }): Part => ({
      text: `[${negation}${members.join('')}]`,
      matches: name => members.includes(name) === (negation === ''),
    }),
  ),
  fc.constant<Part>({ text: '[b-d]', matches: name => ['b', 'c', 'd'].includes(name) }),
)

function matchesNaively([first, ...rest]: readonly Part[], name: readonly string[]): boolean {
  if (first === undefined) return name.length === 0
  if (first.matches === 'many')
    return matchesNaively(rest, name) || (name.length > 0 && matchesNaively([first, ...rest], name.slice(1)))
  const [head, ...tail] = name
  return head !== undefined && first.matches(head) && matchesNaively(rest, tail)
}

test('compileGlob agrees with a matcher that tries everything', () => {
  fc.assert(
    fc.property(fc.array(part, { maxLength: 6 }), fc.array(character, { maxLength: 7 }), (parts, name) => {
      const pattern = parts.map(({ text }) => text).join('')
      expect(compileGlob(pattern)(name.join(''))).toBe(matchesNaively(parts, name))
    }),
    { numRuns: 3000 },
  )
})
