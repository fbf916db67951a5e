import { expect, test } from 'vitest'
import { OWNER, openBackend } from '../fixtures/backend.js'
import { createServer } from '../fixtures/servers/by-hand.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { FORGOTTEN, openByHand, openLegacySessions, openOldSse, openSdkServer } from '../fixtures/servers.js'

const rich = (era: 'legacy' | 'modern' = 'legacy') => {
  let executions = 1
  return createRichServer({ eras: [era], countExecution: () => ++executions })
}

const count = (http: { received: readonly { body: Readonly<Record<string, unknown>> }[] }, method: string) =>
  http.received.filter(({ body }) => body.method === method).length

test('50 concurrent first calls open one session', async () => {
  await using http = await openLegacySessions(rich())
  await using server = openBackend({ url: http.url })
  await Promise.all(Array.from({ length: 50 }, () => server.call('text')))
  expect(count(http, 'initialize')).toBe(1)
  expect(count(http, 'tools/list')).toBe(1)
  expect(count(http, 'tools/call')).toBe(50)
})

test.each([404, 400] as const)(
  'a forgotten session (%i) is opened again, once, and the call succeeds',
  async status => {
    await using http = await openLegacySessions(rich(), { forgotten: FORGOTTEN[status] })
    await using server = openBackend({ url: http.url })
    await server.call('text')
    http.forget()
    expect(await server.ask('break')).toEqual({ executions: 2 })
    expect(count(http, 'initialize')).toBe(2)
    expect(await server.call('text')).toHaveProperty('content')
    expect(count(http, 'initialize')).toBe(2)
  },
)

test('concurrent calls into a forgotten session open one new one', async () => {
  await using http = await openLegacySessions(rich())
  await using server = openBackend({ url: http.url })
  await server.call('text')
  http.forget()
  const results = await Promise.all(Array.from({ length: 10 }, () => server.call('empty')))
  expect(results).toEqual(Array.from({ length: 10 }, () => ({ content: [] })))
  expect(count(http, 'initialize')).toBe(2)
})

test('a tool list that has to be read in a forgotten session is read in a new one', async () => {
  const tools = [{ name: 'hello', inputSchema: { type: 'object' } }]
  await using http = await openLegacySessions(createServer({ list: () => ({ tools, ttlMs: 1_000 }) }))
  await using server = openBackend({ url: http.url })
  await server.call('hello')
  http.forget()
  await expect.poll(() => server.backend.freshTools(OWNER), { timeout: 5_000 }).toBeUndefined()
  expect(await server.call('hello')).toEqual({ content: [] })
  expect(count(http, 'initialize')).toBe(2)
})

test('closing ends the session', async () => {
  await using http = await openLegacySessions(rich())
  const server = openBackend({ url: http.url })
  await server.call('text')
  await server.backend.close()
  expect(http.received.filter(({ method }) => method === 'DELETE')).toHaveLength(1)
})

test.each(['legacy', 'modern'] as const)('a server that was away is used again when it is back (%s)', async era => {
  await using first = await openByHand(rich(era))
  await using server = openBackend({ url: first.url })
  await server.call('text')
  await first.close()
  // The first call may still have met the end of a kept connection.
  const failure = () => server.call('text').then(String, ({ code }: { code: string }) => code)
  await expect.poll(failure).toBe('SERVER_UNAVAILABLE')
  await using second = await openByHand(rich(era), { port: first.port })
  const again = () => server.call('empty').catch((error: unknown) => error)
  await expect.poll(again, { timeout: 10_000 }).toEqual({ content: [] })
  expect(count(second, 'tools/call')).toBe(1)
})

test('HTTP+SSE: when the stream was lost, the next call opens a new one', async () => {
  await using http = await openOldSse(rich())
  await using server = openBackend({ url: http.url, transport: 'sse', timeoutMs: 2_000 })
  await server.call('text')
  http.hangUp()
  const again = () => server.call('empty').catch((error: unknown) => error)
  await expect.poll(again, { timeout: 8_000 }).toEqual({ content: [] })
})

test.each([
  { means: 'Streamable HTTP, 2025 era', open: () => openLegacySessions(rich()), entry: {} },
  { means: 'Streamable HTTP, 2026-07-28', open: () => openSdkServer(), entry: {} },
  { means: 'HTTP+SSE', open: () => openOldSse(rich()), entry: { transport: 'sse' } },
  { means: 'HTTP+SSE under "http"', open: () => openOldSse(rich()), entry: { transport: 'http' } },
])('configured headers are in every request: $means', async ({ open, entry }) => {
  await using http = await open()
  const headers = { Authorization: `Bearer \${TOKEN}`, 'X-Team': 'blue' }
  const env = { TOKEN: 'static-token' }
  const server = openBackend({ url: http.url, headers, ...entry }, { env })
  const [first = ''] = await server.toolNames()
  await server.call(first)
  expect(server.backend.status().auth).toEqual({ kind: 'header' })
  await server.backend.close()
  expect(count(http, 'tools/call')).toBe(1)
  for (const { headers: sent } of http.received)
    expect(sent).toMatchObject({ authorization: 'Bearer static-token', 'x-team': 'blue' })
})

test('a 2026-07-28 server gets the headers of that revision', async () => {
  await using http = await openByHand(rich('modern'))
  await using server = openBackend({ url: http.url })
  await server.call('text')
  const { headers, body } = http.received.find(request => request.body.method === 'tools/call') ?? {}
  expect(headers).toMatchObject({
    'mcp-protocol-version': '2026-07-28',
    'mcp-method': 'tools/call',
    'mcp-name': 'text',
  })
  expect(body?.params).toMatchObject({
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientInfo': { name: 'agent-mcp-gateway' },
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  })
})

test('a 2026-07-28 tool whose name cannot stand in a header is called all the same', async () => {
  const tools = ['größe', ' padded ', 'a\tb', '=?base64?x?='].map(name => ({ name, inputSchema: { type: 'object' } }))
  const call = ({ name }: { name?: string }, { reply }: { reply: (result: Record<string, unknown>) => void }) =>
    reply({ content: [], structuredContent: { name } })
  await using http = await openByHand(createServer({ eras: ['modern'], tools, call }))
  await using server = openBackend({ url: http.url })
  for (const { name } of tools) expect(await server.ask(name)).toEqual({ name })
})

const base64 = (text: string) => `=?base64?${Buffer.from(text).toString('base64')}?=`

test.each([
  { args: { region: 'eu-west-1' }, headers: { region: 'eu-west-1' } },
  { args: { region: 'Zürich\n' }, headers: { region: base64('Zürich\n') } },
  { args: { region: ' padded ' }, headers: { region: base64(' padded ') } },
  { args: { region: '' }, headers: { region: base64('') } },
  { args: { region: '=?base64?eA==?=' }, headers: { region: base64('=?base64?eA==?=') } },
  { args: { shard: 42, dry: false, nested: { zone: 'b' } }, headers: { shard: '42', 'dry-run': 'false', zone: 'b' } },
  { args: { region: 'a', nested: {} }, headers: { region: 'a' } },
  { args: {}, headers: {} },
])('x-mcp-header: $args travels as $headers too', async ({ args, headers }) => {
  await using http = await openSdkServer()
  await using server = openBackend({ url: http.url })
  const result = await server.call('regional', args)
  expect(result).toMatchObject({ content: [{ type: 'text', text: JSON.stringify(args) }] })
  const { headers: sent = {} } = http.received.find(request => request.body.method === 'tools/call') ?? {}
  const mirrored = Object.entries(sent).filter(([name]) => name.startsWith('mcp-param-'))
  expect(mirrored).toEqual(Object.entries(headers).map(([name, value]) => [`mcp-param-${name}`, value]))
})

test('an SDK server accepts a name that cannot stand in a header', async () => {
  await using http = await openSdkServer()
  await using server = openBackend({ url: http.url })
  expect(await server.call('größe')).toMatchObject({ content: [] })
})

test('x-mcp-header: the server does refuse a call without it', async () => {
  await using http = await openSdkServer()
  await using server = openBackend({ url: http.url })
  const { headers, body } = await openingOf(server, http)
  const answer = await fetch(http.url, { method: 'POST', headers, body: JSON.stringify(body) })
  expect(await answer.json()).toMatchObject({ error: { code: -32020 } })
})

/** The request of a call that works, without its parameter header. */
async function openingOf(server: ReturnType<typeof openBackend>, http: Awaited<ReturnType<typeof openSdkServer>>) {
  await server.call('regional', { region: 'eu' })
  const { headers, body } = http.received.find(request => request.body.method === 'tools/call') ?? {}
  const names = ['content-type', 'accept', 'mcp-protocol-version', 'mcp-method', 'mcp-name']
  return { headers: Object.fromEntries(names.map(name => [name, String(headers?.[name])])), body }
}
