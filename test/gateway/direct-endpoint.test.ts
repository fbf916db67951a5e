import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type BackendName, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type ClientOptions, type Json, type TestClient } from '../fixtures/clients.js'

let bridge: Bridge
const clients: TestClient[] = []

beforeAll(async () => {
  bridge = await openBridge({
    rules: {
      agents: {
        tester: { allow: { servers: ['*'] } },
        half: { allow: { servers: ['http-2026', 'stdio-2025'] } },
      },
    },
  })
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client[Symbol.asyncDispose]()
})
afterAll(() => bridge[Symbol.asyncDispose]())

const NAMES = BACKENDS.map(({ name }) => name).sort()
const names = (list: unknown, key: string) => (list as Json[]).map(entry => entry[key])
const read = async (client: TestClient, uri: string) => (await client.request('resources/read', { uri })).contents

describe.each(CLIENTS)('direct mode for $name', line => {
  async function open(agent?: string, options?: ClientOptions): Promise<TestClient> {
    const client = await line.open(await bridge.door('direct', agent), options)
    clients.push(client)
    return client
  }

  test('says what it has', async () => {
    expect((await open()).capabilities).toMatchObject({
      tools: { listChanged: true },
      prompts: { listChanged: true },
      resources: { listChanged: true, subscribe: true },
      completions: {},
    })
  })

  test.each(BACKENDS)('prompts of $name under their own names', async ({ name: server }) => {
    const client = await open()
    const prompts = names((await client.request('prompts/list')).prompts, 'name') as string[]
    expect(prompts).toContain(`${server}__greeting`)
    const params = { name: `${server}__greeting`, arguments: { who: server } }
    expect(await client.request('prompts/get', params)).toMatchObject({
      messages: [{ content: { text: `Hello ${server}` } }],
    })
    const odd = prompts.find(name => name.startsWith(`${server}__odd_prompt`)) ?? ''
    expect(odd).toMatch(/^[\w-]{1,64}$/)
    expect(await client.request('prompts/get', { name: odd })).toMatchObject({
      messages: [{ content: { text: 'odd' } }],
    })
  })

  test.each(BACKENDS)('a tool of $name that cannot keep its name is called all the same', async ({ name: server }) => {
    const client = await open()
    const listed = names((await client.request('tools/list')).tools, 'name') as string[]
    const dotted = listed.find(name => name.startsWith(`${server}__dotted_tool`)) ?? ''
    expect(await client.callTool(dotted, { a: 1 })).toMatchObject({ structuredContent: { args: { a: 1 } } })
  })

  test.each(BACKENDS)('resources and templates of $name', async ({ name: server }) => {
    const client = await open()
    const own = (uri: string) => `gateway://${server}/${uri}`
    const { resources } = await client.request('resources/list')
    for (const uri of ['talk://plain', 'shared://same']) {
      expect(names(resources, 'uri')).toContain(own(uri))
      expect(await read(client, own(uri))).toMatchObject([{ uri: own(uri), text: `text of ${uri}` }])
    }
    const { resourceTemplates } = await client.request('resources/templates/list')
    expect(names(resourceTemplates, 'uriTemplate')).toContain(own('talk://items/{id}'))
    expect(await read(client, own('talk://items/a%2Fb?c=d#e'))).toMatchObject([
      { uri: own('talk://items/a%2Fb?c=d#e'), text: JSON.stringify({ item: 'a%2Fb?c=d#e' }) },
    ])
  })

  test.each(BACKENDS)('completion for $name', async ({ name: server }) => {
    const client = await open()
    const complete = (ref: Json) => client.request('completion/complete', { ref, argument: { name: 'id', value: 'v' } })
    expect(await complete({ type: 'ref/prompt', name: `${server}__greeting` })).toMatchObject({
      completion: { values: ['greeting:v'] },
    })
    expect(await complete({ type: 'ref/resource', uri: `gateway://${server}/talk://items/{id}` })).toMatchObject({
      completion: { values: ['talk://items/{id}:v'] },
    })
  })

  test.each(BACKENDS)('prompts and resources of $name may ask before they answer', async ({ name: server }) => {
    const client = await open()
    const text = JSON.stringify([[{ action: 'accept', content: { which: 'this' } }]])
    expect(await client.request('prompts/get', { name: `${server}__asking` })).toMatchObject({
      messages: [{ content: { text } }],
    })
    const uri = `gateway://${server}/talk://asking`
    expect(await read(client, uri)).toMatchObject([{ uri, text }])
    expect(client.asked).toHaveLength(2)
  })

  test('a URI that several servers have is an error that names them all', async () => {
    const client = await open()
    const since = NAMES.map(name => bridge.talkers[name].heard().length)
    const error = await client.request('resources/read', { uri: 'shared://same' }).catch(thrown => thrown)
    expect(error).toMatchObject({ code: -32602, data: { uri: 'shared://same' } })
    for (const name of NAMES) expect(error.message).toContain(`gateway://${name}/shared://same`)
    for (const [index, name] of NAMES.entries()) {
      const heard = bridge.talkers[name].heard().slice(since[index])
      expect(heard.filter(({ method }) => method === 'resources/read')).toEqual([])
    }
    // Only those that the agent may use are named.
    const half = await open('half')
    const other = await half.request('resources/read', { uri: 'shared://same' }).catch(thrown => thrown)
    expect(other.message).toContain('gateway://http-2026/')
    expect(other.message).not.toContain('gateway://http-2025/')
  })

  test('a URI that one server alone has is read there', async () => {
    const client = await open()
    await client.callTool('stdio-2026__change', { list: 'resources' })
    const { resources } = await client.request('resources/list')
    const uri =
      (names(resources, 'uri') as string[]).findLast(one => one.includes('grown'))?.split('stdio-2026/')[1] ?? ''
    await expect(read(client, uri)).rejects.toMatchObject({ code: -32602, data: { uri: expect.any(String) } })
    const heard = bridge.talkers['stdio-2026'].heard().at(-1)
    expect(heard).toMatchObject({ method: 'resources/read', params: { uri } })
  })

  test.each([
    'talk://nowhere',
    'gateway://nowhere/talk://plain',
    'gateway://http-2025',
    'gateway://',
    'gateway://%/talk://plain',
    '',
    ...NAMES.map(name => `gateway://${name}/talk://nowhere`),
  ])('a resource that is not there is an error, never empty: %s', async uri => {
    await expect(read(await open(), uri)).rejects.toMatchObject({ code: -32602, data: { uri } })
  })

  test('a server that the agent may not use is one that is not there', async () => {
    const client = await open('half')
    for (const [method, field, key] of [
      ['prompts/list', 'prompts', 'name'],
      ['resources/list', 'resources', 'uri'],
      ['resources/templates/list', 'resourceTemplates', 'uriTemplate'],
      ['tools/list', 'tools', 'name'],
    ] as const) {
      const text = names((await client.request(method))[field], key).join(' ')
      expect(text).toContain('http-2026')
      expect(text).not.toContain('http-2025')
    }
    const error = (request: Promise<unknown>) =>
      request.then(
        () => undefined,
        thrown => thrown,
      )
    const masked = (thrown: { code: number; message: string }, name: string) => [
      thrown.code,
      thrown.message.replaceAll(name, 'X'),
    ]
    const about = async (name: string) => [
      masked(await error(read(client, `gateway://${name}/talk://plain`)), name),
      masked(await error(client.request('prompts/get', { name: `${name}__greeting` })), name),
      masked(await error(client.callTool(`${name}__echo`)), name),
    ]
    expect(await about('http-2025')).toEqual(await about('absent'))
  })

  test('subscriptions are to the resource of one server', async () => {
    const client = await open()
    const touch = (server: BackendName) => client.callTool(`${server}__touch`, { uri: 'shared://same' })
    const wanted = ['gateway://http-2025/shared://same', 'gateway://stdio-2026/shared://same']
    const stop = await client.listen({ resourceSubscriptions: wanted })
    const updated = () => client.told.filter(({ method }) => method === 'notifications/resources/updated')
    await expect
      .poll(async () => {
        for (const name of NAMES) await touch(name)
        return [...new Set(updated().map(({ params }) => params.uri))].sort()
      })
      .toEqual(wanted)
    await stop()
  })

  test.each(
    BACKENDS.flatMap(({ name }) => (['tools', 'prompts', 'resources'] as const).map(list => [list, name] as const)),
  )('changes of the %s of %s are announced', async (list, server) => {
    const client = await open()
    await client.request('tools/list')
    await client.listen({ [`${list}ListChanged`]: true })
    await expect
      .poll(async () => {
        await client.callTool(`${server}__change`, { list })
        return client.told.map(({ method }) => method)
      })
      .toContain(`notifications/${list}/list_changed`)
  })
})

const LISTS = ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list']

test('every list has the same bytes each time, and after a restart', async () => {
  // Servers of their own, whose lists nobody changes.
  const first = await openBridge()
  const lists = async ({ post }: Bridge) =>
    Promise.all(LISTS.map(async method => JSON.stringify((await post('direct', { method, params: {} })).json().result)))
  const once = await lists(first)
  const again = await lists(first)
  const restarted = await openBridge({ talkers: first.talkers })
  const later = await lists(restarted)
  await restarted[Symbol.asyncDispose]()
  await first[Symbol.asyncDispose]()
  for (const [index, text] of once.entries()) {
    expect(text).toContain('stdio-2025')
    expect([again[index], later[index]]).toEqual([text, text])
  }
})

test('a server that is down does not hold up the others', async () => {
  const down = { command: process.execPath, args: ['-e', 'process.exit(1)'] }
  const { entry } = bridge.talkers['http-2026']
  const { openTestGateway } = await import('../fixtures/gateway.js')
  const gateway = await openTestGateway({
    servers: { down, up: entry },
    rules: { agents: { tester: { allow: { servers: ['*'] } } } },
  })
  const front = await gateway.gateway.serveHttp({ port: 0 })
  const [line] = CLIENTS
  const url = new URL(`${front.url}?expose=direct`)
  const client = await line?.open({ url, token: await front.issueToken('tester', 60) })
  expect(names((await client?.request('resources/list'))?.resources, 'uri')).toContain('gateway://up/talk://plain')
  const reading = client?.request('resources/read', { uri: 'gateway://down/talk://plain' })
  await expect(reading).rejects.toMatchObject({ code: -32603 })
  await client?.[Symbol.asyncDispose]()
  await gateway.close()
})
