import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Progress } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type TestClient } from '../fixtures/clients.js'

let bridge: Bridge

beforeAll(async () => {
  bridge = await openBridge()
})
afterAll(() => bridge[Symbol.asyncDispose]())

const form = (message: string) => ({
  method: 'elicitation/create',
  params: { message, requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
})
const page = {
  method: 'elicitation/create',
  params: { mode: 'url', message: 'Go there', url: 'https://example.com/', elicitationId: 'page-1' },
}
const sample = {
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: { type: 'text', text: 'Hello' } }], maxTokens: 10 },
}
const roots = { method: 'roots/list', params: {} }
const matrix = CLIENTS.flatMap(line =>
  BACKENDS.map(({ name, era }) => ({ client: line.name, server: name, line, era })),
)

describe.each(matrix)('$client, over stdio, in front of $server', ({ line, server, era }) => {
  let client: TestClient

  beforeAll(async () => {
    client = await line.open(bridge.stdioDoor({ server }))
  })
  afterAll(() => client[Symbol.asyncDispose]())

  const heard = (since: number, method: string) =>
    bridge.talkers[server]
      .heard()
      .slice(since)
      .filter(message => message.method === method)

  test('is told what the server has', () => {
    expect(client.capabilities).toMatchObject({
      tools: { listChanged: true },
      prompts: { listChanged: true },
      resources: { listChanged: true, subscribe: true },
    })
  })

  test('progress comes in order, before the result, to the call it belongs to', async () => {
    const call = async (steps: number) => {
      const news: number[] = []
      const onProgress = ({ progress }: Progress) => news.push(progress)
      await client.callTool('progress', { steps, everyMs: 50 }, { onProgress })
      return news
    }
    const [two, four] = await Promise.all([call(2), call(4)])
    // The SDK's clients forget progress that they read from the pipe together with the result; that none is missing is shown below.
    expect(two).toEqual([1, 2].slice(0, two.length))
    expect(four).toEqual([1, 2, 3, 4].slice(0, four.length))
    expect(Math.min(two.length, four.length)).toBeGreaterThan(0)
  })

  test('a cancelled call is cancelled at the server', async () => {
    const since = bridge.talkers[server].heard().length
    const controller = new AbortController()
    const cancelled = client.callTool('hang', {}, { signal: controller.signal })
    cancelled.catch(() => {})
    await expect.poll(() => heard(since, 'tools/call')).toHaveLength(1)
    controller.abort()
    await expect(cancelled).rejects.toThrow()
    await expect
      .poll(() => heard(since, 'notifications/cancelled').map(({ params }) => params?.requestId))
      .toEqual([heard(since, 'tools/call')[0]?.id])
  })

  test('everything a server may ask, in rounds and at once', async () => {
    const before = client.asked.length
    const rounds = [[form('1'), roots], [page], [sample]]
    const results = await Promise.all([client.callTool('ask', { rounds }), client.callTool('ask', { rounds })])
    for (const { structuredContent } of results) {
      expect(structuredContent).toMatchObject({
        answers: [
          [{ action: 'accept', content: { which: 'this' } }, { roots: [{ uri: 'file:///work' }] }],
          [{ action: 'accept' }],
          [{ model: 'm-1' }],
        ],
      })
    }
    expect(client.asked.length - before).toBe(8)
  })

  test('prompts and resources that ask first', async () => {
    const text = JSON.stringify([[{ action: 'accept', content: { which: 'this' } }]])
    expect(await client.request('prompts/get', { name: 'asking' })).toMatchObject({ messages: [{ content: { text } }] })
    expect(await client.request('resources/read', { uri: 'talk://asking' })).toMatchObject({ contents: [{ text }] })
  })

  test('log messages by level', async () => {
    const before = client.told.length
    const levels = ['debug', 'error']
    if (line.era === 'legacy') await client.request('logging/setLevel', { level: 'warning' })
    const meta = line.era === 'modern' ? { meta: { 'io.modelcontextprotocol/logLevel': 'warning' } } : {}
    await client.callTool('log', { levels }, meta)
    await client.callTool('echo')
    const logged = client.told.slice(before).filter(({ method }) => method === 'notifications/message')
    expect(logged).toMatchObject([{ params: { level: 'error' } }])
  })

  test('changes of lists and of a resource are announced', async () => {
    const announced = () => new Set(client.told.map(({ method }) => method))
    const stop = await client.listen({
      toolsListChanged: true,
      promptsListChanged: true,
      resourcesListChanged: true,
      resourceSubscriptions: ['talk://plain'],
    })
    await expect
      .poll(async () => {
        for (const list of ['tools', 'prompts', 'resources']) await client.callTool('change', { list })
        await client.callTool('touch', { uri: 'talk://plain' })
        return announced()
      })
      .toEqual(
        expect.toSatisfy((methods: Set<string>) =>
          ['tools/list_changed', 'prompts/list_changed', 'resources/list_changed', 'resources/updated'].every(name =>
            methods.has(`notifications/${name}`),
          ),
        ),
      )
    await stop()
  })

  if (era === 'legacy') {
    test('a call that is refused until somebody has been to a page', async () => {
      const url = `https://example.com/stdio/${line.name}`
      if (line.era === 'legacy') await expect(client.callTool('visit', { url })).rejects.toMatchObject({ code: -32042 })
      expect((await client.callTool('visit', { url })).structuredContent).toEqual({ visited: url })
    })
  }
})

describe.each(CLIENTS)('$name over stdio, with the small tools', line => {
  let client: TestClient

  beforeAll(async () => {
    client = await line.open(bridge.stdioDoor('small'))
  })
  afterAll(() => client[Symbol.asyncDispose]())

  test.each(BACKENDS)('asks and reports for $name', async ({ name: server }) => {
    const news: number[] = []
    const onProgress = ({ progress }: Progress) => news.push(progress)
    const call = (tool: string, args: Record<string, unknown>) =>
      client.callTool('execute_tool', { server, tool, args }, { onProgress })
    await call('progress', { steps: 2, everyMs: 100 })
    expect(news[0]).toBe(1)
    expect((await call('ask', { rounds: [[form('1')], [sample, roots]] })).structuredContent).toMatchObject({
      answers: [[{ action: 'accept' }], [{ model: 'm-1' }, { roots: [{ uri: 'file:///work' }] }]],
    })
  })

  test('is told no log message that it has not asked for', async () => {
    for (const { name: server } of BACKENDS)
      await client.callTool('execute_tool', { server, tool: 'log', args: { levels: ['debug', 'error'] } })
    await client.callTool('list_servers') // on one pipe everything comes in order
    expect(client.told).toEqual([])
  })
})

test('on the wire all progress comes before the result', async () => {
  const { command, args, cwd, env } = bridge.stdioDoor({ server: 'stdio-2026' })
  const gateway = spawn(command, args, { cwd, env, stdio: ['pipe', 'pipe', 'ignore'] })
  const lines = createInterface({ input: gateway.stdout })[Symbol.asyncIterator]()
  const _meta = {
    progressToken: 'p',
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
  }
  const params = { name: 'progress', arguments: { steps: 5 }, _meta }
  gateway.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: 'c', method: 'tools/call', params })}\n`)
  const messages: Record<string, unknown>[] = []
  while (messages.at(-1)?.id !== 'c') messages.push(JSON.parse((await lines.next()).value))
  expect(messages.slice(0, -1)).toMatchObject(
    [1, 2, 3, 4, 5].map(progress => ({ method: 'notifications/progress', params: { progressToken: 'p', progress } })),
  )
  gateway.stdin.end()
  await once(gateway, 'exit')
})
