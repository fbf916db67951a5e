import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type Json, type Message } from '../fixtures/clients.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { askModern, openTokens } from '../fixtures/http-clients.js'

const KEY = 'agent-mcp-gateway/confirm'
const ACCEPT = { action: 'accept', content: {} }
const ELICITATION = { elicitation: { form: {} } }

describe('an answer is good once, for what was asked, for whoever was asked', () => {
  let opened: TestGateway
  let mcp: string
  let tokens: readonly [string, string]
  beforeAll(async () => {
    const access = { allow: { servers: ['desk'], tools: { desk: ['look', { tool: 'erase', effect: 'ask' }] } } }
    opened = await openTestGateway({
      servers: { desk: nodeServer('desk.js') },
      rules: { agents: { clerk: access, 'clerk.two': access } },
    })
    mcp = (await opened.gateway.serveHttp({ port: 0 })).url
    const token = await openTokens(opened, mcp)
    tokens = [await token({ agents: ['clerk'] }), await token({ agents: ['clerk'], sub: 'someone-else' })]
  })
  afterAll(() => opened.close())

  const send = async (args: Json, retry: Json = {}, { by = 0, agent = 'clerk' } = {}) => {
    const inner = { server: 'desk', tool: 'erase', args, agent_id: agent }
    const params = { name: 'execute_tool', arguments: inner, ...retry }
    const { answer } = await askModern(mcp, tokens[by] ?? '', 'tools/call', params, { capabilities: ELICITATION })
    return answer
  }
  const begin = async (args: Json) => {
    const { result } = await send(args)
    expect(result).toMatchObject({ resultType: 'input_required', inputRequests: { [KEY]: {} } })
    return { inputResponses: { [KEY]: ACCEPT }, requestState: result?.requestState }
  }
  const called = (answer: Awaited<ReturnType<typeof send>>) => answer.result?.structuredContent?.name === 'erase'

  test('the same call goes on, whatever order its arguments are in', async () => {
    expect(called(await send({ path: 'x', deep: { a: 1 } }, await begin({ deep: { a: 1 }, path: 'x' })))).toBe(true)
  })

  test('and does so once', async () => {
    const retry = await begin({ path: 'x' })
    expect(called(await send({ path: 'x' }, retry))).toBe(true)
    expect((await send({ path: 'x' }, retry)).result).toMatchObject({ resultType: 'input_required' })
  })

  test('once, of two that come at the same time', async () => {
    const retry = await begin({ path: 'x' })
    const answers = await Promise.all([send({ path: 'x' }, retry), send({ path: 'x' }, retry)])
    expect(answers.filter(called)).toHaveLength(1)
  })

  test.each<[what: string, args: Json, as: { by?: number; agent?: string }]>([
    ['other arguments', { path: 'y' }, {}],
    ['more arguments', { path: 'x', lines: 1 }, {}],
    ['another caller', { path: 'x' }, { by: 1 }],
    ['another agent', { path: 'x' }, { agent: 'clerk.two' }],
  ])('not for %s', async (_, args, as) => {
    expect(called(await send(args, await begin({ path: 'x' }), as))).toBe(false)
  })

  test.each<[what: string, retry: (retry: Json) => Json]>([
    ['no state', ({ inputResponses }) => ({ inputResponses })],
    ['a state of its own', ({ inputResponses }) => ({ inputResponses, requestState: `${KEY}:1` })],
    ['a state it has changed', retry => ({ ...retry, requestState: `${String(retry.requestState)}A` })],
    ['no answer', ({ requestState }) => ({ requestState })],
    ['an answer to something else', ({ requestState }) => ({ requestState, inputResponses: { other: ACCEPT } })],
    ['an answer that is none', ({ requestState }) => ({ requestState, inputResponses: { [KEY]: true } })],
    ['an answer without an action', ({ requestState }) => ({ requestState, inputResponses: { [KEY]: {} } })],
  ])('not with %s', async (_, change) => {
    expect(called(await send({ path: 'x' }, change(await begin({ path: 'x' }))))).toBe(false)
  })

  test('an answer before there was a question is none', async () => {
    const { result } = await send({ path: 'x' }, { inputResponses: { [KEY]: ACCEPT } })
    expect(result).toMatchObject({ resultType: 'input_required' })
  })

  test('a call that nobody has to confirm takes no notice of one', async () => {
    const params = {
      name: 'execute_tool',
      arguments: { server: 'desk', tool: 'look' },
      inputResponses: { [KEY]: ACCEPT },
    }
    const { answer } = await askModern(mcp, tokens[0], 'tools/call', params, { capabilities: ELICITATION })
    expect(answer.result?.structuredContent).toMatchObject({ name: 'look' })
  })
})

describe('a server that asks something itself', () => {
  let bridge: Bridge
  beforeAll(async () => {
    const servers = BACKENDS.map(({ name }) => name)
    const tools = Object.fromEntries(servers.map(name => [name, [{ tool: '*', effect: 'ask' }]]))
    bridge = await openBridge({ rules: { agents: { tester: { allow: { servers, tools } } } } })
  })
  afterAll(() => bridge[Symbol.asyncDispose]())

  const form = (message: string) => ({
    method: 'elicitation/create',
    params: { message, requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
  })
  const matrix = CLIENTS.flatMap(line => BACKENDS.map(({ name }) => ({ client: line.name, server: name, line })))

  test.each(matrix)('$client, $server: the call is confirmed once', async ({ line, server }) => {
    const answer = ({ params }: Message) =>
      String(params.message).includes('Allow this call?') ? ACCEPT : { action: 'accept', content: { which: 'this' } }
    await using client = await line.open(await bridge.door('small'), { answer })
    const args = { rounds: [[form('One?')], [form('Two?')]] }
    const result = await client.callTool('execute_tool', { server, tool: 'ask', args })
    expect(JSON.stringify(result.structuredContent).match(/"which":"this"/g)).toHaveLength(2)
    expect(client.asked.map(({ params }) => String(params.message).split('\n').at(-1))).toEqual([
      'Allow this call?',
      'One?',
      'Two?',
    ])
  })

  test.each(BACKENDS)('$name never hears of the question', async ({ name: server }) => {
    expect(JSON.stringify(bridge.talkers[server].heard())).not.toContain(KEY)
  })
})
