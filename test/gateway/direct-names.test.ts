import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { splitDirectName, toDirectName } from '../../src/gateway/direct-names.js'

const name = fc.oneof(
  fc.stringMatching(/^[A-Za-z0-9_-]{1,40}$/),
  fc.stringMatching(/^[ab_]{1,6}$/),
  fc.string({ minLength: 1, maxLength: 80, unit: 'grapheme' }),
)

describe('the direct name of a tool', () => {
  test.each([
    ['db', 'query', 'db__query'],
    ['my-db', 'list_tables', 'my-db__list_tables'],
    ['a', '_b', 'a___b'],
    ['a', 'b__c', 'a__b__c'],
  ])('%s, %s → %s', (server, tool, expected) => {
    expect(toDirectName(server, tool)).toBe(expected)
    expect(splitDirectName(expected)).toEqual({ server, tool })
  })

  test.each([
    ['a_', 'b'],
    ['a__b', 'c'],
    ['my server', 'query'],
    ['db', 'query.all'],
    ['db', 'ü'],
    ['db', 'x'.repeat(70)],
  ])('%s, %s gets a hash', (server, tool) => {
    expect(toDirectName(server, tool)).toMatch(/^[A-Za-z0-9_-]{1,55}_[0-9a-f]{8}$/)
  })

  test('is what it was, whatever else there is: these were written down', () => {
    expect(toDirectName('my server', 'query')).toBe('my_server__query_20459e76')
    expect(toDirectName('db', 'x'.repeat(70))).toBe(`db__${'x'.repeat(51)}_acfbbb87`)
  })

  test('is legal', () => {
    fc.assert(fc.property(name, name, (server, tool) => /^[A-Za-z0-9_-]{1,64}$/.test(toDirectName(server, tool))))
  })

  test('stands for one tool only', () => {
    const pair = fc.tuple(name, name)
    fc.assert(
      fc.property(pair, pair, ([server, tool], [otherServer, otherTool]) => {
        fc.pre(server !== otherServer || tool !== otherTool)
        return toDirectName(server, tool) !== toDirectName(otherServer, otherTool)
      }),
    )
  })

  test('that is plain splits into what it was made of', () => {
    fc.assert(
      fc.property(name, name, (server, tool) => {
        const direct = toDirectName(server, tool)
        const parts = splitDirectName(direct)
        return direct !== `${server}__${tool}` || (parts?.server === server && parts.tool === tool)
      }),
    )
  })
})
