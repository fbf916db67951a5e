import { createServer } from 'node:http'
import { afterEach, describe, expect, test } from 'vitest'
import { readTraceparent } from '../../src/observability/trace-context.js'
import type { HttpFront } from '../../src/start.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { askModern, beginSession } from '../fixtures/http-clients.js'
import { type HttpServer, listen } from '../fixtures/servers.js'
import { openTalker } from '../fixtures/talker.js'

const open: (() => unknown)[] = []
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close()
})

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const CLIENT_SPAN = '00f067aa0ba902b7'
const TRACEPARENT = `00-${TRACE}-${CLIENT_SPAN}-01`
const FIELDS = { traceparent: TRACEPARENT, tracestate: 'vendor=1,other=2', baggage: 'user=alice' }

interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly name: string
  readonly kind: number
  readonly attributes: Record<string, unknown>
  readonly status: { readonly code?: number; readonly message?: string }
  readonly links: readonly { readonly traceId: string }[]
}

interface Scene {
  readonly gateway: TestGateway
  readonly front: HttpFront
  readonly token: string
  call(params: Record<string, unknown>, headers?: Record<string, string>): Promise<Record<string, unknown>>
}

async function start(env: Record<string, string> = {}, servers: Record<string, unknown> = {}): Promise<Scene> {
  const files = {
    servers: { shop: nodeServer('shop.js'), ...servers },
    rules: { agents: { reader: { allow: { servers: ['*'] }, deny: { tools: { shop: ['drop_*'] } } } } },
  }
  const gateway = await openTestGateway(files, env)
  let isClosed = false
  const close = gateway.close
  const once: TestGateway = {
    ...gateway,
    async close() {
      if (!isClosed) await close()
      isClosed = true
    },
  }
  open.push(once.close)
  const front = await gateway.gateway.serveHttp({ port: 0 })
  const token = await front.issueToken('reader', 600)
  return {
    gateway: once,
    front,
    token,
    async call(params, headers = {}) {
      const question = mcpRequest('modern', token, 'tools/call', params)
      const { json } = await ask(front.url, { ...question, headers: { ...question.headers, ...headers } })
      return json().result ?? {}
    },
  }
}

async function openCollector(): Promise<HttpServer & { env: Record<string, string>; spans: () => Span[] }> {
  const collector = await listen((_, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}'),
  )
  open.push(collector.close)
  return {
    ...collector,
    env: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url.replace('/mcp', '') },
    spans: () => collector.received.flatMap(({ body }) => spansIn(body)),
  }
}

type Exported = {
  resourceSpans: {
    resource: { attributes: KeyValue[] }
    scopeSpans: { spans: (Omit<Span, 'attributes'> & { attributes: KeyValue[] })[] }[]
  }[]
}
type KeyValue = { key: string; value: Record<string, unknown> }
const toObject = (pairs: KeyValue[]) =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, Object.values(value)[0]]))
const spansIn = (body: unknown): Span[] =>
  (body as Exported).resourceSpans.flatMap(({ scopeSpans }) =>
    scopeSpans.flatMap(({ spans }) =>
      spans.map(span => ({ ...span, links: span.links ?? [], attributes: toObject(span.attributes) })),
    ),
  )

const SERVER = 2
const CLIENT = 3
const execute = (more: Record<string, unknown> = {}, _meta: Record<string, unknown> = {}) => ({
  name: 'execute_tool',
  arguments: { server: 'shop', tool: 'list_tables', ...more },
  _meta,
})
const metaSeen = (result: Record<string, unknown>) =>
  (result.structuredContent as { meta: Record<string, string> }).meta

describe('spans', () => {
  test('go on with the trace of the client, and the backend goes on with theirs', async () => {
    const collector = await openCollector()
    const { gateway, call } = await start(collector.env)
    const seen = metaSeen(await call(execute({}, { ...FIELDS, 'example.com/own': 1 })))
    await gateway.close()

    const [outgoing, incoming] = collector.spans()
    expect(incoming).toMatchObject({
      traceId: TRACE,
      parentSpanId: CLIENT_SPAN,
      name: 'tools/call execute_tool',
      kind: SERVER,
      attributes: {
        'mcp.method.name': 'tools/call',
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': 'execute_tool',
        'mcp.protocol.version': '2026-07-28',
        'network.transport': 'tcp',
        'mcp.gateway.agent': 'reader',
        'mcp.gateway.server': 'shop',
        'mcp.gateway.tool': 'list_tables',
        'mcp.gateway.code': 'OK',
      },
    })
    expect(outgoing).toMatchObject({
      traceId: TRACE,
      parentSpanId: incoming?.spanId,
      name: 'tools/call list_tables',
      kind: CLIENT,
      attributes: { 'gen_ai.tool.name': 'list_tables', 'mcp.gateway.server': 'shop', 'network.transport': 'pipe' },
    })
    expect(seen).toEqual({
      traceparent: `00-${TRACE}-${outgoing?.spanId}-01`,
      tracestate: FIELDS.tracestate,
      baggage: FIELDS.baggage,
      'example.com/own': 1,
    })
    const [body] = collector.received.map(request => request.body as unknown as Exported)
    expect(toObject(body?.resourceSpans[0]?.resource.attributes ?? [])).toMatchObject({
      'service.name': 'agent-mcp-gateway',
      'service.version': expect.any(String),
    })
    expect(JSON.stringify(collector.received)).not.toContain('local:')
  })

  test('of a list that several servers contribute to belong to one trace', async () => {
    const collector = await openCollector()
    const talker = await openTalker('modern', 'http')
    open.push(() => talker[Symbol.asyncDispose]())
    const { gateway, front, token } = await start(collector.env, { talker: talker.entry })
    await askModern(`${front.url}?expose=direct`, token, 'prompts/list', { _meta: FIELDS })
    await gateway.close()
    expect(collector.spans().map(({ name, kind, traceId }) => [name, kind, traceId])).toEqual([
      ['prompts/list', CLIENT, TRACE],
      ['prompts/list', SERVER, TRACE],
    ])
  })

  test('begin a trace where there is none', async () => {
    const collector = await openCollector()
    const { gateway, call } = await start(collector.env)
    const seen = metaSeen(await call(execute()))
    await gateway.close()
    const [outgoing, incoming] = collector.spans()
    expect([incoming?.parentSpanId ?? '', outgoing?.parentSpanId]).toEqual(['', incoming?.spanId])
    expect(seen).toEqual({ traceparent: `00-${incoming?.traceId}-${outgoing?.spanId}-01` })
  })

  test('of the transport are parents where the request names none, and links where it does', async () => {
    const collector = await openCollector()
    const { gateway, call, front, token } = await start(collector.env)
    const other = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
    const header = { traceparent: `00-${other}-bbbbbbbbbbbbbbbb-01`, baggage: 'from=header' }
    expect(metaSeen(await call(execute(), header))).toMatchObject({ baggage: 'from=header' })
    await call(execute({}, FIELDS), header)
    const session = await beginSession(front.url, token)
    await ask(front.url, {
      method: 'POST',
      headers: { ...session.headers(), ...header },
      body: JSON.stringify({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'list_servers' } }),
    })
    await gateway.close()
    const incoming = collector.spans().filter(({ kind }) => kind === SERVER)
    expect(incoming.map(({ traceId, links }) => [traceId, links.map(link => link.traceId)])).toEqual([
      [other, []],
      [TRACE, [other]],
      [other, []],
    ])
    expect(incoming[2]?.attributes['mcp.session.id']).toBe(session.id)
  })

  test('say what went wrong', async () => {
    const collector = await openCollector()
    const talker = await openTalker('legacy', 'http')
    open.push(() => talker[Symbol.asyncDispose]())
    const { gateway, call, front, token } = await start(collector.env, { talker: talker.entry })
    await call(execute({ tool: 'drop_table' }))
    await call(execute({ tool: 'failing' }))
    await call(execute({ tool: 'refusing' }))
    const url = front.url.replace('/mcp', '/servers/talker/mcp')
    await askModern(url, token, 'resources/read', { uri: 'talk://plain' })
    await askModern(url, token, 'resources/read', { uri: 'talk://nowhere' })
    await gateway.close()
    const found = collector
      .spans()
      .map(({ name, kind, status, attributes }) => [
        kind,
        name,
        status.code ?? 0,
        attributes['error.type'],
        attributes['rpc.response.status_code'],
      ])
    expect(found).toEqual([
      [SERVER, 'tools/call execute_tool', 2, 'DENIED_BY_POLICY', undefined],
      [CLIENT, 'tools/call failing', 2, 'tool_error', undefined],
      [SERVER, 'tools/call execute_tool', 2, 'tool_error', undefined],
      [CLIENT, 'tools/call refusing', 2, '-32001', '-32001'],
      [SERVER, 'tools/call execute_tool', 2, 'BACKEND_ERROR', undefined],
      [CLIENT, 'resources/read', 0, undefined, undefined],
      [SERVER, 'resources/read', 0, undefined, undefined],
      [CLIENT, 'resources/read', 2, '-32002', '-32002'],
      [SERVER, 'resources/read', 2, 'BACKEND_ERROR', '-32602'],
    ])
    const place = collector.spans().find(({ name, kind }) => name === 'resources/read' && kind === CLIENT)?.attributes
    expect(place).toMatchObject({
      'server.address': '127.0.0.1',
      'network.transport': 'tcp',
      'mcp.resource.uri': 'talk://plain',
    })
  })

  test('that the client does not want are not sent, and backends hear of that', async () => {
    const collector = await openCollector()
    const { gateway, call } = await start(collector.env)
    const { traceparent } = metaSeen(await call(execute({}, { traceparent: `00-${TRACE}-${CLIENT_SPAN}-00` })))
    expect(traceparent).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-00$`))
    await gateway.close()
    expect(collector.received).toEqual([])
  })

  test.each<[what: string, env: Record<string, string>]>([
    ['the endpoint for traces', { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: '/v1/traces' }],
    ['the name of the service', { OTEL_SERVICE_NAME: 'my-gateway' }],
  ])('%s can be set', async (_, more) => {
    const collector = await openCollector()
    const base = collector.env.OTEL_EXPORTER_OTLP_ENDPOINT ?? ''
    const own = more.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
    const { gateway, call } = await start(
      own ? { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${base}${own}` } : { ...collector.env, ...more },
    )
    await call(execute())
    await gateway.close()
    expect(collector.spans()).toHaveLength(2)
    const [body] = collector.received.map(request => request.body as unknown as Exported)
    const { 'service.name': name } = toObject(body?.resourceSpans[0]?.resource.attributes ?? [])
    expect(name).toBe(more.OTEL_SERVICE_NAME ?? 'agent-mcp-gateway')
  })
})

describe('without a collector', () => {
  test.each<[what: string, env: Record<string, string>]>([
    ['none configured', {}],
    ['switched off', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', OTEL_SDK_DISABLED: 'true' }],
    ['no traces wanted', { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', OTEL_TRACES_EXPORTER: 'none' }],
  ])('what the client says passes through as it is: %s', async (_, env) => {
    const servers: Record<string, unknown> = {}
    const talkers = await Promise.all(
      (['legacy', 'modern'] as const).map(async era => {
        const talker = await openTalker(era, 'http')
        open.push(() => talker[Symbol.asyncDispose]())
        servers[era] = talker.entry
        return talker
      }),
    )
    const { call, front, token } = await start(env, servers)
    expect(metaSeen(await call(execute({}, FIELDS)))).toEqual(FIELDS)
    for (const era of ['legacy', 'modern']) {
      await call({ name: 'execute_tool', arguments: { server: era, tool: 'echo', args: {} }, _meta: FIELDS })
      const url = front.url.replace('/mcp', `/servers/${era}/mcp`)
      await askModern(url, token, 'resources/read', { uri: 'talk://plain', _meta: FIELDS })
    }
    for (const talker of talkers) {
      const heard = talker.heard().filter(({ method }) => method === 'tools/call' || method === 'resources/read')
      expect(heard.map(({ params }) => (params as { _meta: unknown })._meta)).toMatchObject([FIELDS, FIELDS])
    }
  })

  test.each(['nobody listens', 'it never answers', 'it refuses'])(
    'that works, no call and no end is held up: %s',
    async what => {
      const collector = createServer((_, response) => {
        if (what === 'it refuses') response.writeHead(500).end()
      })
      await new Promise<void>(resolve => collector.listen(0, '127.0.0.1', resolve))
      const { port } = collector.address() as { port: number }
      open.push(() => collector.closeAllConnections())
      if (what === 'nobody listens') await new Promise(resolve => collector.close(resolve))
      const { gateway, call } = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}` })
      for (let round = 0; round < 5; round++) expect((await call(execute())).isError).toBeUndefined()
      const started = performance.now()
      await gateway.close()
      expect(performance.now() - started).toBeLessThan(4_500)
      collector.close()
    },
  )

  test('an endpoint that is no URL is named', async () => {
    await expect(
      openTestGateway({ servers: {}, rules: {} }, { OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' }),
    ).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('OTEL_EXPORTER_OTLP_ENDPOINT is "collector:4318"'),
    })
  })
})

test.each([
  [TRACEPARENT, { traceId: TRACE, spanId: CLIENT_SPAN, traceFlags: 1 }],
  [`01-${TRACE}-${CLIENT_SPAN}-01-more`, { traceId: TRACE, spanId: CLIENT_SPAN, traceFlags: 1 }],
  [`ff-${TRACE}-${CLIENT_SPAN}-01`, undefined],
  [`00-${'0'.repeat(32)}-${CLIENT_SPAN}-01`, undefined],
  [`00-${TRACE}-${'0'.repeat(16)}-01`, undefined],
  [TRACEPARENT.toUpperCase(), undefined],
  ['', undefined],
  [7, undefined],
])('traceparent %s', (text, parent) => {
  expect(readTraceparent(text)).toEqual(parent)
})
