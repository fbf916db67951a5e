import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway, type TestResult } from '../fixtures/gateway.js'
import { askModern, beginSession, openTokens } from '../fixtures/http-clients.js'
import { openTalker } from '../fixtures/talker.js'

const ALL = { allow: { servers: ['*'] } }
const open: (AsyncDisposable | { close(): Promise<void> })[] = []
afterEach(async () => {
  for (const each of open.splice(0).reverse()) await ('close' in each ? each.close() : each[Symbol.asyncDispose]())
})

const rulesWith = (limits: unknown) => ({
  agents: { reader: ALL, writer: ALL, team: ALL, 'team.role': ALL, tester: ALL },
  limits,
})

async function start(limits: unknown, servers: Record<string, unknown> = {}): Promise<TestGateway> {
  const shops = { shop: nodeServer('shop.js'), other: nodeServer('shop.js') }
  const gateway = await openTestGateway({ servers: { ...shops, ...servers }, rules: rulesWith(limits) })
  open.push(gateway)
  return gateway
}

const execute = (gateway: TestGateway, more: Record<string, unknown> = {}, agent = 'reader') =>
  gateway.call('execute_tool', { server: 'shop', tool: 'list_tables', ...more }, agent)
const codeOf = (result: TestResult): unknown =>
  result.isError ? (result.structuredContent.error?.code ?? 'TOOL_ERROR') : 'OK'
const codes = (results: TestResult[]) => results.map(codeOf)

async function times(count: number, run: () => Promise<TestResult>): Promise<unknown[]> {
  const results: TestResult[] = []
  for (let index = 0; index < count; index++) results.push(await run())
  return codes(results)
}

const LIMITED = 'RATE_LIMITED'

describe('requests per minute', () => {
  test('the refusal is a tool result that says which limit, and when to try again; and a line in the audit log', async () => {
    const gateway = await start({ agents: { reader: { requestsPerMinute: 2 } } })
    expect(await times(2, () => execute(gateway))).toEqual(['OK', 'OK'])
    const { isError, structuredContent } = await execute(gateway)
    expect(isError).toBe(true)
    expect(structuredContent.error).toEqual({
      code: LIMITED,
      message: expect.stringMatching(
        /^the agent reader may make 2 requests a minute \(limits\.agents\.reader\): try again in \d+ s$/,
      ),
      retry_after_ms: expect.any(Number),
      limit: 'limits.agents.reader',
    })
    expect(structuredContent.error?.retry_after_ms).toBeGreaterThan(50_000)
    expect(await times(1, () => execute(gateway, {}, 'writer'))).toEqual(['OK'])
    expect((await gateway.auditLines(4)).map(({ code }) => code)).toEqual(['OK', 'OK', LIMITED, 'OK'])
  })

  test('the small tools count as well', async () => {
    const gateway = await start({ agents: { reader: { requestsPerMinute: 2 } } })
    expect(codeOf(await gateway.call('list_servers', { agent_id: 'reader' }))).toBe('OK')
    expect(codeOf(await gateway.call('search_tools', { query: 'x', agent_id: 'reader' }))).toBe('OK')
    expect(codeOf(await gateway.call('list_servers', { agent_id: 'reader' }))).toBe(LIMITED)
    expect(codeOf(await gateway.call('list_servers', { agent_id: 'writer' }))).toBe('OK')
  })

  test.each<[what: string, limits: unknown, other: Record<string, unknown>]>([
    ['a server', { servers: { shop: { requestsPerMinute: 1 } } }, { server: 'other' }],
    ['servers by a pattern, each for itself', { servers: { '*': { requestsPerMinute: 1 } } }, { server: 'other' }],
    ['a tool', { tools: { 'shop/list_tables': { requestsPerMinute: 1 } } }, { tool: 'list_views' }],
    [
      'tools by a pattern, each for itself',
      { tools: { 'shop/list_*': { requestsPerMinute: 1 } } },
      { tool: 'list_views' },
    ],
    [
      'a tool, before a pattern that allows more',
      { tools: { '*/*': { requestsPerMinute: 9 }, 'shop/list_tables': { requestsPerMinute: 1 } } },
      { tool: 'list_views' },
    ],
  ])('%s', async (_, limits, other) => {
    const gateway = await start(limits)
    expect(await times(2, () => execute(gateway))).toEqual(['OK', LIMITED])
    expect(await times(1, () => execute(gateway, other))).toEqual(['OK'])
  })

  test('what one limit refuses counts for no other', async () => {
    const gateway = await start({
      agents: { reader: { requestsPerMinute: 2 } },
      tools: { 'shop/list_tables': { requestsPerMinute: 1 } },
    })
    expect(await times(5, () => execute(gateway))).toEqual(['OK', LIMITED, LIMITED, LIMITED, LIMITED])
    expect(await times(2, () => execute(gateway, { tool: 'list_views' }))).toEqual(['OK', LIMITED])
  })

  test('names below an entry are no way around its limit', async () => {
    const gateway = await start({ agents: { team: { requestsPerMinute: 2 } } })
    expect(await times(1, () => execute(gateway, {}, 'team.a'))).toEqual(['OK'])
    expect(await times(1, () => execute(gateway, {}, 'team.role'))).toEqual(['OK'])
    expect(await times(1, () => execute(gateway, {}, 'team.b'))).toEqual([LIMITED])
    const other = await start({ agents: { '*': { requestsPerMinute: 1 } } })
    expect(await times(1, () => execute(other, {}, 'team.a'))).toEqual(['OK'])
    expect(await times(1, () => execute(other, {}, 'team.b'))).toEqual([LIMITED])
    expect(await times(1, () => execute(other, {}, 'team.role'))).toEqual(['OK'])
  })

  test('a new version of the rules has its limits at once, and what was counted stays', async () => {
    const gateway = await start({ agents: { reader: { requestsPerMinute: 2 } } })
    expect(await times(3, () => execute(gateway))).toEqual(['OK', 'OK', LIMITED])
    const { fingerprint } = gateway.gateway.runtime.current.config
    const changed = rulesWith({ agents: { reader: { requestsPerMinute: 4 } } })
    await writeFile(join(gateway.directory, '.mcp-gateway-rules.json'), JSON.stringify(changed))
    await expect.poll(() => gateway.gateway.runtime.current.config.fingerprint).not.toBe(fingerprint)
    expect(await times(3, () => execute(gateway))).toEqual(['OK', 'OK', LIMITED])
  })
})

describe('concurrent calls', () => {
  const silent = { tool: 'silent', timeout_ms: 400 }

  test('are free again however a call ends', async () => {
    const gateway = await start({ agents: { reader: { concurrent: 1 } } })
    const principal = gateway.gateway.localCaller('reader')
    for (const tool of ['list_tables', 'failing', 'refusing', 'nowhere', 'query']) await execute(gateway, { tool })
    expect(await times(1, () => execute(gateway))).toEqual(['OK'])

    const waiting = execute(gateway, silent)
    await expect.poll(() => gateway.gateway.runtime.inFlight).toBe(1)
    const refused = await execute(gateway)
    expect(refused.structuredContent.error).toMatchObject({ code: LIMITED, retry_after_ms: 1_000 })
    expect(codeOf(await waiting)).toBe('TIMEOUT')
    expect(await times(1, () => execute(gateway))).toEqual(['OK'])

    const controller = new AbortController()
    const caller = { principal, era: 'modern', signal: controller.signal } as const
    const cancelled = gateway.gateway.tools.call('execute_tool', { server: 'shop', tool: 'silent' }, caller)
    await expect.poll(() => gateway.gateway.runtime.inFlight).toBe(1)
    controller.abort()
    expect(codeOf((await cancelled) as unknown as TestResult)).toBe('OUTCOME_UNKNOWN')
    expect(await times(1, () => execute(gateway))).toEqual(['OK'])

    expect(codeOf(await execute(gateway, { tool: 'dying' }))).not.toBe('OK')
    await expect.poll(async () => codeOf(await execute(gateway))).toBe('OK')
  })

  test('of a server, whoever calls', async () => {
    const gateway = await start({ servers: { shop: { concurrent: 2 } } })
    await execute(gateway)
    const waiting = [execute(gateway, silent), execute(gateway, silent, 'writer')]
    await expect.poll(() => gateway.gateway.runtime.inFlight).toBe(2)
    expect(await times(1, () => execute(gateway, {}, 'team'))).toEqual([LIMITED])
    expect(await times(1, () => execute(gateway, { server: 'other' }))).toEqual(['OK'])
    expect(codes(await Promise.all(waiting))).toEqual(['TIMEOUT', 'TIMEOUT'])
  })

  test('a call that waits for a person is none', async () => {
    const talker = await openTalker('legacy', 'stdio')
    open.push(talker)
    const gateway = await start({ principals: { '*': { concurrent: 1 } } }, { talker: talker.entry })
    const front = await gateway.gateway.serveHttp({ port: 0 })
    const token = await front.issueToken('tester', 600)
    const question = {
      method: 'elicitation/create',
      params: { message: 'Which?', requestedSchema: { type: 'object', properties: {} } },
    }
    const call = (more: Record<string, unknown> = {}) => {
      const params = {
        name: 'execute_tool',
        arguments: { server: 'talker', tool: 'ask', args: { rounds: [[question]] } },
      }
      return askModern(
        front.url,
        token,
        'tools/call',
        { ...params, ...more },
        { capabilities: { elicitation: { form: {} } } },
      )
    }
    const asked = (await call()).answer.result ?? {}
    expect(asked).toMatchObject({ resultType: 'input_required' })
    const other = { name: 'execute_tool', arguments: { server: 'shop', tool: 'list_tables' } }
    const meanwhile = () => askModern(front.url, token, 'tools/call', other)
    for (let round = 0; round < 3; round++) expect((await meanwhile()).answer.result?.isError).not.toBe(true)
    const [key = ''] = Object.keys(asked.inputRequests as object)
    const inputResponses = { [key]: { action: 'accept', content: {} } }
    const { answer } = await call({ inputResponses, requestState: asked.requestState })
    expect(answer.result?.structuredContent).toMatchObject({ answers: [[{ action: 'accept' }]] })
    expect((await meanwhile()).answer.result?.isError).not.toBe(true)
  })
})

describe('over HTTP', () => {
  test('each principal has its own, and a new session changes nothing', async () => {
    const gateway = await start({ principals: { '*': { requestsPerMinute: 3 }, vip: { requestsPerMinute: 100 } } })
    const { url } = await gateway.gateway.serveHttp({ port: 0 })
    const token = await openTokens(gateway, url)
    const alice = await token({ agents: ['reader'], sub: 'alice' })
    const call = async (bearer: string) => {
      const session = await beginSession(url, bearer)
      const { answer } = await session.call('list_servers')
      return codeOf(answer.result as unknown as TestResult)
    }
    expect([await call(alice), await call(alice), await call(alice), await call(alice)]).toEqual([
      'OK',
      'OK',
      'OK',
      LIMITED,
    ])
    // Another token of hers is still hers.
    expect(await call(await token({ agents: ['reader'], sub: 'alice' }))).toBe(LIMITED)
    // With another client she is another principal, as she would be with another issuer.
    expect(await call(await token({ agents: ['reader'], sub: 'alice', clientId: 'other' }))).toBe('OK')
    expect(await call(await token({ agents: ['reader'], sub: 'bob' }))).toBe('OK')
    const vip = await token({ agents: ['reader'], sub: 'vip' })
    for (let round = 0; round < 5; round++) expect(await call(vip)).toBe('OK')
  })

  test('a call and the answer to what it asked are one', async () => {
    const ask = { allow: { servers: ['shop'], tools: { shop: [{ tool: 'list_*', effect: 'ask' }] } } }
    const limits = { principals: { '*': { requestsPerMinute: 1 } }, tools: { 'shop/*': { requestsPerMinute: 1 } } }
    const gateway = await openTestGateway({
      servers: { shop: nodeServer('shop.js') },
      rules: { agents: { reader: ask }, limits },
    })
    open.push(gateway)
    const front = await gateway.gateway.serveHttp({ port: 0 })
    const token = await front.issueToken('reader', 600)
    const call = async (retry = {}) => {
      const params = { name: 'execute_tool', arguments: { server: 'shop', tool: 'list_tables' }, ...retry }
      const client = { capabilities: { elicitation: { form: {} } } }
      return (await askModern(front.url, token, 'tools/call', params, client)).answer.result ?? {}
    }
    const { inputRequests, requestState } = await call()
    const [key = ''] = Object.keys(inputRequests as object)
    const yes = { inputResponses: { [key]: { action: 'accept', content: {} } }, requestState }
    expect((await call(yes)).isError).not.toBe(true)
    expect(codeOf((await call(yes)) as unknown as TestResult)).toBe(LIMITED)
  })

  test('who lives by a role alone has the limits of its agent too, whatever it calls itself', async () => {
    const files = {
      servers: {},
      rules: {
        agents: {},
        roles: { reader: ALL },
        identity: { roles: { reader: { sub: 'ann' } } },
        limits: { agents: { '*': { requestsPerMinute: 2 } } },
      },
    }
    const gateway = await openTestGateway(files)
    open.push(gateway)
    const { url } = await gateway.gateway.serveHttp({ port: 0 })
    const token = await (await openTokens(gateway, url))({ agents: ['ghost*'], sub: 'ann' })
    const outcome = async (name: string) => {
      const { answer } = await askModern(url, token, 'tools/call', {
        name: 'list_servers',
        arguments: { agent_id: name },
      })
      return codeOf(answer.result as unknown as TestResult)
    }
    expect([await outcome('ghost1'), await outcome('ghost2'), await outcome('ghost3')]).toEqual(['OK', 'OK', LIMITED])
  })

  test('what is no tool call is refused with a JSON-RPC error', async () => {
    const talker = await openTalker('modern', 'http')
    open.push(talker)
    const gateway = await start({ agents: { tester: { requestsPerMinute: 2 } } }, { talker: talker.entry })
    const front = await gateway.gateway.serveHttp({ port: 0 })
    const token = await front.issueToken('tester', 600)
    const url = front.url.replace('/mcp', '/servers/talker/mcp')
    const ask = (method: string, params = {}) => askModern(url, token, method, params)
    expect((await ask('resources/read', { uri: 'talk://plain' })).answer.result).toBeDefined()
    expect((await ask('prompts/list')).answer.result).toBeDefined()
    for (const [method, params] of [
      ['resources/read', { uri: 'talk://plain' }],
      ['prompts/list', {}],
      ['tools/list', {}],
    ] as const) {
      expect((await ask(method, params)).answer.error).toMatchObject({
        code: -32603,
        message: expect.stringContaining('2 requests a minute'),
        data: { code: LIMITED, retry_after_ms: expect.any(Number) },
      })
    }
    const called = (await ask('tools/call', { name: 'echo', arguments: {} })).answer.result
    expect(called).toMatchObject({ isError: true, structuredContent: { error: { code: LIMITED } } })
  })
})
