import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { HttpFront } from '../../src/start.js'
import { CLIENTS, type ClientOptions, type Json, type TestClient } from '../fixtures/clients.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'

const tools = {
  desk: [
    { tool: 'write', when: { path: '/home/ann/**' } },
    { tool: '*', annotations: { readOnlyHint: true } },
    { tool: 'erase', effect: 'ask' },
    { tool: 'move', when: { path: '/home/ann/**' }, effect: 'ask' },
    'push',
    { tool: 'push', when: { 'labels[*]': 'prod' }, effect: 'ask' },
  ],
}
const denied = [
  { tool: 'write', when: { lines: 13 } },
  { tool: 'push', when: { force: true } },
  { tool: 'push', when: { 'labels[*]': 'secret' } },
  { tool: 'push', when: { loose: true } },
]
const access = { allow: { servers: ['desk'], tools }, deny: { tools: { desk: denied } } }
const rules = { agents: { clerk: access, direct: { expose: 'direct', ...access } } }

let opened: TestGateway
let front: HttpFront
const clients: TestClient[] = []
beforeAll(async () => {
  opened = await openTestGateway({ servers: { desk: nodeServer('desk.js') }, rules })
  front = await opened.gateway.serveHttp({ port: 0 })
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client[Symbol.asyncDispose]()
})
afterAll(() => opened.close())

const errorOf = (result: Json) => (result.structuredContent as Json | undefined)?.error as Json | undefined
const audited = (...lines: Json[]) =>
  expect.poll(async () => (await opened.auditLines(lines.length)).slice(-lines.length)).toMatchObject(lines)

/** Every way to a tool of a server. */
const WAYS = ['execute_tool', 'direct', 'server'] as const
type Way = (typeof WAYS)[number]

async function openClient(line: (typeof CLIENTS)[number], way: Way, options?: ClientOptions): Promise<TestClient> {
  const url = new URL(way === 'server' ? '/servers/desk/mcp' : '/mcp', front.url)
  const token = await front.issueToken(way === 'direct' ? 'direct' : 'clerk', 60)
  const client = await line.open({ url, token }, options)
  clients.push(client)
  return client
}

function call(client: TestClient, way: Way, tool: string, args: Json) {
  if (way === 'execute_tool') return client.callTool('execute_tool', { server: 'desk', tool, args })
  return client.callTool(way === 'direct' ? `desk__${tool}` : tool, args)
}

const matrix = WAYS.flatMap(way => CLIENTS.map(line => ({ way, client: line.name, line })))

describe.each(matrix)('by $way, $client', ({ way, line }) => {
  const open = (options?: ClientOptions) => openClient(line, way, options)

  test('a call is allowed by its arguments, or is not', async () => {
    const client = await open()
    expect(await call(client, way, 'write', { path: '/home/ann/x' })).toMatchObject({
      structuredContent: { arguments: { path: '/home/ann/x' } },
    })
    const refused = await call(client, way, 'write', { path: '/home/ann/../bob' })
    expect(refused.isError).toBe(true)
    expect(errorOf(refused)).toMatchObject({ code: 'DENIED_BY_POLICY', tool: 'write', arguments: ['path'] })
    const rule = expect.stringContaining('allow.tools.desk[0] ("write")')
    await audited({ server: 'desk', tool: 'write', decision: 'deny', rule, code: 'DENIED_BY_POLICY' })
  })

  test('lists have what may be called, and no tool whose annotations are not what the rules want', async () => {
    const client = await open()
    const visible = ['erase', 'look', 'move', 'push', 'write']
    if (way === 'execute_tool') {
      const { structuredContent } = await client.callTool('get_server_tools', { server: 'desk' })
      expect((structuredContent.tools as Json[]).map(({ name }) => name).sort()).toEqual(visible)
      const found = await client.callTool('search_tools', { query: 'peek look', limit: 50 })
      expect((found.structuredContent.tools as Json[]).map(({ name }) => name)).toEqual(['look'])
      expect(await client.callTool('list_servers')).toMatchObject({
        structuredContent: { servers: [{ name: 'desk', tools: 5 }] },
      })
    } else {
      const listed = ((await client.request('tools/list')).tools as Json[]).map(({ name }) => String(name))
      expect(listed.map(name => name.replace('desk__', '')).sort()).toEqual(visible)
    }
  })

  test('a tool that its annotations exclude reads like one that does not exist', async () => {
    const client = await open()
    const answer = (tool: string) => call(client, way, tool, {}).then(errorOf, error => ({ message: error.message }))
    const [hidden, absent] = [await answer('peek'), await answer('none')]
    const { nearest: _, ...rest } = absent as Json
    const plain = (error: unknown) => JSON.stringify(error).replace(/TOOL_NOT_FOUND|DENIED_BY_POLICY/, 'CODE')
    if (way !== 'execute_tool') expect(plain(hidden)).toBe(plain(rest).replaceAll('none', 'peek'))
    else expect(hidden).toMatchObject({ code: 'DENIED_BY_POLICY', message: expect.stringContaining('does not exist') })
    expect(await call(client, way, 'look', {})).toMatchObject({ structuredContent: { name: 'look' } })
  })

  test('a person says yes', async () => {
    const client = await open({ capabilities: { elicitation: {} }, answer: () => ({ action: 'accept', content: {} }) })
    const path = '/home\u202e\n\u2028x'
    const result = await call(client, way, 'erase', { path })
    expect(result.structuredContent).toMatchObject({ name: 'erase', arguments: { path } })
    expect(client.asked).toHaveLength(1)
    const params = client.asked[0]?.params
    expect(params?.requestedSchema).toEqual({ type: 'object', properties: {} })
    expect(params?.message).toContain(
      '"erase" of the server "desk" with these arguments:\n  "path": "/home\\u202e\\n\\u2028x"\n',
    )
    await audited(
      { decision: 'ask', code: 'INPUT_REQUIRED', confirmation: 'asked', tool: 'erase' },
      { decision: 'ask', code: 'OK', confirmation: 'accepted', tool: 'erase' },
    )
  })

  test.each([
    ['decline', 'declined'],
    ['cancel', 'cancelled'],
  ])('a person says %s', async (action, confirmation) => {
    const client = await open({ answer: () => ({ action }) })
    const answered = await call(client, way, 'erase', { path: 'x' })
    const message = expect.stringContaining(`the person ${confirmation} it`)
    expect(errorOf(answered)).toMatchObject({ code: 'DENIED_BY_POLICY', message })
    await audited({ decision: 'ask', code: 'DENIED_BY_POLICY', confirmation })
  })

  test.each<[why: string, capabilities: Json]>([
    ['declares nothing', {}],
    ['opens pages only', { elicitation: { url: {} } }],
  ])('a client cannot be asked that %s', async (_, capabilities) => {
    const client = await open({ capabilities })
    expect(errorOf(await call(client, way, 'erase', { path: 'x' }))).toMatchObject({
      code: 'DENIED_BY_POLICY',
      message: expect.stringContaining('this client cannot be asked'),
    })
    await audited({ decision: 'ask', code: 'DENIED_BY_POLICY', confirmation: 'impossible' })
  })

  test('a client that answers with an error has not said yes', async () => {
    const client = await open({
      answer: () => {
        throw new Error('no window')
      },
    })
    const answered = await call(client, way, 'erase', { path: 'x' }).catch(error => error)
    expect(answered.structuredContent?.name).toBeUndefined()
    if (line.era === 'legacy') expect(errorOf(answered)).toMatchObject({ code: 'DENIED_BY_POLICY' })
  })

  test('nobody is asked about a call that is denied anyway', async () => {
    const client = await open()
    expect(errorOf(await call(client, way, 'move', { path: '/home/ann/../bob' }))).toMatchObject({
      code: 'DENIED_BY_POLICY',
      arguments: ['path'],
    })
    expect(client.asked).toEqual([])
    expect(await call(client, way, 'move', { path: '/home/ann/x' })).toMatchObject({
      structuredContent: { name: 'move' },
    })
    expect(client.asked).toHaveLength(1)
  })

  test.each<Json>([{ force: 1 }, { force: 'yes' }, { labels: '["secret"]' }, { labels: { 0: 'secret' } }])(
    'what a server may make of arguments that its schema does not allow is no way around: %j',
    async args => {
      const client = await open()
      expect(errorOf(await call(client, way, 'push', args))).toMatchObject({ code: 'INVALID_ARGUMENTS', tool: 'push' })
    },
  )

  test.each([true, 'True', 1, '1', 'yes', 'on', 't', 'y'])(
    'nor is it where the schema says nothing: %j',
    async loose => {
      const client = await open()
      expect(errorOf(await call(client, way, 'push', { loose }))).toMatchObject({
        code: 'DENIED_BY_POLICY',
        arguments: ['loose'],
      })
      expect(await call(client, way, 'push', { loose: 'no', force: false, labels: ['x'] })).toMatchObject({
        structuredContent: { name: 'push' },
      })
    },
  )

  test('a person is asked where some of it is what a rule asks about', async () => {
    const client = await open({ answer: () => ({ action: 'decline' }) })
    expect(errorOf(await call(client, way, 'push', { labels: ['x', 'prod'] }))?.code).toBe('DENIED_BY_POLICY')
    expect(client.asked).toHaveLength(1)
    await call(client, way, 'push', { labels: ['x'] })
    expect(client.asked).toHaveLength(1)
  })

  test('a person sees all of a call, what the rule and the tool name first', async () => {
    const client = await open({ answer: () => ({ action: 'decline' }) })
    const junk = Object.fromEntries(Array.from({ length: 90 }, (_, at) => [`a${at}`, at]))
    await call(client, way, 'push', { ...junk, loose: 'x'.repeat(5000), force: false, labels: ['prod', 'x'] })
    await call(client, way, 'erase', { ...junk, path: `${'/harmless'.repeat(600)}/x` })
    const [pushed, erased] = client.asked.map(({ params }) => String(params.message).split('\n').slice(1))
    const others = Object.entries(junk).map(([name, value]) => `  "${name}": ${value}`)
    const named = ['  "labels": ["prod","x"]', '  "force": false', `  "loose": "${'x'.repeat(5000)}"`]
    expect(pushed).toEqual([...named, ...others, 'Allow this call?'])
    expect(erased).toEqual([`  "path": "${'/harmless'.repeat(600)}/x"`, ...others, 'Allow this call?'])
  })

  test.each<[why: string, args: Json]>([
    ['it has 101 arguments, and the most is 100', Object.fromEntries(Array.from({ length: 101 }, (_, at) => [at, at]))],
    ['characters long, and the most is 16,000', { path: `${'x'.repeat(16_000)}; rm -rf /` }],
    ['characters long, and the most is 16,000', { path: '\u200b'.repeat(3_000) }],
  ])('a call that is too large to be shown is refused: %s', async (why, args) => {
    const client = await open()
    expect(errorOf(await call(client, way, 'erase', args))).toMatchObject({
      code: 'DENIED_BY_POLICY',
      confirmation_required: true,
      message: expect.stringMatching(`too large to be put to a person: .*${why}`),
    })
    expect(client.asked).toEqual([])
    await audited({ decision: 'ask', code: 'DENIED_BY_POLICY', confirmation: 'impossible' })
  })
})

test('at the door of a server, arguments that no condition is about are for the server to judge', async () => {
  const [line] = CLIENTS
  if (!line) throw new Error('no client')
  const client = await openClient(line, 'server')
  expect(await call(client, 'server', 'erase', { path: 5 })).toMatchObject({
    structuredContent: { name: 'erase', arguments: { path: 5 } },
  })
})

test('conditions hold for what goes out, after it was repaired', async () => {
  const write = (args: unknown, more: Json = {}) =>
    opened.call('execute_tool', { server: 'desk', tool: 'write', args, ...more }, 'clerk')
  for (const args of ['{"path":"/home/ann/x"}', { args: { path: '/home/ann/x' } }])
    expect(await write(args)).toMatchObject({ structuredContent: { arguments: { path: '/home/ann/x' } } })
  for (const args of ['{"path":"/x"}', { args: { path: '/x' } }, { path: '/home/ann/x', lines: 13 }])
    expect((await write(args)).structuredContent.error).toMatchObject({ code: 'DENIED_BY_POLICY' })
  expect((await write({ path: ['/home/ann/x'] })).structuredContent.error).toMatchObject({ code: 'INVALID_ARGUMENTS' })
  expect((await write({ path: '/x' }, { tool: 'desk__write' })).structuredContent.error).toMatchObject({
    code: 'DENIED_BY_POLICY',
    tool: 'write',
  })
})
