import { expect, test } from 'vitest'
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
  expect(rejected).toHaveLength(6)
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
