import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { SealedState } from '../../src/gateway/sealed-state.js'
import {
  askModern,
  beginSession,
  commonHeaders,
  exchange,
  initialize,
  type Message,
  modern,
  type Stream,
} from '../fixtures/http-clients.js'
import { openSocialGateway, type SocialGateway } from '../fixtures/social.js'

let social: SocialGateway
let token: string
let guest: string
beforeAll(async () => {
  social = await openSocialGateway({ partial: { allow: { servers: ['*'] }, deny: { tools: { new: ['regional'] } } } })
  token = await social.token({ agents: ['a'] })
  guest = await social.token({ agents: ['guest'] })
  for (const server of ['new', 'web-new', 'old']) await askModern(social.at(server), token, 'tools/list')
})
afterAll(() => social[Symbol.asyncDispose]())

const DOORS = [
  ['/mcp', () => social.mcp],
  ['/mcp?expose=direct', () => `${social.mcp}?expose=direct`],
  ['/servers/old/mcp', () => social.at('old')],
  ['/servers/new/mcp', () => social.at('new')],
] as const

const raw = (url: string, body: string, headers: Record<string, string> = {}) =>
  exchange(url, { headers: { ...commonHeaders(token), ...headers }, body })
const codeOf = (stream: Stream) => [stream.status, stream.messages()[0]?.error?.code]
const ping = (id: unknown) => ({ jsonrpc: '2.0', id, method: 'ping' })
const list = (id: unknown) => ({ jsonrpc: '2.0', id, method: 'tools/list', params: {} })

describe.each(DOORS)('messages at %s', (_, url) => {
  test.each<[string, string, number, number]>([
    ['nothing', '', 400, -32700],
    ['half a message', '{"jsonrpc":"2.0","id":1', 400, -32700],
    ['no JSON', 'hello', 400, -32700],
    ['two messages', '{"jsonrpc":"2.0","id":1,"method":"ping"}\n{"jsonrpc":"2.0","id":2,"method":"ping"}', 400, -32700],
  ])('%s', async (_, body, status, code) => {
    const stream = await raw(url(), body)
    expect(codeOf(stream)).toEqual([status, code])
    expect(stream.messages()[0]).toMatchObject({ jsonrpc: '2.0', id: null })
  })

  test.each([
    'null',
    '1',
    '"ping"',
    '[]',
    '[1]',
    '{}',
    '{"jsonrpc":"1.0","id":1,"method":"ping"}',
    '{"jsonrpc":"2.0","id":{},"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":5}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}',
  ])('that are JSON but no message are refused: %s', async body => {
    const stream = await raw(url(), body)
    expect(stream.status).toBe(400)
    expect(stream.messages()[0]?.error?.code).toBeOneOf([-32700, -32600, -32602])
  })

  test('of more than 4 MiB are refused in JSON-RPC, and of nearly 4 MiB are not', async () => {
    const sized = (bytes: number) => JSON.stringify({ ...ping(1), params: { _meta: { padding: 'a'.repeat(bytes) } } })
    expect(codeOf(await raw(url(), sized(4 * 1024 * 1024)))).toEqual([413, -32600])
    expect((await raw(url(), sized(4 * 1024 * 1024 - 1024))).messages()[0]?.result).toEqual({})
  })

  test.each([
    ['objects', '{"a":', '}'],
    ['arrays', '[', ']'],
  ])('nested beyond reason are refused clearly: %s', async (_, opening, closing) => {
    const deep = (depth: number) => `${opening.repeat(depth)}1${closing.repeat(depth)}`
    const call = (id: number, value: string) => {
      const { headers, body } = modern(token, 'tools/call', { name: 'talk', arguments: { label: 'VALUE' } }, { id })
      return exchange(url(), {
        headers: headers as Record<string, string>,
        body: String(body).replace('"VALUE"', value),
      })
    }
    const legacy = (id: number, value: string) =>
      raw(
        url(),
        JSON.stringify({ ...list(id), method: 'tools/call', params: { name: 'talk', arguments: 'ARGS' } }).replace(
          '"ARGS"',
          `{"label":${value}}`,
        ),
      )
    const depth = 1_900_000 / opening.length
    for (const answer of [
      await call(1, deep(1_001)),
      await call(2, deep(depth)),
      await legacy(3, deep(depth)),
      await raw(url(), deep(depth)),
    ]) {
      expect(answer.status).toBe(400)
      expect(answer.messages()[0]?.error?.code).toBeOneOf([-32700, -32600])
      expect(answer.messages()[0]?.error?.message).toMatch(/nested|deep/)
    }
    const fair = await call(4, deep(500))
    expect([fair.status, fair.text()]).toEqual([200, expect.not.stringMatching(/nested|call stack/)])
    expect((await raw(url(), JSON.stringify(ping(5)))).messages()[0]?.result).toEqual({})
  })

  test('in batches are answered together with 2025-03-26', async () => {
    const old = { 'mcp-protocol-version': '2025-03-26' }
    const stream = await raw(
      url(),
      JSON.stringify([ping(1), list('two'), { jsonrpc: '2.0', method: 'notifications/x' }]),
      old,
    )
    expect(stream.status).toBe(200)
    expect(new Set(stream.messages().map(({ id }) => id))).toEqual(new Set([1, 'two']))
    expect(stream.messages().every(({ result }) => result !== undefined)).toBe(true)
    const notices = await raw(url(), JSON.stringify([{ jsonrpc: '2.0', method: 'notifications/x' }]), old)
    expect([notices.status, notices.text()]).toEqual([202, ''])
    const many = (count: number) => JSON.stringify(Array.from({ length: count }, (_, id) => ping(id)))
    expect(new Set((await raw(url(), many(100), old)).messages().map(({ id }) => id)).size).toBe(100)
    expect(codeOf(await raw(url(), many(101), old))).toEqual([400, -32600])
  })

  test('in batches are answered in a session of 2025-03-26', async () => {
    const session = await beginSession(url(), token, { version: '2025-03-26' })
    const stream = await session.post([ping(1), list('two'), { jsonrpc: '2.0', method: 'notifications/x' }])
    expect(new Set(stream.messages().map(({ id }) => id))).toEqual(new Set([1, 'two']))
    expect((await session.post(Array.from({ length: 101 }, (_, id) => ping(id)))).status).toBe(400)
    expect((await session.request('ping')).status).toBe(200)
    await session.end()
  })

  test.each([
    ['alone', [initialize()]],
    ['among others', [ping(1), initialize()]],
    ['and wrong', [{ ...initialize(), params: {} }]],
  ])('in batches are no initialize: %s', async (_, batch) => {
    expect(codeOf(await raw(url(), JSON.stringify(batch)))).toEqual([400, -32600])
  })

  test('in batches are refused with 2026-07-28', async () => {
    const { headers, body } = modern(token, 'tools/list')
    const message = JSON.parse(String(body))
    for (const batch of [[message], [message, { ...message, id: 2 }], [ping(1), message]]) {
      const stream = await exchange(url(), { headers: headers as Record<string, string>, body: JSON.stringify(batch) })
      expect(codeOf(stream)).toEqual([400, -32600])
    }
  })

  test('that answer what nobody asked are taken and forgotten', async () => {
    const session = await beginSession(url(), token)
    for (const id of [0, 1, 99, 'ask-1', 1_000_000_001]) {
      for (const answer of [{ result: { action: 'accept' } }, { error: { code: 1, message: 'no' } }]) {
        const { status, text } = await session.post({ jsonrpc: '2.0', id, ...answer })
        expect([status, text()]).toEqual([202, ''])
      }
    }
    expect((await session.request('ping')).answer.result).toEqual({})
    await session.end()
  })

  test('with an answer are no messages of 2026', async () => {
    const { headers } = modern(token, 'tools/list')
    const body = JSON.stringify({ jsonrpc: '2.0', id: 1, result: { resultType: 'complete' } })
    const { status } = await exchange(url(), { headers: headers as Record<string, string>, body })
    expect(status).toBe(400)
  })

  test('before the client says that it is initialized are answered', async () => {
    const opening = await raw(url(), JSON.stringify(initialize()))
    const id = String(opening.headers['mcp-session-id'])
    const early = { 'mcp-session-id': id, 'mcp-protocol-version': '2025-11-25' }
    expect((await raw(url(), JSON.stringify(ping(1)), early)).messages()[0]?.result).toEqual({})
    expect((await raw(url(), JSON.stringify(list(2)), early)).messages()[0]?.result?.tools).toBeDefined()
    await exchange(url(), { method: 'DELETE', headers: { ...commonHeaders(token), ...early } })
  })

  test.each(['no/such', 'tools/__proto__', 'constructor', '__proto__', 'tasks/list', 'tasks/get', 'x'.repeat(5_000)])(
    'with an unknown method are told so: %.30s',
    async method => {
      const session = await beginSession(url(), token)
      const legacy = await session.request(method)
      expect([legacy.status, legacy.answer.error?.code]).toEqual([200, -32601])
      await session.end()
      const { status, answer } = await askModern(url(), token, method, {}, { id: 'x' })
      expect([status, answer.id, answer.error?.code]).toEqual([404, 'x', -32601])
    },
  )

  test.each(['initialize', 'ping', 'logging/setLevel', 'resources/subscribe', 'resources/unsubscribe'])(
    'with %s are not of 2026',
    async method => {
      const { status, answer } = await askModern(
        url(),
        token,
        method,
        { level: 'debug', uri: 'note://1' },
        { id: 5, headers: { 'mcp-name': 'note://1' } },
      )
      expect([status, answer.id, answer.error?.code]).toEqual([404, 5, -32601])
    },
  )

  test('that are notifications get 202 and nothing else', async () => {
    const { headers, body } = modern(token, 'notifications/cancelled', { requestId: 'nobody' })
    const { id: _, ...notification } = JSON.parse(String(body)) as Message
    const stream = await exchange(url(), {
      headers: headers as Record<string, string>,
      body: JSON.stringify(notification),
    })
    expect([stream.status, stream.text()]).toEqual([202, ''])
  })
})

describe('names that cannot even be put into words', () => {
  const odd = { toString: 1, valueOf: 2 }

  test.each<[string, Record<string, unknown>]>([
    ['prompts/get', { name: odd }],
    ['resources/read', { uri: odd }],
    ['completion/complete', { ref: { type: 'ref/prompt', name: odd }, argument: { name: 'a', value: 'b' } }],
    ['completion/complete', { ref: { type: 'ref/resource', uri: odd }, argument: { name: 'a', value: 'b' } }],
    ['resources/subscribe', { uri: odd }],
    ['resources/unsubscribe', { uri: odd }],
  ])('are refused: %s %j', async (method, params) => {
    const direct = `${social.mcp}?expose=direct`
    const session = await beginSession(direct, token)
    expect((await session.request(method, params)).answer.error?.code).toBe(-32602)
    await session.end()
    if (method.endsWith('subscribe')) return // not of 2026
    expect((await askModern(direct, token, method, params)).answer.error?.code).toBe(-32602)
  })
})

describe.each(DOORS)('headers at %s', (_, url) => {
  const call = { name: 'report', arguments: {} }
  const send = (
    headers: Record<string, string | undefined>,
    params: Record<string, unknown> = call,
    method = 'tools/call',
  ) => {
    const question = modern(token, method, params, { id: 'h' })
    const all = { ...question.headers, ...headers }
    const present = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
    return exchange(url(), { ...question, headers: present as Record<string, string> })
  }

  test.each<[string, Record<string, string | undefined>, number]>([
    ['without a version', { 'mcp-protocol-version': undefined }, -32020],
    ['with the version of another era', { 'mcp-protocol-version': '2025-11-25' }, -32020],
    ['with a version nobody speaks', { 'mcp-protocol-version': '2099-01-01' }, -32020],
    ['without the method', { 'mcp-method': undefined }, -32020],
    ['with another method', { 'mcp-method': 'tools/list' }, -32020],
    ['with the method in other letters', { 'mcp-method': 'Tools/Call' }, -32020],
    ['without the name', { 'mcp-name': undefined }, -32020],
    ['with another name', { 'mcp-name': 'talk' }, -32020],
    ['with the name in other letters', { 'mcp-name': 'Report' }, -32020],
    ['with bad base64 for a name', { 'mcp-name': '=?base64?%%%?=' }, -32020],
    ['with base64 of another name', { 'mcp-name': `=?base64?${Buffer.from('talk').toString('base64')}?=` }, -32020],
  ])('%s a request is refused', async (_, headers, code) => {
    const stream = await send(headers)
    expect(codeOf(stream)).toEqual([400, code])
    expect(stream.messages()[0]?.id).toBe('h')
  })

  test.each<[string, Record<string, string>]>([
    ['in base64', { 'mcp-name': `=?base64?${Buffer.from('report').toString('base64')}?=` }],
    ['with spaces around', { 'mcp-name': '  report\t' }],
    ['beside headers that nothing is known of', { 'mcp-param-unknown': 'x', 'mcp-session-id': 'none' }],
  ])('the name may come %s', async (_, headers) => {
    const stream = await send(headers)
    expect(stream.status).toBe(200)
    expect(stream.messages()[0]?.error?.code).toBeOneOf([undefined, -32602]) // not every door has the tool
  })

  test('the envelope is needed', async () => {
    const { headers, body } = modern(token, 'tools/list')
    const message = JSON.parse(String(body)) as { params: { _meta: Record<string, unknown> } }
    const { 'io.modelcontextprotocol/clientCapabilities': _, ..._meta } = message.params._meta
    const without = { ...message, params: { _meta } }
    const stream = await exchange(url(), { headers: headers as Record<string, string>, body: JSON.stringify(without) })
    expect(codeOf(stream)).toEqual([400, -32602])
    const future = String(body).replaceAll('2026-07-28', '2099-01-01')
    const unknown = await exchange(url(), {
      headers: { ...(headers as Record<string, string>), 'mcp-protocol-version': '2099-01-01' },
      body: future,
    })
    expect(codeOf(unknown)).toEqual([400, -32022])
    expect(unknown.messages()[0]?.error?.data).toMatchObject({ supported: ['2026-07-28'], requested: '2099-01-01' })
  })

  test('a request of 2025 with a version nobody speaks is refused', async () => {
    const session = await beginSession(url(), token)
    const headers = { ...session.headers(), 'mcp-protocol-version': '1999-01-01' }
    expect((await exchange(url(), { headers, body: JSON.stringify(ping(1)) })).status).toBe(400)
    await session.end()
  })
})

describe('parameters that travel as headers too', () => {
  const REGION = 'mcp-param-region'
  const SHARD = 'mcp-param-shard'
  const doors: readonly [string, () => string, string][] = [
    ['/servers/new/mcp', () => social.at('new'), 'regional'],
    ['/servers/web-new/mcp', () => social.at('web-new'), 'regional'],
    ['/servers/old/mcp', () => social.at('old'), 'regional'],
    ['/mcp?expose=direct', () => `${social.mcp}?expose=direct`, 'web-new__regional'],
  ]
  const base64 = (text: string) => `=?base64?${Buffer.from(text).toString('base64')}?=`

  describe.each(doors)('%s', (_, url, name) => {
    const send = (args: Record<string, unknown>, headers: Record<string, string>) =>
      exchange(url(), modern(token, 'tools/call', { name, arguments: args }, { headers }))

    test.each<[string, Record<string, unknown>, Record<string, string>]>([
      ['missing', { region: 'eu' }, {}],
      ['one of two missing', { region: 'eu', shard: 5 }, { [REGION]: 'eu' }],
      ['different', { region: 'eu' }, { [REGION]: 'us' }],
      ['in other letters', { region: 'eu' }, { [REGION]: 'EU' }],
      ['there without a parameter', {}, { [REGION]: 'eu' }],
      ['there for null', { region: null }, { [REGION]: 'null' }],
      ['another number', { shard: 5 }, { [SHARD]: '6' }],
      ['no number', { shard: 5 }, { [SHARD]: 'five' }],
      ['bad base64', { region: 'eu' }, { [REGION]: '=?base64?*?=' }],
      ['other base64', { region: 'eu' }, { [REGION]: base64('us') }],
      ['not ASCII', { region: 'größe' }, { [REGION]: 'größe' }],
      ['plain where it looks like base64', { region: base64('eu') }, { [REGION]: base64('eu') }],
    ])('%s: refused', async (_, args, headers) => {
      expect(codeOf(await send(args, headers))).toEqual([400, -32020])
    })

    test.each<[string, Record<string, unknown>, Record<string, string>]>([
      ['as it is', { region: 'eu', shard: 5 }, { [REGION]: 'eu', [SHARD]: '5' }],
      ['in base64', { region: 'größe' }, { [REGION]: base64('größe') }],
      ['the same number', { shard: 5 }, { [SHARD]: '5.0' }],
      ['nowhere', {}, {}],
      ['null', { region: null }, {}],
    ])('%s: taken', async (_, args, headers) => {
      const stream = await send(args, headers)
      expect(stream.status).toBe(200)
      expect(stream.messages().at(-1)?.error).toBeUndefined()
    })
  })

  test('are wanted of clients of 2026 only', async () => {
    const session = await beginSession(social.at('new'), token)
    const { answer } = await session.call('regional', { region: 'eu' })
    expect(answer.result?.structuredContent).toEqual({ arguments: { region: 'eu' } })
    await session.end()
  })

  test('do not tell whether a tool is there', async () => {
    const hidden = await social.token({ agents: ['partial'] })
    const ask = (name: string) =>
      exchange(social.at('new'), modern(hidden, 'tools/call', { name, arguments: { region: 'eu' } }))
    const denied = await ask('regional')
    expect(denied.text().replaceAll('regional', 'nothing')).toBe((await ask('nothing')).text())
    expect([denied.status, denied.messages()[0]?.error?.code]).toEqual([200, -32602])
  })
})

describe('names of servers in the path', () => {
  const origin = () => social.origin
  const question = (bearer: string | undefined, method: string): Parameters<typeof exchange>[1] => {
    const { headers, body } = modern(bearer ?? '', 'tools/list')
    const { authorization, ...others } = headers as Record<string, string>
    const all = { ...others, ...(bearer !== undefined && { authorization: String(authorization) }) }
    return { method, headers: all, ...(method === 'POST' && { body: String(body) }) }
  }
  const at = (path: string, method = 'POST', bearer: string | undefined = guest) =>
    exchange(origin(), question(bearer, method), { path })
  const described = ({ status, headers, text }: Stream, name: string) => ({
    status,
    headers: { ...headers, date: '', 'content-length': '' },
    text: text().replaceAll(name, 'NAME'),
  })

  test.each(['POST', 'GET', 'DELETE', 'PUT', 'HEAD'])(
    'of a server that is not there and one that is denied are answered alike: %s',
    async method => {
      const absent = described(await at('/servers/nowhere/mcp', method), 'nowhere')
      expect(absent.status).toBe(404)
      for (const name of ['new', 'web-new', 'broken'])
        expect(described(await at(`/servers/${name}/mcp`, method), name)).toEqual(absent)
    },
  )

  test('of a server that is not there and one that is denied are answered alike to an initialize', async () => {
    const begin = (name: string) =>
      exchange(social.at(name), { headers: commonHeaders(guest), body: JSON.stringify(initialize()) })
    const absent = await begin('nowhere')
    expect(absent.status).toBe(404)
    expect(absent.headers['mcp-session-id']).toBeUndefined()
    expect(described(await begin('new'), 'new')).toEqual(described(absent, 'nowhere'))
  })

  test('may be encoded', async () => {
    const { status, answer } = await askModern(`${origin()}/servers/my%20shop/mcp`, token, 'tools/list')
    expect([status, answer.result?.tools]).toEqual([
      200,
      expect.arrayContaining([expect.objectContaining({ name: 'talk' })]),
    ])
    const other = await at('/servers/%6Fld/mcp', 'POST', token)
    expect(other.status).toBe(200)
  })

  test.each([
    '/servers//mcp',
    '/servers/mcp',
    '/servers/%00/mcp',
    '/servers/%/mcp',
    '/servers/%E0%A4%A/mcp',
    '/servers/old%2Fmcp/mcp',
    '/servers/old/../new/mcp',
    '/servers/%2e%2e/mcp',
    '/servers/..%2fnew/mcp',
    '/servers/OLD/mcp',
    '/servers/old%20/mcp',
    '/servers/__proto__/mcp',
    '/servers/constructor/mcp',
    '/servers/*/mcp',
    '/servers/%F0%9F%98%80/mcp',
    '/servers/%0d%0aX-Evil:1/mcp',
    `/servers/${'x'.repeat(8_000)}/mcp`,
    '/servers/old/mcp/',
    '/servers/old/mcp/more',
  ])('that are none open no door: %.60s', async path => {
    const answer = await at(path)
    // A path that leads elsewhere may be another door; the one of a server it is not.
    expect(answer.status).toBeOneOf([400, 404, ...(/\.\.\/mcp|%2e%2e\/mcp/.test(path) ? [200] : [])])
    expect(answer.headers['x-evil']).toBeUndefined()
    expect(answer.text()).not.toMatch(/"talk"|stack|node_modules/)
    const anonymous = await exchange(origin(), question(undefined, 'POST'), { path })
    expect(anonymous.status).toBeOneOf([400, 401, 404])
  })

  test.each(['old', 'new', 'nowhere', 'my shop', 'größe', 'a"b', 'a/b', '__proto__'])(
    'without a token lead to 401 and a document of their own, whether there or not: %s',
    async name => {
      const path = `/servers/${encodeURIComponent(name)}/mcp`
      const document = `${origin()}/.well-known/oauth-protected-resource${path}`
      for (const method of ['POST', 'GET', 'DELETE']) {
        const { status, headers, text } = await exchange(origin(), question(undefined, method), { path })
        expect(status).toBe(401)
        expect(headers['www-authenticate']).toBe(`Bearer resource_metadata="${document}", scope="mcp"`)
        expect(text()).not.toContain(name === 'a/b' ? '/servers/' : name)
      }
      const metadata = await exchange(document, { method: 'GET' })
      expect(metadata.status).toBe(200)
      expect(metadata.headers).toMatchObject({
        'content-type': expect.stringContaining('application/json'),
        'access-control-allow-origin': '*',
      })
      expect(JSON.parse(metadata.text())).toMatchObject({
        resource: `${origin()}${path}`,
        authorization_servers: [origin()],
        bearer_methods_supported: ['header'],
      })
    },
  )
})

describe('tokens for one server', () => {
  const list = async (url: string, bearer: string) => {
    const { status, headers, messages } = await exchange(url, modern(bearer, 'tools/list'))
    return { status, challenge: headers['www-authenticate'], message: messages()[0] }
  }

  test.each(['old', 'my shop'])('are good there and nowhere else: %s', async server => {
    const own = await social.token({ agents: ['a'], audience: social.at(server) })
    expect(await list(social.at(server), own)).toMatchObject({ status: 200 })
    for (const elsewhere of [social.at('new'), social.at('nowhere'), social.mcp, `${social.mcp}?expose=direct`]) {
      const { status, challenge } = await list(elsewhere, own)
      expect(status).toBe(401)
      expect(challenge).toContain('error="invalid_token"')
      const { pathname } = new URL(elsewhere)
      expect(challenge).toContain(
        `resource_metadata="${social.origin}/.well-known/oauth-protected-resource${pathname}"`,
      )
    }
    const session = await beginSession(social.at(server), own)
    expect((await session.request('ping')).status).toBe(200)
    expect((await session.as({ url: social.mcp }).request('ping')).status).toBe(401)
    await session.end()
  })

  test('are written exactly as its address is', async () => {
    for (const audience of [
      `${social.at('old')}/`,
      social.at('OLD'),
      `${social.origin}/servers/old`,
      `${social.origin}/servers/*/mcp`,
      `${social.origin}/servers/my shop/mcp`,
    ]) {
      const other = await social.token({ agents: ['a'], audience })
      for (const door of ['old', 'my shop']) expect(await list(social.at(door), other)).toMatchObject({ status: 401 })
    }
  })

  test('lift no rule', async () => {
    const denied = await social.token({ agents: ['guest'], audience: social.at('new') })
    expect(await list(social.at('new'), denied)).toMatchObject({ status: 404 })
  })

  test('for all of the gateway are good at every door', async () => {
    for (const door of [social.mcp, social.at('old'), social.at('my shop')])
      expect(await list(door, token)).toMatchObject({ status: 200 })
  })
})

describe('sealed texts', () => {
  test('are good for a while, for what they were sealed for', () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const sealed = new SealedState()
    const text = sealed.seal({ page: 2 }, 1_000, ['alice', 'list'])
    expect(sealed.open(text, ['alice', 'list'])).toEqual({ value: { page: 2 } })
    expect(sealed.open(text, ['bob', 'list'])).toBeUndefined()
    expect(sealed.open(text, ['alice'])).toBeUndefined()
    expect(new SealedState().open(text, ['alice', 'list'])).toBeUndefined()
    vi.advanceTimersByTime(1_001)
    expect(sealed.open(text, ['alice', 'list'])).toBeUndefined()
  })

  test.each([undefined, null, 5, {}, [], '', 'W10', 'x'.repeat(2 ** 21), '\u0000'])(
    'that are none open nothing: %.20j',
    text => {
      expect(new SealedState().open(text, [])).toBeUndefined()
    },
  )

  test('are damaged by any change', () => {
    const sealed = new SealedState()
    const text = sealed.seal('value', 60_000, [])
    for (let at = 0; at < text.length; at++) {
      const changed = `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`
      expect(sealed.open(changed, [])).toBeUndefined()
    }
  })
})
