import { describe, expect, test } from 'vitest'
import { toToolList } from '../../src/backends/tool.js'
import { OWNER, openBackend, type TestBackend } from '../fixtures/backend.js'
import { createServer } from '../fixtures/servers/by-hand.js'
import { TOOLS } from '../fixtures/servers/rich.js'
import { openLegacySessions, openSdkServer, stdioServer } from '../fixtures/servers.js'

const ERAS = ['legacy', 'modern'] as const
const inBothEras = test.each(ERAS)

const lists = (list: string, era: string) => openBackend(stdioServer('lists', { env: { LIST: list, ERA: era } }))
const reads = async (server: TestBackend) => (await server.ask<{ reads: number }>('count_reads')).reads

inBothEras('all pages are read (%s)', async era => {
  await using server = lists('pages', era)
  expect(await server.toolNames()).toEqual(['tool_1', 'count_reads', 'tool_2', 'tool_3'])
  expect(await reads(server)).toBe(3)
})

inBothEras('an empty cursor is a cursor (%s)', async era => {
  await using server = lists('empty_cursor', era)
  expect(await server.toolNames()).toEqual(['count_reads', 'last'])
})

test.each(
  ERAS.flatMap(era => [
    { list: 'loop', pages: 2, era },
    { list: 'cycle', pages: 3, era },
  ]),
)('a cursor that comes again ends the list: $list ($era)', async ({ list, pages, era }) => {
  await using server = lists(list, era)
  expect(await server.toolNames()).toEqual([
    'tool_1',
    'count_reads',
    ...Array.from({ length: pages - 1 }, (_, i) => `tool_${i + 2}`),
  ])
  expect(await reads(server)).toBe(pages)
})

inBothEras('definitions are kept as they are, unknown fields included (%s)', async era => {
  await using server = openBackend(stdioServer('rich-stdio', { env: { ERA: era } }))
  const { tools } = await server.backend.tools(OWNER)
  expect(tools.map(({ definition }) => definition)).toEqual(TOOLS)
})

inBothEras('a faulty definition costs only itself (%s)', async era => {
  await using server = lists('faulty', era)
  const { tools, rejected } = await server.backend.tools(OWNER)
  expect(tools.map(({ definition }) => definition.name)).toEqual(['good', 'count_reads'])
  expect(rejected).toEqual([
    { tool: 'good', reason: 'another tool has this name' },
    { tool: 'no_schema', reason: 'input schema: it is not an object' },
    ...Array.from({ length: 4 }, () => ({ tool: undefined, reason: 'it has no name, or one that is too long' })),
  ])
})

test('nine good tools and a bad one are nine tools, and one held back', async () => {
  const good = Array.from({ length: 9 }, (_, i) => ({ name: `good_${i}`, inputSchema: { type: 'object' } }))
  const bad = { name: 'bad', inputSchema: { type: 'object', properties: { a: { $ref: 'https://example.com/a' } } } }
  await using http = await openLegacySessions(createServer({ tools: [...good.slice(0, 4), bad, ...good.slice(4)] }))
  await using server = openBackend({ url: http.url })
  expect(await server.toolNames()).toEqual(good.map(({ name }) => name))
  expect((await server.backend.tools(OWNER)).rejected).toEqual([
    { tool: 'bad', reason: 'input schema: the reference "https://example.com/a" points outside of the schema' },
  ])
  await expect(server.call('good_8')).resolves.toMatchObject({ content: [] })
})

describe('a tool is held back for its schemas', () => {
  const inputSchema = { type: 'object' }
  const recursive = { type: 'object', properties: { next: { $ref: '#' } } }
  const listOf = (definitions: readonly unknown[], mirrorsParameters = false) =>
    toToolList(definitions, { expiresAt: 0, mirrorsParameters })

  test.each([
    { definition: { inputSchema: { type: 'string' } }, reason: 'input schema: its type is "string", not "object"' },
    { definition: { inputSchema: [] }, reason: 'input schema: it is not an object' },
    { definition: { inputSchema: recursive }, reason: 'input schema: the reference "#" is recursive' },
    {
      definition: { inputSchema, outputSchema: recursive },
      reason: 'output schema: the reference "#" is recursive',
    },
    { definition: { inputSchema, outputSchema: null }, reason: 'output schema: it is not an object' },
    {
      definition: { inputSchema, outputSchema: { type: 'nonsense' } },
      reason: expect.stringMatching(/^output schema: "\/type" must be one of/),
    },
    {
      definition: { inputSchema: recursive, outputSchema: { type: 'nonsense' } },
      reason: 'input schema: the reference "#" is recursive',
    },
  ])('$reason', ({ definition, reason }) => {
    const { tools, byName, rejected } = listOf([
      { name: 'bad', ...definition },
      { name: 'good', inputSchema },
    ])
    expect(rejected).toEqual([{ tool: 'bad', reason }])
    expect(tools.map(({ definition }) => definition.name)).toEqual(['good'])
    expect([...byName.keys()]).toEqual(['good'])
  })

  test('an output schema of any type is one', () => {
    expect(listOf([{ name: 'a', inputSchema, outputSchema: { type: 'array' } }]).rejected).toEqual([])
  })

  test('a bad definition does not take the name from a good one', () => {
    const { tools, rejected } = listOf([
      { name: 'a', inputSchema: recursive },
      { name: 'a', inputSchema },
    ])
    expect(tools).toHaveLength(1)
    expect(rejected).toHaveLength(1)
  })

  test('wrong headers count where headers are sent', () => {
    const definition = { name: 'a', inputSchema: { properties: { b: { type: 'object', 'x-mcp-header': 'B' } } } }
    expect(listOf([definition]).rejected).toEqual([])
    expect(listOf([definition], true).rejected).toEqual([
      { tool: 'a', reason: 'x-mcp-header of "b" is not on a string, integer or boolean' },
    ])
  })

  test('what is said about it is short and has no control characters', () => {
    const evil = `a\u001b[2J\n\u202e\ud800${'é'.repeat(200)}`
    const headers = { properties: { [evil.repeat(5)]: { 'x-mcp-header': 1 } } }
    const definitions = [{ type: evil }, { properties: { [evil]: { $ref: `#${evil}` } } }, headers]
    const { rejected } = listOf(
      definitions.map((inputSchema, i) => ({ name: `${evil}${i}`, inputSchema })),
      true,
    )
    expect(rejected).toHaveLength(3)
    for (const { tool, reason } of rejected) {
      expect(tool).toMatch(/^a\[2Jé+\d$/)
      expect(reason).toMatch(/^[^\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]{10,200}$/u)
    }
  })
})

inBothEras('a list that is none is an error of that server (%s)', async era => {
  await using server = lists('not_a_list', era)
  await expect(server.toolNames()).rejects.toMatchObject({ code: 'BACKEND_ERROR', details: { server: 'backend' } })
})

test('a server without tools has none, and is not asked for them', async () => {
  await using http = await openLegacySessions(createServer({ capabilities: {} }))
  await using server = openBackend({ url: http.url })
  expect(await server.toolNames()).toEqual([])
  expect(http.received.map(({ body }) => body.method)).not.toContain('tools/list')
})

test('concurrent readers share one read, and later ones need none', async () => {
  await using server = lists('pages', 'legacy')
  await Promise.all(Array.from({ length: 20 }, () => server.toolNames()))
  expect(await reads(server)).toBe(3)
  await server.toolNames()
  expect(await reads(server)).toBe(3)
  expect(server.backend.freshTools(OWNER)).toBe(await server.backend.tools(OWNER))
  expect(server.backend.knownTools?.byName.size).toBe(4)
  expect(server.backend.status().tools).toBe(4)
})

inBothEras('a list is read again when its ttlMs ends (%s)', async era => {
  await using server = lists('short_lived', era)
  expect(await server.toolNames()).toContain('tool_1')
  expect(await server.toolNames()).toContain('tool_1')
  await expect.poll(() => server.backend.freshTools(OWNER), { timeout: 5_000 }).toBeUndefined()
  expect(server.backend.knownTools?.byName.has('tool_1')).toBe(true)
  expect(await server.toolNames()).toContain('tool_2')
})

test.each(['changing-legacy', 'changing-modern'])('a list is read again when it is announced: %s', async name => {
  await using server = openBackend(stdioServer(name))
  expect(await server.toolNames()).toEqual(['grow'])
  for (const size of [1, 2]) {
    // A modern server is listened to beside the first calls, so the first announcement may come before there are ears.
    await server.call('grow')
    await expect.poll(() => server.toolNames(), { timeout: 5_000 }).toContain(`grown_${size}`)
  }
})

test('a list is read again when it is announced: HTTP, 2026-07-28', async () => {
  await using http = await openSdkServer()
  await using server = openBackend({ url: http.url })
  expect(await server.toolNames()).not.toContain('grown_1')
  const afterGrowth = async () => {
    http.grow() // until somebody listens
    return server.toolNames()
  }
  await expect.poll(afterGrowth, { timeout: 5_000 }).toContain('grown_1')
})

test('a list is read again when it is announced: HTTP, sessions', async () => {
  const tools = [{ name: 'first', inputSchema: { type: 'object' } }]
  await using http = await openLegacySessions(createServer({ tools, capabilities: { tools: { listChanged: true } } }))
  await using server = openBackend({ url: http.url })
  expect(await server.toolNames()).toEqual(['first'])
  tools.push({ name: 'second', inputSchema: { type: 'object' } })
  const afterAnnouncement = async () => {
    await http.announce('notifications/tools/list_changed') // until somebody listens
    return server.toolNames()
  }
  await expect.poll(afterAnnouncement, { timeout: 5_000 }).toEqual(['first', 'second'])
})
