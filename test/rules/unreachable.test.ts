import { expect, test } from 'vitest'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'
import { parseServersFile } from '../../src/config/servers-file.js'
import { findUnreachable } from '../../src/rules/unreachable.js'

const { servers } = parseServersFile(
  parseJsonDocument('s.json', '{ "mcpServers": { "git": { "command": "x" }, "docs": { "command": "x" } } }'),
  {},
)

function found(file: Record<string, unknown>): string[] {
  const { rules, problems } = parseRulesFile(parseJsonDocument('r.json', JSON.stringify(file)))
  expect(problems).toEqual([])
  return findUnreachable(rules, servers).map(({ path, message }) => `${path}: ${message}`)
}

test('rules that can never match are named', () => {
  const when = { repo: 'x' }
  const rules = {
    agents: {
      a: {
        allow: {
          servers: ['git', 'docs'],
          tools: {
            git: [
              'drop_table',
              'read',
              { tool: 'read', when },
              { tool: 'write', when },
              { tool: 'push', effect: 'ask' },
            ],
          },
        },
        deny: { servers: ['d*'], tools: { '*': ['drop_*', { tool: 'write', when }] } },
      },
      b: { allow: { servers: ['docs'], tools: { git: ['read'] } } },
    },
    roles: { r: { allow: { servers: ['gone', 'git'] }, deny: { tools: { lost: ['x'] } } } },
    scopes: { 'git/*': ['s'], 'gone/*': ['s'] },
  }
  expect(found(rules)).toEqual([
    'agents.a.allow.servers[1]: can never match: agents.a.deny.servers[0] denies all of it',
    'agents.a.allow.tools.git[0]: can never match: agents.a.deny.tools["*"][0] denies it, whatever the arguments',
    'agents.a.allow.tools.git[2]: makes no difference: entry 1 of this list allows the tool without a condition',
    'agents.b.allow.tools.git: can never match: agents.b.allow.servers has no such server',
    'roles.r.allow.servers[0]: the server "gone" is not configured',
    'roles.r.deny.tools.lost: the server "lost" is not configured',
    'scopes["gone/*"]: no configured server matches "gone"',
  ])
})

test('rules that may match are not', () => {
  const rules = {
    agents: {
      a: {
        allow: { servers: ['*'], tools: { 'g*': ['read', { tool: 'drop', when: { x: 'a' } }] } },
        deny: { tools: { git: [{ tool: '*', when: { x: 'b' } }], docs: ['read'] } },
      },
    },
    roles: { r: { allow: { servers: ['git'] } } },
  }
  expect(found(rules)).toEqual([])
})
