import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { askModern, beginSession, commonHeaders, exchange, modern, openTokens } from '../fixtures/http-clients.js'

const allow = { servers: ['desk'], tools: { desk: ['look', 'write', 'erase'] } }
const rules = {
  agents: { clerk: { allow }, direct: { expose: 'direct', allow } },
  scopes: {
    'desk/erase': ['mcp:desk:erase', 'mcp:desk:write'],
    'd*/write': ['mcp:desk:write'],
    '*/peek': ['mcp:peek'],
  },
}

let opened: TestGateway
let mcp: string
let token: Awaited<ReturnType<typeof openTokens>>
let poor: string
let rich: string
beforeAll(async () => {
  opened = await openTestGateway({ servers: { desk: nodeServer('desk.js') }, rules })
  mcp = (await opened.gateway.serveHttp({ port: 0 })).url
  token = await openTokens(opened, mcp)
  poor = await token({ agents: ['clerk'], scope: 'mcp' })
  rich = await token({ agents: ['clerk'], scope: 'mcp:desk:*' })
})
afterAll(() => opened.close())

const server = () => `${new URL(mcp).origin}/servers/desk/mcp`
const execute = (tool: string, args: unknown = {}, more = {}) => ({
  name: 'execute_tool',
  arguments: { server: 'desk', tool, args, ...more },
})

/** Every way a call of the tool may be written. */
const WAYS: readonly [string, () => string, Record<string, unknown>][] = [
  ['execute_tool', () => mcp, execute('erase')],
  ['execute_tool, prefixed', () => mcp, execute('desk__erase')],
  ['execute_tool, prefix alone', () => mcp, { name: 'execute_tool', arguments: { tool: 'desk__erase' } }],
  [
    'execute_tool in itself',
    () => mcp,
    { name: 'execute_tool', arguments: { tool: 'execute_tool', args: { server: 'desk', tool: 'erase', args: {} } } },
  ],
  ['direct', () => `${mcp}?expose=direct`, { name: 'desk__erase', arguments: {} }],
  ['direct, by a small tool', () => `${mcp}?expose=direct`, execute('erase')],
  ['/servers/desk/mcp', server, { name: 'erase', arguments: {} }],
]

describe.each(WAYS)('%s', (_, url, params) => {
  const required = ['mcp:desk:erase', 'mcp:desk:write']

  test.each(['legacy', 'modern'] as const)('a token with too little scope is challenged: %s', async era => {
    const { status, headers, json } = await ask(url(), mcpRequest(era, poor, 'tools/call', params))
    const error_description = 'the token lacks the scope mcp:desk:erase mcp:desk:write'
    expect([status, json()]).toEqual([
      403,
      { error: 'insufficient_scope', error_description, required_scopes: required },
    ])
    const path = new URL(url()).pathname
    expect(headers['content-type']).toContain('application/json')
    expect(headers['www-authenticate']).toBe(
      `Bearer resource_metadata="${new URL(mcp).origin}/.well-known/oauth-protected-resource${path}", scope="mcp:desk:erase mcp:desk:write", error="insufficient_scope", error_description="${error_description}"`,
    )
    await expect
      .poll(async () => (await opened.auditLines(1)).at(-1))
      .toMatchObject({
        operation: params.name === 'execute_tool' ? 'execute_tool' : 'tools/call',
        agent: 'clerk',
        server: 'desk',
        decision: 'deny',
        rule: 'scopes["desk/erase"]',
        code: 'DENIED_BY_POLICY',
      })
  })

  test('before a stream begins', async () => {
    const _meta = { progressToken: 'p' }
    expect(await exchange(url(), modern(poor, 'tools/call', { ...params, _meta }))).toMatchObject({ status: 403 })
  })

  test('with them it is called', async () => {
    const { status, answer } = await askModern(url(), rich, 'tools/call', params)
    expect([status, answer.result?.structuredContent?.name]).toEqual([200, 'erase'])
  })

  test('all that is needed is asked for, also when half of it is there', async () => {
    const half = await token({ agents: ['clerk'], scope: 'mcp:desk:write' })
    const { status, json } = await ask(url(), mcpRequest('modern', half, 'tools/call', params))
    expect([status, json().required_scopes]).toEqual([403, required])
  })
})

test('a session goes by the token of each request', async () => {
  const session = await beginSession(mcp, rich)
  const params = execute('erase')
  const call = (by: string) => session.as({ token: by }).call(params.name, params.arguments)
  expect((await call(poor)).status).toBe(403)
  expect((await call(rich)).answer.result?.structuredContent).toMatchObject({ name: 'erase' })
  const began = await beginSession(mcp, poor)
  expect((await began.as({ token: rich }).call(params.name, params.arguments)).answer.result).toMatchObject({
    structuredContent: { name: 'erase' },
  })
})

test('a batch is challenged for all of it at once', async () => {
  const session = await beginSession(mcp, poor, { version: '2025-03-26' })
  const call = (id: number, tool: string) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: execute(tool) })
  const { status, text } = await session.post([call(1, 'write'), call(2, 'look'), call(3, 'erase')])
  expect([status, JSON.parse(text()).required_scopes]).toEqual([403, ['mcp:desk:write', 'mcp:desk:erase']])
})

test('a batch that is too long is refused before anything is looked at', async () => {
  const session = await beginSession(mcp, await token({ agents: ['clerk'], sub: 'hurried' }), { version: '2025-03-26' })
  const call = (id: number) => ({ jsonrpc: '2.0', id, method: 'tools/call', params: execute('write') })
  const { status, text } = await session.post(Array.from({ length: 101 }, (_, id) => call(id)))
  expect([status, JSON.parse(text()).error]).toMatchObject([400, { code: -32600 }])
  expect((await session.post(Array.from({ length: 2 }, (_, id) => call(id)))).status).toBe(403)
  const own = async () => (await opened.auditLines(1)).filter(({ principal }) => principal === 'hurried')
  await expect.poll(async () => (await own()).length).toBe(2)
})

test('no scope is asked for what needs none, or is refused for another reason', async () => {
  const answerTo = async (params: Record<string, unknown>) => {
    const { status, answer } = await askModern(mcp, poor, 'tools/call', params)
    return [status, (answer.result?.structuredContent?.error as Record<string, unknown> | undefined)?.code]
  }
  expect(await answerTo(execute('look'))).toEqual([200, undefined])
  expect(await answerTo(execute('peek'))).toEqual([200, 'DENIED_BY_POLICY'])
  expect(await answerTo(execute('erase', {}, { server: 'other' }))).toEqual([200, 'DENIED_BY_POLICY'])
  expect(await answerTo(execute('erase', {}, { agent_id: 'other' }))).toEqual([200, 'INVALID_AGENT_ID'])
})

test('lists show what more scopes would allow', async () => {
  const params = { name: 'get_server_tools', arguments: { server: 'desk' } }
  const { answer } = await askModern(mcp, poor, 'tools/call', params)
  expect(answer.result?.structuredContent).toMatchObject({ returned: 3 })
})

test('the person at this machine needs none', async () => {
  const result = await opened.call('execute_tool', { server: 'desk', tool: 'erase', args: {} }, 'clerk')
  expect(result.structuredContent).toMatchObject({ name: 'erase' })
})

test('a call that gets past the door without its scopes is not made', async () => {
  const principal = { id: 'u', key: 'u', agents: ['clerk'] }
  const result = await opened.gateway.tools.call('execute_tool', execute('erase').arguments, {
    principal,
    era: 'modern',
  })
  expect(result.structuredContent).toMatchObject({
    error: { code: 'DENIED_BY_POLICY', required_scopes: ['mcp:desk:erase', 'mcp:desk:write'] },
  })
})

test('what is no call is left to whoever answers it', async () => {
  for (const body of ['[]', '[1]', '{"method":"tools/call"}', '{"method":"tools/call","params":{"name":1}}'])
    expect((await exchange(mcp, { headers: commonHeaders(poor), body })).status).not.toBe(403)
})
