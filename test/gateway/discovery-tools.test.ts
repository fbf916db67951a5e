import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { countTokens } from '../../src/gateway/tokens.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'

const rules = {
  agents: {
    admin: { allow: { servers: ['*'] } },
    reader: { allow: { servers: ['shop'], tools: { shop: ['query', 'list_*'] } } },
    nobody: {},
  },
}

let opened: TestGateway
beforeAll(async () => {
  const servers = {
    shop: nodeServer('shop.js', { description: 'Sells things', tools: { deny: ['dying'] } }),
    keyed: {
      url: 'https://api.example.com/mcp?key=${SOME_KEY:-hidden-value}',
      headers: { Authorization: 'Bearer ${SOME_KEY:-hidden-value}' },
    },
    broken: nodeServer('shop.js', { env: { TOKEN: '${NOT_SET}' } }),
    off: nodeServer('shop.js', { disabled: true }),
  }
  opened = await openTestGateway({ servers, rules })
})
afterAll(() => opened.close())

const serversOf = async (agent: string, args = {}) =>
  (await opened.call('list_servers', args, agent)).structuredContent.servers
const toolsOf = async (agent: string, args = {}) =>
  (await opened.call('get_server_tools', { server: 'shop', ...args }, agent)).structuredContent
const namesIn = (content: Record<string, unknown>) => (content.tools as { name: string }[]).map(({ name }) => name)

describe('list_servers', () => {
  test('shows permitted servers only, with description and state, and starts nothing', async () => {
    expect(await serversOf('reader')).toEqual([{ name: 'shop', description: 'Sells things', state: 'idle' }])
    expect(await serversOf('nobody')).toEqual([])
    expect(await serversOf('admin')).toEqual([
      { name: 'shop', description: 'Sells things', state: 'idle' },
      { name: 'keyed', state: 'idle' },
      { name: 'broken', state: 'misconfigured' },
      { name: 'off', state: 'disabled' },
    ])
  })

  test('metadata says how a server is reached, without the keys in it', async () => {
    const servers = await serversOf('admin', { include_metadata: true })
    expect(servers).toContainEqual({
      name: 'keyed',
      state: 'idle',
      transport: 'http',
      url: 'https://api.example.com/mcp',
    })
    expect(JSON.stringify(servers)).not.toContain('hidden-value')
  })

  test('counts the tools the agent may call, once they are known', async () => {
    await toolsOf('admin')
    const [asReader] = (await serversOf('reader')) as [{ tools: number; state: string }]
    expect(asReader).toMatchObject({ tools: 4, state: 'ready' })
  })

  test('refuses parameters it does not have', async () => {
    const { error } = (await opened.call('list_servers', { verbose: true }, 'admin')).structuredContent
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENTS' })
  })
})

describe('get_server_tools', () => {
  test('gives definitions as the server wrote them', async () => {
    const { tools } = await toolsOf('admin', { names: ['documented'] })
    expect(tools).toEqual([
      {
        name: 'documented',
        title: 'Documented tool',
        description: 'Has everything a definition can have',
        inputSchema: {
          type: 'object',
          properties: { when: { type: 'string', format: 'date-time', description: 'a time' } },
          required: [],
          additionalProperties: false,
        },
        outputSchema: { type: 'object', properties: { ok: { type: 'boolean' } } },
        annotations: { title: 'T', readOnlyHint: true, 'x-own': 1 },
        icons: [{ src: 'https://example.com/icon.png', sizes: ['48x48'] }],
        _meta: { 'example.com/a': { b: [1, 2] } },
        unknownField: { kept: true },
      },
    ])
  })

  test('counts and lists only what the agent may see', async () => {
    const content = await toolsOf('reader')
    expect(namesIn(content)).toEqual(['query', 'list_tables', 'list_views', 'list_result'])
    expect(content).toMatchObject({ server: 'shop', total_available: 4, returned: 4 })
    expect(content).not.toHaveProperty('omitted')
  })

  test("a server's own filter holds for everybody", async () => {
    expect(namesIn(await toolsOf('admin'))).not.toContain('dying')
  })

  test.each<[string, Record<string, unknown>, string[]]>([
    ['names as a list', { names: ['query', 'note'] }, ['query', 'note']],
    ['names separated by commas', { names: 'query, note' }, ['query', 'note']],
    ['a pattern', { pattern: 'list_[tv]*' }, ['list_tables', 'list_views']],
    ['names and a pattern', { names: 'query,list_views', pattern: 'list_*' }, ['list_views']],
    ['a name that is not there', { names: 'nothing' }, []],
  ])('selects by %s', async (_, args, expected) => {
    expect(namesIn(await toolsOf('admin', args))).toEqual(expected)
  })

  test('stays within the token budget and names what it left out', async () => {
    const all = await toolsOf('reader')
    const costs = await Promise.all((all.tools as never[]).map(countTokens))
    expect(all.tokens_used).toBe(costs.reduce((sum, cost) => sum + cost, 0))

    const [first = 0] = costs
    const limited = await toolsOf('reader', { max_schema_tokens: first })
    expect(limited).toMatchObject({ returned: 1, tokens_used: first, total_available: 4 })
    expect(limited.omitted).toEqual(
      ['list_tables', 'list_views', 'list_result'].filter(name => !namesIn(limited).includes(name)),
    )
  })

  test.each([['shop'], ['nowhere']])('denied and unknown servers answer alike: %s', async server => {
    const { error } = (await opened.call('get_server_tools', { server }, 'nobody')).structuredContent
    expect(error).toEqual({
      code: 'DENIED_BY_POLICY',
      message: `the server "${server}" is not available to the agent "nobody": it does not exist, or the rules do not allow it`,
      server,
    })
  })
})

describe('token counting', () => {
  test('is linear in hostile text', async () => {
    const hostile = { name: 'x', description: 'a'.repeat(200_000), inputSchema: { type: 'object' as const } }
    expect(await countTokens(hostile)).toBeGreaterThan(20_000)
  })

  test('takes special tokens for text', async () => {
    expect(
      await countTokens({ name: 'x', description: '<|endoftext|>', inputSchema: { type: 'object' } }),
    ).toBeGreaterThan(5)
  })
})

test('the small tools cost an agent under 2,000 tokens', async () => {
  const costs = await Promise.all(opened.gateway.tools.definitions.map(countTokens))
  expect(costs).toHaveLength(5)
  expect(costs.reduce((sum, cost) => sum + cost, 0)).toBeLessThan(2_000)
})

test('get_gateway_status shows backends and agents', async () => {
  const { structuredContent } = await opened.call('get_gateway_status', {}, 'admin')
  expect(structuredContent).toMatchObject({ version: expect.any(String), agents: ['admin', 'reader', 'nobody'] })
  expect(structuredContent.servers).toContainEqual(
    expect.objectContaining({ name: 'broken', state: 'misconfigured', last_error: expect.stringContaining('NOT_SET') }),
  )
  expect(JSON.stringify(structuredContent)).not.toContain('hidden-value')
})
