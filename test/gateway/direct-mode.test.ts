import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

const rules = {
  agents: {
    direct: { expose: 'direct', allow: { servers: ['shop', 'my shop', 'off'] }, deny: { tools: { '*': ['drop_*'] } } },
    'direct.child': { allow: { servers: ['*'] }, deny: { servers: ['my shop'] } },
    small: { allow: { servers: ['shop'], tools: { shop: ['query'] } } },
  },
}
const servers = {
  shop: nodeServer('shop.js'),
  'my shop': nodeServer('shop.js'),
  hidden: nodeServer('shop.js'),
  off: { ...nodeServer('shop.js'), disabled: true },
  broken: { command: '/no/such/program' },
}

let opened: TestGateway
let url: string
const tokens: Record<string, string> = {}
beforeAll(async () => {
  opened = await openTestGateway({ servers, rules })
  const front = await opened.gateway.serveHttp({ port: 0 })
  url = front.url
  for (const agent of Object.keys(rules.agents)) tokens[agent] = await front.issueToken(agent, 60)
})
afterAll(() => opened.close())

interface Listed {
  readonly name: string
}

const listed = ({ result }: { result?: Record<string, unknown> }): Listed[] => (result?.tools ?? []) as Listed[]

describe.each(['legacy', 'modern'] as const)('direct mode, a client of the %s era', era => {
  const send = async (agent: string, method: string, params: Record<string, unknown>, query = '') =>
    (await ask(`${url}${query}`, mcpRequest(era, tokens[agent] ?? '', method, params))).json()
  const list = async (agent: string, query = '') =>
    listed(await send(agent, 'tools/list', {}, query)).map(({ name }) => name)
  const call = (agent: string, name: string, args: Record<string, unknown> = {}, query = '') =>
    send(agent, 'tools/call', { name, arguments: args }, query)

  test('lists every permitted tool of every permitted server, and nothing else', async () => {
    const names = await list('direct')
    expect(names).toContain('shop__query')
    expect(names.filter(name => name.startsWith('my_shop__')).length).toBe(
      names.filter(name => name.startsWith('shop__')).length,
    )
    expect(names.filter(name => /drop|hidden|off|broken|execute_tool/.test(name))).toEqual([])
    expect(names).toEqual([...names].sort())
    expect(new Set(names).size).toBe(names.length)
  })

  test('lists the same bytes every time', async () => {
    const once = async () => (await ask(url, mcpRequest(era, tokens.direct ?? '', 'tools/list', {}))).text
    expect(await once()).toBe(await once())
  })

  test('lists definitions as their server wrote them, but for the name', async () => {
    const { tools } = (await send('direct', 'tools/list', {})).result as { tools: Record<string, unknown>[] }
    const { structuredContent } = await opened.call('get_server_tools', { server: 'shop' }, 'direct')
    for (const original of structuredContent.tools as Record<string, unknown>[]) {
      const name = `shop__${original.name}`
      expect(tools.find(tool => tool.name === name)).toEqual({ ...original, name })
    }
  })

  test('calls a tool by its direct name, plain or with a hash', async () => {
    const viaExecute = await opened.call(
      'execute_tool',
      { server: 'shop', tool: 'query', args: { sql: 'a' } },
      'direct',
    )
    expect((await call('direct', 'shop__query', { sql: 'a' })).result?.content).toEqual(viaExecute.content)
    const hashed = (await list('direct')).find(name => name.startsWith('my_shop__query')) ?? ''
    expect((await call('direct', hashed, { sql: 'a' })).result?.content).toEqual(viaExecute.content)
  })

  test.each(['shop__drop_table', 'shop__nothing', 'hidden__query', 'nowhere__query', 'query', '__'])(
    'denied, hidden and absent are the same to it: %s',
    async name => {
      expect(await call('direct', name, { sql: 'a' })).toMatchObject({
        error: { code: -32602, message: `Unknown tool: ${name}` },
      })
    },
  )

  test('what fails is a tool result, as with execute_tool', async () => {
    expect((await call('direct', 'shop__query', { sql: 1 })).result).toMatchObject({
      isError: true,
      structuredContent: { error: { code: 'INVALID_ARGUMENTS', path: '/sql' } },
    })
  })

  test('a server that cannot be started does not hold up the list of the others', async () => {
    expect(await list('direct.child')).toContain('shop__query')
  })

  test('belongs to the agents below the one that has it', async () => {
    expect((await list('direct.child')).some(name => name.startsWith('my_shop'))).toBe(false)
  })

  test('is not for agents that the rules do not give it to, unless the URL asks for it', async () => {
    expect(await list('small')).toContain('execute_tool')
    expect(await call('small', 'shop__query', { sql: 'a' })).toMatchObject({ error: { code: -32602 } })
    expect(await list('small', '?expose=direct')).toEqual(['shop__query'])
    expect((await call('small', 'shop__query', { sql: 'a' }, '?expose=direct')).result?.isError).not.toBe(true)
  })

  test('the small tools can still be called', async () => {
    expect((await call('direct', 'list_servers')).result?.structuredContent).toHaveProperty('servers')
  })
})

test('every direct call leaves an audit line with the tool’s own name', async () => {
  const token = tokens.direct ?? ''
  for (const name of ['shop__note', 'shop__drop_table']) {
    await ask(url, mcpRequest('modern', token, 'tools/call', { name, arguments: { text: 'a' } }))
  }
  const direct = async () =>
    (await opened.auditLines(1)).filter(({ operation, agent }) => operation === 'tools/call' && agent === 'direct')
  await expect.poll(async () => (await direct()).at(-1)?.tool).toBe('drop_table')
  expect((await direct()).slice(-2)).toMatchObject([
    { server: 'shop', tool: 'note', decision: 'allow', code: 'OK' },
    { server: 'shop', tool: 'drop_table', decision: 'deny', code: 'DENIED_BY_POLICY' },
  ])
})
