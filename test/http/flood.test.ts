import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createFailedLoginLog } from '../../src/http/failed-logins.js'
import { addressOf, FloodGuard } from '../../src/http/flood.js'
import type { AuditEvent } from '../../src/observability/audit-log.js'
import type { HttpFront } from '../../src/start.js'
import { openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

let opened: TestGateway
let front: HttpFront
let token: string

beforeAll(async () => {
  opened = await openTestGateway({ servers: {}, rules: { agents: { reader: { allow: { servers: ['*'] } } } } })
  front = await opened.gateway.serveHttp({ port: 0 })
  token = await front.issueToken('reader', 60)
})
afterAll(() => opened.close())

const SECRET = 'eyJhbGciOiJFUzI1NiJ9.c2VjcmV0LXRva2Vu.c2ln'
const call = (bearer: string, headers: Record<string, string> = {}) => {
  const question = mcpRequest('modern', bearer, 'tools/call', { name: 'list_servers', arguments: {} })
  return ask(front.url, { ...question, headers: { ...question.headers, ...headers } })
}

describe('requests that do not get in', () => {
  test('leave a line each, without the token', async () => {
    await ask(front.url, { method: 'POST' })
    await ask(front.url, { method: 'POST', headers: { authorization: 'Bearer not a token' } })
    await call(SECRET)
    const lines = await opened.auditLines(3)
    expect(lines.map(({ operation, code, decision }) => [operation, code, decision])).toEqual([
      ['authenticate', 'NO_TOKEN', 'deny'],
      ['authenticate', 'INVALID_REQUEST', 'deny'],
      ['authenticate', 'INVALID_TOKEN', 'deny'],
    ])
    expect(lines[2]).toMatchObject({ principal: 'anonymous', agent: null, address: '127.0.0.1' })
    expect(JSON.stringify(lines)).not.toContain('c2VjcmV0')
  })

  test('are turned away when there are too many of them; who has a good one gets in all the same', async () => {
    expect((await call(token)).status).toBe(200)
    const statuses: number[] = []
    for (let round = 0; round < 13; round++) {
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, index) => call(SECRET, { 'x-forwarded-for': `10.0.${round}.${index}` })),
      )
      statuses.push(...answers.map(({ status }) => status))
    }
    expect(statuses.filter(status => status === 401).length).toBeGreaterThan(590)
    const { status, headers, json } = await call(SECRET)
    expect([status, json()]).toEqual([429, { error: 'too_many_failures', error_description: expect.any(String) }])
    expect(Number(headers['retry-after'])).toBeGreaterThan(20)
    const page = await call(SECRET, { origin: 'http://localhost:6274' }) // may know for how long
    expect([page.status, page.headers['access-control-allow-origin']]).toEqual([429, 'http://localhost:6274'])
    expect(page.headers['access-control-expose-headers']).toContain('Retry-After')
    expect((await call(token)).status).toBe(200)
    // The address may be a proxy with others behind it.
    expect((await call(await front.issueToken('reader', 60))).status).toBe(200)
    expect((await call(`gw_000000000000_${'x'.repeat(43)}`)).status).toBe(429)
    expect((await ask(front.url, { method: 'POST' })).status).toBe(429)
    expect((await ask(front.url.replace('/mcp', '/health'))).status).toBe(200)
    // A flood of requests is no flood of lines.
    const failed = (await opened.auditLines(10)).filter(({ operation }) => operation === 'authenticate')
    expect(failed.length).toBeLessThanOrEqual(10)
  })
})

describe('FloodGuard', () => {
  test('opens again when the minute is over', async () => {
    let now = 0
    const counts = { add: async () => ({ count: 3, resetsInMs: 1_000 }), takeBack: async () => {} }
    const guard = new FloodGuard({ failuresPerMinute: 3, counts, now: () => now })
    expect(guard.closedFor('a')).toBeUndefined()
    await guard.failed('a')
    expect([guard.closedFor('a'), guard.closedFor('b')]).toEqual([1_000, undefined])
    now = 1_000
    expect([guard.closedFor('a'), guard.isActive]).toEqual([undefined, false])
  })

  test('slows down who keeps failing, a few at a time', async () => {
    const counts = { add: async () => ({ count: 160, resetsInMs: 1_000 }), takeBack: async () => {} }
    const guard = new FloodGuard({ counts })
    const started = performance.now()
    const waits = await Promise.all(
      Array.from({ length: 100 }, async () => {
        await guard.failed('a')
        return performance.now() - started
      }),
    )
    expect(waits.filter(ms => ms > 100)).toHaveLength(20)
  })

  test.each([
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    [undefined, 'unknown'],
  ])('%s counts for %s', (remoteAddress, counted) => {
    expect(addressOf({ remoteAddress })).toBe(counted)
  })
})

test('the next line says how many were left out', async () => {
  const lines: AuditEvent[] = []
  let count = 0
  const counts = { add: async () => ({ count, resetsInMs: 1 }), takeBack: async () => {} }
  const failed = createFailedLoginLog({ write: line => void lines.push(line), close: async () => {} }, counts)
  for (count of [1, 11, 12, 2]) await failed({ address: 'a', code: 'INVALID_TOKEN' })
  expect(lines.map(({ suppressed }) => suppressed)).toEqual([undefined, 2])
})
