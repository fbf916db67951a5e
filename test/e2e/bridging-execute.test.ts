import type { Progress } from '@modelcontextprotocol/client'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type ClientOptions, type RequestOptions, type TestClient } from '../fixtures/clients.js'

let bridge: Bridge
const clients: TestClient[] = []

beforeAll(async () => {
  bridge = await openBridge()
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client[Symbol.asyncDispose]()
})
afterAll(() => bridge[Symbol.asyncDispose]())

const form = {
  method: 'elicitation/create',
  params: { message: 'Which one?', requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
}
const page = {
  method: 'elicitation/create',
  params: { mode: 'url', message: 'Go there', url: 'https://example.com/', elicitationId: 'page-1' },
}
const sample = {
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: { type: 'text', text: 'Hello' } }], maxTokens: 10 },
}
const roots = { method: 'roots/list', params: {} }

/** Both ways to a tool that do not go to its server alone. */
const WAYS = ['execute_tool', 'direct'] as const

const matrix = WAYS.flatMap(way =>
  CLIENTS.flatMap(line =>
    BACKENDS.map(backend => ({ way, client: line.name, server: backend.name, line, era: backend.era })),
  ),
)

describe.each(matrix)('by $way, $client in front of $server', ({ way, line, server, era }) => {
  const heard = (since: number, method: string) =>
    bridge.talkers[server]
      .heard()
      .slice(since)
      .filter(message => message.method === method)

  async function open(options?: ClientOptions): Promise<TestClient> {
    const client = await line.open(await bridge.door(way === 'direct' ? 'direct' : 'small'), options)
    clients.push(client)
    return client
  }
  const call = (client: TestClient, tool: string, args: Record<string, unknown> = {}, options: RequestOptions = {}) =>
    way === 'direct'
      ? client.callTool(`${server}__${tool}`, args, options)
      : client.callTool('execute_tool', { server, tool, args }, options)

  test('progress', async () => {
    const client = await open()
    const news: Progress[] = []
    const result = await call(client, 'progress', { steps: 3 }, { onProgress: progress => news.push(progress) })
    expect(result.structuredContent).toEqual({ steps: 3 })
    expect(news.map(({ progress, total }) => [progress, total])).toEqual([
      [1, 3],
      [2, 3],
      [3, 3],
    ])
  })

  test('cancellation', async () => {
    const client = await open()
    const since = bridge.talkers[server].heard().length
    const controller = new AbortController()
    const cancelled = call(client, 'hang', {}, { signal: controller.signal })
    cancelled.catch(() => {})
    await expect.poll(() => heard(since, 'tools/call')).toHaveLength(1)
    controller.abort()
    await expect(cancelled).rejects.toThrow()
    await expect
      .poll(() => heard(since, 'notifications/cancelled').map(({ params }) => params?.requestId))
      .toEqual([heard(since, 'tools/call')[0]?.id])
  })

  test('a form, a page, the model and the roots, in rounds', async () => {
    const client = await open()
    const { structuredContent } = await call(client, 'ask', { rounds: [[form, page], [sample], [roots]] })
    expect(structuredContent).toMatchObject({
      answers: [
        [{ action: 'accept', content: { which: 'this' } }, { action: 'accept' }],
        [{ role: 'assistant', model: 'm-1' }],
        [{ roots: [{ uri: 'file:///work' }] }],
      ],
    })
    expect(client.asked.map(({ method }) => method).sort()).toEqual([
      'elicitation/create',
      'elicitation/create',
      'roots/list',
      'sampling/createMessage',
    ])
  })

  test('a client that can be asked nothing is asked nothing', async () => {
    const client = await open({ capabilities: {} })
    const asking = call(client, 'ask', { rounds: [[form]] })
    if (era === 'legacy')
      expect((await asking).structuredContent).toMatchObject({ answers: [[{ error: { code: -32601 } }]] })
    else if (line.era === 'modern') await expect(asking).rejects.toMatchObject({ code: -32021 })
    else expect(await asking).toMatchObject({ isError: true })
    expect(client.asked).toEqual([])
  })

  if (era === 'legacy') {
    test('a call that is refused until somebody has been to a page', async () => {
      const client = await open()
      const url = `https://example.com/${way}/${line.name}`
      if (line.era === 'legacy') {
        await expect(call(client, 'visit', { url })).rejects.toMatchObject({
          code: -32042,
          data: { elicitations: [{ mode: 'url', url }] },
        })
      }
      expect((await call(client, 'visit', { url })).structuredContent).toEqual({ visited: url })
      if (line.era === 'modern') expect(client.asked).toMatchObject([{ params: { mode: 'url', url } }])
    })
  }

  test('log messages are for whoever asked', async () => {
    const client = await open()
    const levels = ['debug', 'error']
    await call(client, 'log', { levels })
    if (way === 'direct' && line.era === 'legacy') {
      // What is told beside a call comes in order: with this, everything has come.
      await client.request('tools/list')
      const changed = () => client.told.some(({ method }) => method === 'notifications/tools/list_changed')
      await expect.poll(async () => (await call(client, 'change', { list: 'tools' })) && changed()).toBe(true)
    } else await call(client, 'echo')
    expect(client.told.filter(({ method }) => method === 'notifications/message')).toEqual([])
    if (line.era === 'legacy') return // one level for many servers is for none of them
    const name = way === 'direct' ? `${server}__log` : 'execute_tool'
    const args = way === 'direct' ? { levels } : { server, tool: 'log', args: { levels } }
    await client.callTool(name, args, { meta: { 'io.modelcontextprotocol/logLevel': 'warning' } })
    expect(client.told).toMatchObject([{ method: 'notifications/message', params: { level: 'error' } }])
  })
})

describe('the audit log', () => {
  test.each(BACKENDS)(
    'has a line for each call of $name, with the name of its own tool',
    async ({ name: server, era }) => {
      const own = await openBridge()
      try {
        for (const line of CLIENTS) {
          const client = await line.open(await own.door('small'))
          await client.callTool('execute_tool', { server, tool: 'echo', args: {} })
          await client.callTool('execute_tool', { server, tool: 'ask', args: { rounds: [[form]] } })
          await client[Symbol.asyncDispose]()
        }
        const lines = (await own.gateway.auditLines((era === 'modern' ? 3 : 2) * CLIENTS.length)).filter(
          ({ operation }) => operation === 'execute_tool',
        )
        for (const entry of lines)
          expect(entry).toMatchObject({ operation: 'execute_tool', server, agent: 'tester', decision: 'allow' })
        const asked = lines.filter(({ tool }) => tool === 'ask')
        expect(lines.filter(({ tool }) => tool === 'echo')).toHaveLength(CLIENTS.length)
        expect(asked.filter(({ code }) => code === 'OK')).toHaveLength(CLIENTS.length)
        // A server of 2026 ends the call with its question, and begins another one with the answer.
        expect(asked.filter(({ code }) => code === 'INPUT_REQUIRED')).toHaveLength(
          era === 'modern' ? CLIENTS.length : 0,
        )
      } finally {
        await own[Symbol.asyncDispose]()
      }
    },
  )
})
