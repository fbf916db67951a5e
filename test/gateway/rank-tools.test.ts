import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { type BackendTool, type ToolList, toToolList } from '../../src/backends/tool.js'
import { rankTools } from '../../src/gateway/rank-tools.js'
import { indexOf } from '../../src/gateway/tool-index.js'

const read = async (name: string) =>
  JSON.parse(await readFile(new URL(`../../bench/search/${name}`, import.meta.url), 'utf8'))

type Definition = BackendTool['definition'] & { readonly server: string }

async function indexAll(definitions: readonly Definition[]) {
  const servers = new Map<string, Definition[]>()
  for (const definition of definitions) {
    servers.set(definition.server, [...(servers.get(definition.server) ?? []), definition])
  }
  const toList = (tools: readonly unknown[]): ToolList => toToolList(tools, { expiresAt: 0, mirrorsParameters: false })
  return Promise.all([...servers].map(([server, tools]) => indexOf(server, toList(tools))))
}

test('among 1,000 and more real tools, the right one is in the first five for at least 90 of 100 needs', async () => {
  const definitions: Definition[] = await read('corpus.json')
  const needs: { query: string; tools: string[] }[] = await read('queries.json')
  expect(definitions.length).toBeGreaterThanOrEqual(1_000)
  expect(needs).toHaveLength(100)
  const known = new Set(definitions.map(({ server, name }) => `${server}/${name}`))
  expect(known.size).toBe(definitions.length)
  expect(needs.flatMap(({ tools }) => tools).filter(tool => !known.has(tool))).toEqual([])

  const indexes = await indexAll(definitions)
  const missed = needs.filter(({ query, tools }) => {
    const first = rankTools(indexes, query, () => true).slice(0, 5)
    return !first.some(({ server, tool }) => tools.includes(`${server}/${tool.definition.name}`))
  })
  expect(missed.length, missed.map(({ query }) => query).join('\n')).toBeLessThanOrEqual(10)
})

test('the order does not depend on the order of the servers', async () => {
  const definitions: Definition[] = await read('corpus.json')
  const indexes = await indexAll(definitions)
  const namesOf = (within: typeof indexes) =>
    rankTools(within, 'create an issue', () => true).map(({ server, tool }) => `${server}/${tool.definition.name}`)
  expect(namesOf([...indexes].reverse())).toEqual(namesOf(indexes))
})
