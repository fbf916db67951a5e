import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

const META = 'io.modelcontextprotocol/serverInfo'

const rules = { agents: { reader: { allow: { servers: ['shop'] }, deny: { tools: { shop: ['drop_*'] } } } } }

let opened: TestGateway
let url: string
let token: string
beforeAll(async () => {
  opened = await openTestGateway({ servers: { shop: nodeServer('shop.js') }, rules })
  const front = await opened.gateway.serveHttp({ port: 0 })
  url = front.url
  token = await front.issueToken('reader', 60)
})
afterAll(() => opened.close())

const execute = (tool: string, args: Record<string, unknown> = {}, rest = {}) => ({
  name: 'execute_tool',
  arguments: { server: 'shop', tool, args, ...rest },
})

const calls: readonly [string, Record<string, unknown>][] = [
  ['list_servers', { name: 'list_servers', arguments: {} }],
  ['list_servers without arguments', { name: 'list_servers' }],
  ['search_tools', { name: 'search_tools', arguments: { query: 'list the tables' } }],
  ['get_server_tools', { name: 'get_server_tools', arguments: { server: 'shop', pattern: 'list_*' } }],
  ['a plain result', execute('query', { sql: 'a' })],
  ['caller _meta', { ...execute('query', { sql: 'a' }), _meta: { traceparent: '00-ab-cd-01', 'example.com/x': 1 } }],
  ['a tool error', execute('failing')],
  ['a list as structured content', execute('list_result')],
  ['a refusal of the server', execute('refusing')],
  ['a denied tool', execute('drop_table', { name: 'x' })],
  ['an unknown tool', execute('nothing')],
  ['bad arguments', execute('query', { sql: 1 })],
  ['bad gateway arguments', { name: 'execute_tool', arguments: { server: 'shop' } }],
  ['an agent that is not the caller’s', { name: 'list_servers', arguments: { agent_id: 'root' } }],
  ['a timeout', execute('silent', {}, { timeout_ms: 50 })],
]

describe.each(['legacy', 'modern'] as const)('%s: both lanes give the same answer', era => {
  const send = (params: Record<string, unknown>) => ask(url, mcpRequest(era, token, 'tools/call', params))

  test.each(calls)('%s', async (_, params) => {
    const direct = await send(params)
    // A progress token sends the same call through the SDK, on both sides.
    const viaSdk = await send({ ...params, _meta: { ...(params._meta as object), progressToken: 'p' } })
    expect(direct.status).toBe(200)
    expect(direct.headers['content-type']).toBe('application/json')
    expect(direct.json()).toEqual(viaSdk.json())
  })

  test('the answer is shaped for its era', async () => {
    const { result } = (await send(execute('list_result'))).json()
    if (era === 'legacy') expect(result).toEqual({ content: [], structuredContent: { result: [1, 2] } })
    else
      expect(result).toEqual({
        content: [],
        structuredContent: [1, 2],
        resultType: 'complete',
        _meta: { [META]: expect.objectContaining({ name: 'agent-mcp-gateway' }) },
      })
  })

  test("the caller's _meta reaches the server without what belongs to the hop", async () => {
    const { result } = (
      await send({ ...execute('query', { sql: 'a' }), _meta: { traceparent: '00-ab-cd-01', 'example.com/x': 1 } })
    ).json()
    expect(result?.structuredContent).toMatchObject({ meta: { traceparent: '00-ab-cd-01', 'example.com/x': 1 } })
  })

  test('progress reaches the caller who asked for it', async () => {
    const { text } = await send({ ...execute('query', { sql: 'a' }), _meta: { progressToken: 'p' } })
    const notification = text.split('\n').find(line => line.includes('notifications/progress'))
    expect(JSON.parse(String(notification).slice('data: '.length))).toMatchObject({
      method: 'notifications/progress',
      params: { progressToken: 'p', progress: 1, total: 2, message: 'half' },
    })
  })

  test('an unknown gateway tool is a JSON-RPC error', async () => {
    const { json } = await send({ name: 'shop__query', arguments: {} })
    expect(json().error).toMatchObject({ code: -32602 })
  })

  test('the list is the same every time and has only the small tools', async () => {
    const list = () =>
      ask(url, mcpRequest(era, token, 'tools/list', {})).then(({ json }) => json().result?.tools as { name: string }[])
    const first = await list()
    expect(first.map(({ name }) => name)).toEqual([
      'list_servers',
      'search_tools',
      'get_server_tools',
      'execute_tool',
      'get_gateway_status',
    ])
    expect(JSON.stringify(await list())).toBe(JSON.stringify(first))
  })
})

describe('what the direct lane leaves to the SDK', () => {
  const modern = () => mcpRequest('modern', token, 'tools/call', execute('list_tables'))

  test.each<[string, Record<string, string>, number, number]>([
    ['a version header that differs', { 'mcp-protocol-version': '2025-11-25' }, 400, -32020],
    ['a method header that differs', { 'mcp-method': 'tools/list' }, 400, -32020],
    ['a name header that differs', { 'mcp-name': 'list_servers' }, 400, -32020],
  ])('%s', async (_, headers, status, code) => {
    const question = modern()
    const answer = await ask(url, { ...question, headers: { ...question.headers, ...headers } })
    expect([answer.status, answer.json().error?.code]).toEqual([status, code])
  })

  test('a version nobody speaks', async () => {
    const question = modern()
    const body = String(question.body).replace('2026-07-28', '2099-01-01')
    const answer = await ask(url, {
      ...question,
      headers: { ...question.headers, 'mcp-protocol-version': '2099-01-01' },
      body,
    })
    expect([answer.status, answer.json().error?.code]).toEqual([400, -32022])
  })

  test('an unknown method of 2026 is 404', async () => {
    const answer = await ask(url, mcpRequest('modern', token, 'no/such', {}))
    expect([answer.status, answer.json().error?.code]).toEqual([404, -32601])
  })

  test('a client of 2025 that accepts JSON only is told so', async () => {
    const question = mcpRequest('legacy', token, 'tools/call', execute('list_tables'))
    expect((await ask(url, { ...question, headers: { ...question.headers, accept: 'application/json' } })).status).toBe(
      406,
    )
  })
})

test('a client of 2026 that hangs up cancels the call at the server', async () => {
  const other = await openTestGateway({ servers: { shop: nodeServer('shop.js') }, rules })
  const front = await other.gateway.serveHttp({ port: 0 })
  const controller = new AbortController()
  const { headers, body } = mcpRequest('modern', await front.issueToken('reader', 60), 'tools/call', execute('silent'))
  const init = {
    method: 'POST',
    headers: headers as Record<string, string>,
    body: String(body),
    signal: controller.signal,
  }
  const pending = fetch(front.url, init)
  await expect.poll(() => other.gateway.runtime.inFlight).toBe(1)
  controller.abort()
  await expect(pending).rejects.toThrow('aborted')
  expect(await other.auditLines(1)).toMatchObject([{ tool: 'silent', code: 'OUTCOME_UNKNOWN' }])
  await other.close()
})
