import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { errorCodes, type GatewayErrorCode } from '../../src/errors/gateway-error.js'
import { Front } from '../../src/gateway/front.js'
import { Runtime } from '../../src/gateway/runtime.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'

const statusServer = createServer((request, response) => {
  const status = Number(request.url?.slice(1))
  response.writeHead(status, status === 429 ? { 'retry-after': '7' } : {}).end()
})

const rules = { agents: { admin: { allow: { servers: ['*'] } } } }
let opened: TestGateway
let drained: TestGateway
let withUnknownFallback: TestGateway

beforeAll(async () => {
  await new Promise<void>(resolve => statusServer.listen(0, '127.0.0.1', resolve))
  const url = (status: number) => ({
    url: `http://127.0.0.1:${(statusServer.address() as AddressInfo).port}/${status}`,
  })
  const servers = {
    shop: nodeServer('shop.js'),
    absent: { command: 'no-such-command-anywhere' },
    login: url(401),
    limited: url(429),
  }
  opened = await openTestGateway({ servers, rules })
  drained = await openTestGateway({ servers: {}, rules })
  withUnknownFallback = await openTestGateway({ servers: {}, rules }, { GATEWAY_DEFAULT_AGENT: 'ghost' })
  await drained.gateway.runtime.close(0)
})
afterAll(async () => {
  await Promise.all([opened.close(), drained.close(), withUnknownFallback.close()])
  statusServer.close()
})

const execute = (server: string, tool: string, rest = {}) => ({ server, tool, ...rest })

interface Provocation {
  readonly code: GatewayErrorCode
  readonly gateway: () => TestGateway
  readonly args: Record<string, unknown>
  readonly agent?: string
  readonly details?: Record<string, unknown>
}

const admin = { gateway: () => opened, agent: 'admin' }

const provocations: readonly Provocation[] = [
  { ...admin, code: 'DENIED_BY_POLICY', args: execute('nowhere', 'x') },
  { ...admin, code: 'INVALID_AGENT_ID', args: execute('shop', 'query'), agent: 'stranger' },
  { gateway: () => opened, code: 'NO_FALLBACK_CONFIGURED', args: execute('shop', 'query') },
  { gateway: () => withUnknownFallback, code: 'FALLBACK_AGENT_NOT_IN_RULES', args: execute('shop', 'query') },
  {
    ...admin,
    code: 'TOOL_NOT_FOUND',
    args: execute('shop', 'quarry'),
    details: { nearest: ['query', 'free', 'note'] },
  },
  { ...admin, code: 'INVALID_ARGUMENTS', args: execute('shop', 'query', { args: {} }), details: { path: '' } },
  { ...admin, code: 'SERVER_UNAVAILABLE', args: execute('absent', 'x'), details: { retry_at: expect.any(String) } },
  { ...admin, code: 'AUTH_REQUIRED', args: execute('login', 'x'), details: { command: 'gateway login login' } },
  { ...admin, code: 'TIMEOUT', args: execute('shop', 'silent', { timeout_ms: 50 }) },
  { ...admin, code: 'RATE_LIMITED', args: execute('limited', 'x') },
  { ...admin, code: 'BACKEND_ERROR', args: execute('shop', 'refusing'), details: { backend_code: -32001 } },
  { ...admin, code: 'OUTCOME_UNKNOWN', args: execute('shop', 'dying'), details: { stderr: ['shop is open'] } },
  { ...admin, code: 'SHUTTING_DOWN', args: execute('shop', 'query'), gateway: () => drained },
]

test.each(provocations)(
  '$code can be provoked and says what it is',
  async ({ code, gateway, args, agent, details }) => {
    const { isError, content, structuredContent } = await gateway().call('execute_tool', args, agent)
    expect(isError).toBe(true)
    expect(structuredContent.error).toMatchObject({ code, message: expect.stringMatching(/\w+/), ...details })
    expect(JSON.parse(String(content[0]?.text))).toEqual(structuredContent)
  },
)

test('INTERNAL hides its cause', async () => {
  const { runtime, logger } = opened.gateway
  const broken = new (class extends Map<string, never> {
    override get(): never {
      throw new Error('a detail that must not leave the process')
    }
  })()
  const snapshot = { ...runtime.current, rules: { ...runtime.current.rules, agents: broken } }
  const front = new Front({
    runtime: new Runtime(snapshot),
    audit: { write() {}, async close() {} },
    logger,
    debug: false,
  })
  const result = await front.callSmallTool(
    'list_servers',
    { agent_id: 'admin' },
    { principal: { id: 'x', key: 'x', agents: 'any' }, era: 'modern' },
  )
  expect(result).toMatchObject({ isError: true, structuredContent: { error: { code: 'INTERNAL' } } })
  expect(JSON.stringify(result)).not.toContain('a detail')
})

test('every code an agent can meet is provoked above', () => {
  const provoked = new Set<string>([...provocations.map(({ code }) => code), 'INTERNAL', 'CONFIG_INVALID'])
  // The command line's own.
  const known = errorCodes.filter(code => code !== 'LOGIN_FAILED')
  expect([...provoked].sort()).toEqual(known.sort())
})

test('one audit line a call, denied and refused ones included', async () => {
  const audited = await openTestGateway({ servers: { shop: nodeServer('shop.js') }, rules })
  await audited.call('execute_tool', execute('shop', 'query', { args: { sql: 'select secret-argument' } }), 'admin')
  await audited.call('execute_tool', execute('nowhere', 'x'), 'admin')
  await audited.call('execute_tool', execute('shop', 'failing'), 'admin')
  await audited.call('list_servers', {}, 'stranger')
  const lines = await audited.auditLines(4)
  await audited.close()
  const principal = expect.stringMatching(/^local:/)
  const place = { seq: expect.any(Number), prev: expect.toSatisfy(prev => prev === null || prev.length === 43) }
  const common = { time: expect.stringMatching(/^\d{4}-.*Z$/), principal, latency_ms: expect.any(Number), ...place }
  expect(lines).toEqual([
    {
      ...common,
      agent: 'admin',
      operation: 'execute_tool',
      server: 'shop',
      tool: 'query',
      decision: 'allow',
      rule: expect.stringContaining('agents.admin.allow.servers[0]'),
      code: 'OK',
    },
    {
      ...common,
      agent: 'admin',
      operation: 'execute_tool',
      server: 'nowhere',
      tool: 'x',
      decision: 'deny',
      rule: expect.any(String),
      code: 'DENIED_BY_POLICY',
    },
    {
      ...common,
      agent: 'admin',
      operation: 'execute_tool',
      server: 'shop',
      tool: 'failing',
      decision: 'allow',
      rule: expect.any(String),
      code: 'TOOL_ERROR',
    },
    {
      ...common,
      agent: null,
      operation: 'list_servers',
      server: null,
      tool: null,
      decision: null,
      rule: null,
      code: 'INVALID_AGENT_ID',
    },
  ])
  expect(JSON.stringify(lines)).not.toContain('secret-argument')
})
