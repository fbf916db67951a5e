import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'

const rules = {
  agents: {
    admin: { allow: { servers: ['*'] } },
    reader: {
      allow: { servers: ['shop'], tools: { shop: ['query', 'list_*'] } },
      deny: { tools: { shop: ['list_views'] } },
    },
  },
}

let test_: TestGateway
beforeAll(async () => {
  test_ = await openTestGateway({ servers: { shop: nodeServer('shop.js'), spare: nodeServer('shop.js') }, rules })
})
afterAll(() => test_.close())

const execute = (args: Record<string, unknown>, agent = 'admin') => test_.call('execute_tool', args, agent)
const errorOf = async (args: Record<string, unknown>, agent = 'admin') => {
  const result = await execute(args, agent)
  expect(result.isError).toBe(true)
  expect(JSON.parse(String(result.content[0]?.text))).toEqual(result.structuredContent)
  return result.structuredContent.error ?? {}
}

describe('a result passes untouched', () => {
  test('unknown content types, unknown fields, annotations and _meta', async () => {
    const result = await execute({ server: 'shop', tool: 'query', args: { sql: 'select 1' } })
    expect(result).toEqual({
      content: [
        { type: 'text', text: 'done', annotations: { audience: ['user'] }, extra: 1 },
        { type: 'future-content', value: 42 },
      ],
      structuredContent: { name: 'query', arguments: { sql: 'select 1' }, meta: {} },
      _meta: { 'example.com/trace': 'abc' },
      unknownField: [true],
    })
  })

  test('a failure the tool reports itself', async () => {
    expect(await execute({ server: 'shop', tool: 'failing' })).toEqual({
      isError: true,
      content: [{ type: 'text', text: 'no' }],
    })
  })
})

describe('what models get wrong', () => {
  const called = (tool: string, args: unknown) => ({ name: tool, arguments: args, meta: {} })

  test.each<[string, Record<string, unknown>, unknown]>([
    ['args as a JSON string', { server: 'shop', tool: 'query', args: '{"sql":"a"}' }, called('query', { sql: 'a' })],
    ['args named arguments', { server: 'shop', tool: 'query', arguments: { sql: 'a' } }, called('query', { sql: 'a' })],
    [
      'args wrapped once too often',
      { server: 'shop', tool: 'query', args: { args: { sql: 'a' } } },
      called('query', { sql: 'a' }),
    ],
    [
      'wrapped as arguments, inside a string',
      { server: 'shop', tool: 'query', args: '{"arguments":{"sql":"a"}}' },
      called('query', { sql: 'a' }),
    ],
    [
      'the call nested in itself',
      { server: 'gateway', tool: 'execute_tool', args: { server: 'shop', tool: 'query', args: { sql: 'a' } } },
      called('query', { sql: 'a' }),
    ],
    [
      'the call as a string in args',
      { args: '{"server":"shop","tool":"query","args":{"sql":"a"}}' },
      called('query', { sql: 'a' }),
    ],
    [
      'server__tool beside the server',
      { server: 'shop', tool: 'shop__query', args: { sql: 'a' } },
      called('query', { sql: 'a' }),
    ],
    ['server__tool without a server', { tool: 'shop__query', args: { sql: 'a' } }, called('query', { sql: 'a' })],
    [
      'the call once more in its own args',
      { server: 'shop', tool: 'query', args: { server: 'shop', tool: 'query', args: { sql: 'a' } } },
      called('query', { sql: 'a' }),
    ],
    [
      'the call once more, wrapped as well',
      { server: 'shop', tool: 'query', args: { arguments: { server: 'shop', tool: 'query', args: { sql: 'a' } } } },
      called('query', { sql: 'a' }),
    ],
    ['no args at all', { server: 'shop', tool: 'list_tables' }, called('list_tables', {})],
  ])('is forgiven: %s', async (_, args, expected) => {
    expect((await execute(args)).structuredContent).toEqual(expected)
  })

  test.each<[string, Record<string, unknown>, unknown]>([
    [
      'a string parameter that looks like JSON',
      { server: 'shop', tool: 'note', args: { text: '{"a":1}' } },
      { text: '{"a":1}' },
    ],
    [
      'a tool with a parameter named args',
      { server: 'shop', tool: 'wrapped', args: { args: '{"a":1}' } },
      { args: '{"a":1}' },
    ],
    ['free-form arguments', { server: 'shop', tool: 'free', args: { args: { x: 1 } } }, { args: { x: 1 } }],
    ['a tool whose real name has the prefix', { server: 'shop', tool: 'shop__odd' }, {}],
  ])('is never touched: %s', async (_, args, expected) => {
    expect((await execute(args)).structuredContent).toMatchObject({ arguments: expected })
  })

  test.each<[string, Record<string, unknown>, string]>([
    ['no tool', { server: 'shop', args: {} }, 'INVALID_ARGUMENTS'],
    ['no server', { tool: 'query', args: { sql: 'a' } }, 'INVALID_ARGUMENTS'],
    ['args that are no object', { server: 'shop', tool: 'query', args: 'select 1' }, 'INVALID_ARGUMENTS'],
    ['args beside args', { server: 'shop', tool: 'query', sql: 'a' }, 'INVALID_ARGUMENTS'],
    ['a number as a string', { server: 'shop', tool: 'query', args: { sql: 'a', limit: '5' } }, 'INVALID_ARGUMENTS'],
    ['a name in other case', { server: 'shop', tool: 'Query', args: { sql: 'a' } }, 'TOOL_NOT_FOUND'],
    [
      'nesting without end',
      { tool: 'execute_tool', args: { tool: 'execute_tool', args: { tool: 'execute_tool', args: {} } } },
      'INVALID_ARGUMENTS',
    ],
  ])('is refused with a code: %s', async (_, args, code) => {
    expect(await errorOf(args)).toMatchObject({ code })
  })
})

describe('errors a model can correct itself by', () => {
  test('quote the part of the schema that failed', async () => {
    expect(await errorOf({ server: 'shop', tool: 'query', args: { sql: 'a', limit: 0 } })).toMatchObject({
      code: 'INVALID_ARGUMENTS',
      tool: 'query',
      path: '/limit',
      schema: { type: 'integer', minimum: 1 },
    })
  })

  test('name the unexpected property and quote the object', async () => {
    const error = await errorOf({ server: 'shop', tool: 'note', args: { text: 'a', txet: 'b' } })
    expect(error.message).toContain('"txet"')
    expect(error.schema).toMatchObject({ properties: { text: { type: 'string' } } })
  })

  test('an unknown tool answers with the three nearest names the agent may call', async () => {
    expect(await errorOf({ server: 'shop', tool: 'list_tablez' })).toMatchObject({
      code: 'TOOL_NOT_FOUND',
      nearest: ['list_tables', 'drop_table', 'list_views'],
    })
    const asReader = await errorOf({ server: 'shop', tool: 'list_viewz' }, 'reader')
    expect(asReader.nearest).not.toContain('list_views')
  })

  test('a JSON-RPC error of the backend keeps its code, message and data', async () => {
    expect(await errorOf({ server: 'shop', tool: 'refusing' })).toMatchObject({
      code: 'BACKEND_ERROR',
      server: 'shop',
      backend_code: -32001,
      backend_data: { why: 'closed' },
      message: expect.stringContaining('not today'),
    })
  })

  test('a silent tool ends at timeout_ms', async () => {
    expect(await errorOf({ server: 'shop', tool: 'silent', timeout_ms: 100 })).toMatchObject({
      code: 'TIMEOUT',
      server: 'shop',
      timeout_ms: 100,
    })
  })

  test('a server that dies leaves the outcome unknown, with its last words', async () => {
    const error = await errorOf({ server: 'spare', tool: 'dying' })
    expect(error).toMatchObject({ code: 'OUTCOME_UNKNOWN', server: 'spare', stderr: ['shop is open'] })
    // and is there again for the next call
    expect((await execute({ server: 'spare', tool: 'list_tables' })).isError).toBeUndefined()
  })
})

describe('rules', () => {
  test('a denied tool, an unknown server and a hidden server answer in the same words', async () => {
    const neutral = (error: Record<string, unknown>) => {
      const { code, message, ...details } = error
      return {
        code,
        message: String(message).replace(/"(drop_table|spare|nowhere|shop|query)"/g, '"…"'),
        keys: Object.keys(details),
      }
    }
    const denied = neutral(await errorOf({ server: 'shop', tool: 'drop_table', args: { name: 'x' } }, 'reader'))
    const hidden = neutral(await errorOf({ server: 'spare', tool: 'query' }, 'reader'))
    const unknown = neutral(await errorOf({ server: 'nowhere', tool: 'query' }, 'reader'))
    const unknownToAdmin = neutral(await errorOf({ server: 'nowhere', tool: 'query' }))
    expect(denied.code).toBe('DENIED_BY_POLICY')
    expect(hidden).toEqual(denied)
    expect(unknown).toEqual(denied)
    expect({ ...unknownToAdmin, message: unknownToAdmin.message.replace('admin', 'reader') }).toEqual(denied)
  })

  test.each([
    ['nested', { tool: 'execute_tool', args: { server: 'shop', tool: 'drop_table', args: { name: 'x' } } }],
    ['prefixed', { server: 'shop', tool: 'shop__drop_table', args: { name: 'x' } }],
    ['as a string', { args: '{"server":"shop","tool":"drop_table","args":{"name":"x"}}' }],
  ])('a denied tool is refused by its inner name: %s', async (_, args) => {
    expect(await errorOf(args, 'reader')).toMatchObject({ code: 'DENIED_BY_POLICY', tool: 'drop_table' })
  })

  test('deny wins over a matching allow', async () => {
    expect(await errorOf({ server: 'shop', tool: 'list_views' }, 'reader')).toMatchObject({ code: 'DENIED_BY_POLICY' })
    expect((await execute({ server: 'shop', tool: 'list_tables' }, 'reader')).isError).toBeUndefined()
  })

  test('a pinned agent cannot act as another', async () => {
    expect(
      await errorOf({ server: 'shop', tool: 'query', args: { sql: 'a' }, agent_id: 'admin' }, 'reader'),
    ).toMatchObject({ code: 'INVALID_AGENT_ID' })
  })
})
