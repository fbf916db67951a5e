import type { Progress } from '@modelcontextprotocol/client'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type ClientOptions, type Message, oblige, type TestClient } from '../fixtures/clients.js'
import type { Heard } from '../fixtures/talker.js'

let bridge: Bridge
const clients: TestClient[] = []

beforeAll(async () => {
  bridge = await openBridge()
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client[Symbol.asyncDispose]()
})
afterAll(() => bridge[Symbol.asyncDispose]())

const form = (message: string) => ({
  method: 'elicitation/create',
  params: { message, requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
})
const page = (url: string) => ({
  method: 'elicitation/create',
  params: { mode: 'url', message: 'Go there', url, elicitationId: 'page-1' },
})
const sample = (text: string) => ({
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: { type: 'text', text } }], maxTokens: 10 },
})
const roots = { method: 'roots/list', params: {} }
const withoutParams = ({ method }: Message) => method

const matrix = CLIENTS.flatMap(line =>
  BACKENDS.map(backend => ({ client: line.name, server: backend.name, line, backend })),
)

describe.each(matrix)('$client in front of $server', ({ line, backend }) => {
  const { name: server } = backend
  const heard = (method: string, since = 0): Heard[] =>
    bridge.talkers[server]
      .heard()
      .slice(since)
      .filter(message => message.method === method)
  const heardCall = (tool: string, since: number) =>
    heard('tools/call', since).filter(({ params }) => params?.name === tool)

  async function open(options?: ClientOptions): Promise<TestClient> {
    const client = await line.open(await bridge.door({ server }), options)
    clients.push(client)
    return client
  }

  test('calls, and is told what the server has', async () => {
    const client = await open()
    expect(client.capabilities).toMatchObject({
      tools: { listChanged: true },
      prompts: { listChanged: true },
      resources: { listChanged: true, subscribe: true },
      completions: {},
      logging: {},
    })
    expect(await client.callTool('echo', { text: 'ä ✓' })).toMatchObject({
      structuredContent: { args: { text: 'ä ✓' } },
    })
  })

  test('progress comes in order, before the result, to the call it belongs to', async () => {
    const client = await open()
    const order: unknown[] = []
    const call = async (steps: number) => {
      const onProgress = ({ progress, total, message }: Progress) => order.push([steps, progress, total, message])
      const result = await client.callTool('progress', { steps, everyMs: 10 }, { onProgress })
      order.push([steps, 'result'])
      return result
    }
    expect(await Promise.all([call(3), call(5)])).toMatchObject([
      { structuredContent: { steps: 3 } },
      { structuredContent: { steps: 5 } },
    ])
    for (const steps of [3, 5]) {
      const own = order.filter(entry => (entry as unknown[])[0] === steps)
      const expected = Array.from({ length: steps }, (_, index) => [steps, index + 1, steps, `step ${index + 1}`])
      expect(own).toEqual([...expected, [steps, 'result']])
    }
  })

  test('a cancelled call is cancelled at the server, and no other', async () => {
    const client = await open()
    const since = bridge.talkers[server].heard().length
    const controller = new AbortController()
    const cancelled = client.callTool('hang', {}, { signal: controller.signal })
    cancelled.catch(() => {})
    const other = client.callTool('later', { ms: 300 })
    await expect.poll(() => heardCall('hang', since)).toHaveLength(1)
    await expect.poll(() => heardCall('later', since)).toHaveLength(1)
    controller.abort()
    await expect(cancelled).rejects.toThrow()
    await expect.poll(() => heard('notifications/cancelled', since)).toHaveLength(1)
    const [hanging] = heardCall('hang', since)
    expect(heard('notifications/cancelled', since)[0]?.params).toMatchObject({ requestId: hanging?.id })
    expect(await other).toMatchObject({ structuredContent: { answers: [] } })
  })

  test('log messages come from the level on that was asked for', async () => {
    const client = await open()
    const levels = ['debug', 'info', 'warning', 'error']
    const isModern = line.era === 'modern'
    if (!isModern) await client.request('logging/setLevel', { level: 'warning' })
    const meta = isModern ? { meta: { 'io.modelcontextprotocol/logLevel': 'warning' } } : {}
    await client.callTool('log', { levels }, meta)
    await client.callTool('echo')
    await expect.poll(() => client.told.map(withoutParams)).toHaveLength(2)
    expect(client.told).toMatchObject([
      { method: 'notifications/message', params: { level: 'warning', data: 'said warning', logger: 'talker' } },
      { method: 'notifications/message', params: { level: 'error', data: 'said error' } },
    ])
  })

  if (line.era === 'modern') {
    test('no log message comes without asking', async () => {
      const client = await open()
      await client.callTool('log', { levels: ['error', 'emergency'] })
      await client.callTool('echo')
      expect(client.told).toEqual([])
    })
  }

  test('a level that there is not is refused', async () => {
    const client = await open()
    const asking =
      line.era === 'modern'
        ? client.callTool('echo', {}, { meta: { 'io.modelcontextprotocol/logLevel': 'loud' } })
        : client.request('logging/setLevel', { level: 'loud' })
    await expect(asking).rejects.toMatchObject({ code: -32602 })
  })

  test.each(['tools', 'prompts', 'resources'] as const)('changes of the list of %s are announced', async list => {
    const client = await open()
    const before = await client.request(`${list}/list`)
    await client.listen({ [`${list}ListChanged`]: true })
    await expect
      .poll(async () => {
        await client.callTool('change', { list })
        return client.told.map(withoutParams)
      })
      .toContain(`notifications/${list}/list_changed`)
    const after = await client.request(`${list}/list`)
    expect((after[list] as unknown[]).length).toBeGreaterThan((before[list] as unknown[]).length)
  })

  test('a resource is subscribed to, and unsubscribed from', async () => {
    const client = await open()
    const since = bridge.talkers[server].heard().length
    const stop = await client.listen({ resourceSubscriptions: ['talk://plain'] })
    await expect
      .poll(async () => {
        await client.callTool('touch', { uri: 'talk://plain' })
        await client.callTool('touch', { uri: 'shared://same' })
        return client.told.length
      })
      .toBeGreaterThan(0)
    expect(new Set(client.told.map(({ method, params }) => `${method} ${params.uri}`))).toEqual(
      new Set(['notifications/resources/updated talk://plain']),
    )
    await stop()
    if (backend.era === 'legacy') {
      await expect.poll(() => heard('resources/unsubscribe', since)).toHaveLength(1)
      expect(heard('resources/subscribe', since).map(({ params }) => params?.uri)).toEqual(['talk://plain'])
    } else {
      const listening = heard('subscriptions/listen', since).find(({ params }) =>
        JSON.stringify(params).includes('talk://plain'),
      )
      expect(listening).toBeDefined()
      await expect
        .poll(() => heard('notifications/cancelled', since).map(({ params }) => params?.requestId))
        .toContain(listening?.id)
    }
  })

  test.each([
    ['accept', { action: 'accept', content: { which: 'this' } }],
    ['decline', { action: 'decline' }],
    ['cancel', { action: 'cancel' }],
  ])('a form is filled in: %s', async (_action, answer) => {
    const client = await open({ answer: () => answer })
    const result = await client.callTool('ask', { rounds: [[form('Which one?')]] })
    expect(result.structuredContent).toEqual({ answers: [[answer]] })
    expect(client.asked).toMatchObject([form('Which one?')])
  })

  test('a page is visited', async () => {
    const client = await open()
    const result = await client.callTool('ask', { rounds: [[page('https://example.com/a?b=c')]] })
    expect(result.structuredContent).toEqual({ answers: [[{ action: 'accept' }]] })
    expect(client.asked).toMatchObject([
      { method: 'elicitation/create', params: { mode: 'url', url: 'https://example.com/a?b=c', message: 'Go there' } },
    ])
  })

  test('the model and the roots of the client are asked', async () => {
    const client = await open()
    const result = await client.callTool('ask', { rounds: [[sample('Say hello')], [roots]] })
    expect(result.structuredContent).toMatchObject({
      answers: [
        [{ role: 'assistant', model: 'm-1', content: { type: 'text', text: 'sampled' } }],
        [{ roots: [{ uri: 'file:///work', name: 'work' }] }],
      ],
    })
    expect(client.asked).toMatchObject([sample('Say hello'), { method: 'roots/list' }])
  })

  test('several rounds, with several questions at once', async () => {
    const said = ({ method, params }: Message) =>
      method === 'elicitation/create'
        ? { action: 'accept', content: { which: String(params.message) } }
        : oblige({ method, params })
    const client = await open({ answer: said })
    const rounds = [[form('1a'), form('1b'), roots], [form('2')], [sample('3a'), form('3b')]]
    const result = await client.callTool('ask', { rounds })
    const chosen = (which: string) => ({ action: 'accept', content: { which } })
    expect(result.structuredContent).toMatchObject({
      answers: [
        [chosen('1a'), chosen('1b'), { roots: [{ uri: 'file:///work' }] }],
        [chosen('2')],
        [{ model: 'm-1' }, chosen('3b')],
      ],
    })
    expect(client.asked).toHaveLength(6)
  })

  test('several calls that ask at the same time each get their own answers', async () => {
    const client = await open({
      answer: ({ params }) => ({ action: 'accept', content: { which: `${params.message}!` } }),
    })
    const names = ['a', 'b', 'c', 'd']
    const results = await Promise.all(
      names.map(name => client.callTool('ask', { rounds: [[form(`${name}1`)], [form(`${name}2`)]] })),
    )
    const said = (which: string) => [{ action: 'accept', content: { which } }]
    expect(results.map(({ structuredContent }) => structuredContent)).toEqual(
      names.map(name => ({ answers: [said(`${name}1!`), said(`${name}2!`)] })),
    )
  })

  test('a prompt and a resource ask before they answer', async () => {
    const client = await open()
    const prompt = await client.request('prompts/get', { name: 'asking' })
    const answers = [[{ action: 'accept', content: { which: 'this' } }]]
    expect(prompt).toMatchObject({ messages: [{ content: { text: JSON.stringify(answers) } }] })
    const resource = await client.request('resources/read', { uri: 'talk://asking' })
    expect(resource).toMatchObject({ contents: [{ uri: 'talk://asking', text: JSON.stringify(answers) }] })
    expect(client.asked).toHaveLength(2)
  })

  test('templates, completion and prompts with arguments', async () => {
    const client = await open()
    expect(await client.request('resources/templates/list')).toMatchObject({
      resourceTemplates: [{ name: 'items', uriTemplate: 'talk://items/{id}' }],
    })
    expect(await client.request('resources/read', { uri: 'talk://items/7' })).toMatchObject({
      contents: [{ uri: 'talk://items/7', text: '{"item":"7"}' }],
    })
    const argument = { name: 'who', value: 'a' }
    expect(
      await client.request('completion/complete', { ref: { type: 'ref/prompt', name: 'greeting' }, argument }),
    ).toMatchObject({ completion: { values: ['greeting:a'] } })
    expect(await client.request('prompts/get', { name: 'greeting', arguments: { who: 'Eve' } })).toMatchObject({
      messages: [{ content: { text: 'Hello Eve' } }],
    })
  })

  test('a resource that is not there is an error', async () => {
    const client = await open()
    await expect(client.request('resources/read', { uri: 'talk://nowhere' })).rejects.toMatchObject({
      code: -32602,
      data: { uri: 'talk://nowhere' },
    })
  })

  if (backend.era === 'legacy') {
    test('a call that is refused until somebody has been to a page', async () => {
      const client = await open()
      const url = `https://example.com/${line.name}`
      const visit = () => client.callTool('visit', { url })
      if (line.era === 'legacy') {
        await expect(visit()).rejects.toMatchObject({
          code: -32042,
          data: { elicitations: [{ mode: 'url', elicitationId: 'page-1', url, message: 'Go there first' }] },
        })
        expect((await visit()).structuredContent).toEqual({ visited: url })
      } else {
        expect((await visit()).structuredContent).toEqual({ visited: url })
        expect(client.asked).toMatchObject([
          { method: 'elicitation/create', params: { mode: 'url', url, message: 'Go there first' } },
        ])
      }
    })
  } else {
    test('a server that gives a state and asks nothing gets it back', async () => {
      const client = await open()
      expect((await client.callTool('stateful')).structuredContent).toMatchObject({ state: { only: 'state' } })
    })
  }

  test('what a client cannot do is not asked of it', async () => {
    const declared = { elicitation: { form: {} } }
    const since = bridge.talkers[server].heard().length
    const client = await open({ capabilities: declared })
    for (const question of [page('https://example.com/x'), sample('hello'), roots]) {
      const asking = client.callTool('ask', { rounds: [[question]] })
      if (backend.era === 'legacy') {
        // The server learns of it as from any client, and goes on.
        expect((await asking).structuredContent).toMatchObject({ answers: [[{ error: { code: -32601 } }]] })
      } else if (line.era === 'modern') await expect(asking).rejects.toMatchObject({ code: -32021 })
      else expect(await asking).toMatchObject({ isError: true })
    }
    expect(client.asked).toEqual([])
    // What it is told of the client is what the client said, with each request or with the session made for it.
    const told =
      backend.era === 'modern'
        ? heardCall('ask', since).map(({ params }) => params?._meta?.['io.modelcontextprotocol/clientCapabilities'])
        : heard('initialize', since).map(({ params }) => params?.capabilities)
    expect(told.length).toBeGreaterThan(0)
    for (const capabilities of told) expect(capabilities).toEqual(declared)
  })

  test('a client that refuses to answer is no reason for the call to hang', async () => {
    const client = await open({
      answer: () => {
        throw Object.assign(new Error('not today'), { code: -1 })
      },
    })
    const asking = client.callTool('ask', { rounds: [[form('Which?')]] })
    if (line.era === 'modern') await expect(asking).rejects.toThrow()
    else if (backend.era === 'modern') expect(await asking).toMatchObject({ isError: true })
    else expect((await asking).structuredContent).toMatchObject({ answers: [[{ error: { code: -1 } }]] })
  })
})
