import { describe, expect, test } from 'vitest'
import { missingScopes, scopesFor } from '../../src/rules/scopes.js'
import { compiled } from './compiled.js'

const rules = compiled({
  scopes: {
    'github/delete_*': ['mcp:github:admin', 'mcp:github:write'],
    '*/*': ['mcp:use'],
    'git*/delete_repo': ['mcp:github:write', 'extra'],
    'fs/a/b': ['slash'],
  },
})

describe('what a tool needs', () => {
  test.each<[server: string, tool: string, scopes: string[]]>([
    ['github', 'delete_repo', ['mcp:github:admin', 'mcp:github:write', 'mcp:use', 'extra']],
    ['github', 'get_repo', ['mcp:use']],
    ['fs', 'a/b', ['mcp:use', 'slash']],
  ])('%s/%s', (server, tool, scopes) => {
    expect(scopesFor(rules, server, [tool])?.scopes).toEqual(scopes)
  })

  test('of all names that it may be meant by', () => {
    expect(scopesFor(rules, 'fs', ['x', 'a/b'])?.scopes).toEqual(['mcp:use', 'slash'])
  })

  test('where the rules ask for none', () => {
    expect(scopesFor(compiled({}), 'github', ['x'])).toBeUndefined()
    expect(scopesFor(compiled({ scopes: { 'a/b': ['c'] } }), 'a', ['c'])).toBeUndefined()
  })
})

describe('what a granted scope covers', () => {
  test.each<[granted: string, needed: string, covered: boolean]>([
    ['mcp:github:admin', 'mcp:github:admin', true],
    ['mcp:*', 'mcp:github:admin', true],
    ['mcp:github:*', 'mcp:github:admin', true],
    ['*', 'mcp:github:admin', true],
    ['mcp:*', 'mcp', false],
    ['mcp:*', 'mcp:', false],
    ['mcp:*', 'mcpx:github', false],
    ['mcp:git*', 'mcp:github', false],
    ['mcp:*:admin', 'mcp:github:admin', false],
    ['mcp:github', 'mcp:github:admin', false],
    ['mcp:github:admin', 'mcp:github', false],
    ['MCP:*', 'mcp:a', false],
  ])('%s covers %s: %s', (granted, needed, covered) => {
    expect(missingScopes([needed], ['other', granted])).toEqual(covered ? [] : [needed])
  })
})
