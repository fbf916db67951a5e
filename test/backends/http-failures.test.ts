import { describe, expect, test } from 'vitest'
import { openBackend } from '../fixtures/backend.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { type NastyAnswer, openByHand } from '../fixtures/servers.js'

const rich = (era: 'legacy' | 'modern') => createRichServer({ eras: [era], countExecution: () => 2 })

interface Case {
  readonly means: string
  readonly answer: NastyAnswer | 'hang up'
  readonly headers?: Record<string, string>
  /** What it means as the answer to a call, and as the answer to everything. */
  readonly call: Record<string, unknown>
  readonly connect?: Record<string, unknown>
}

const json = { 'content-type': 'application/json' }
const html = { 'content-type': 'text/html; charset=utf-8' }
const says = (text: string) => expect.stringContaining(text)
const withDetails = (details: Record<string, unknown>) => expect.objectContaining({ server: 'nasty', ...details })

const loginNeeded = {
  code: 'AUTH_REQUIRED',
  message: says('gateway login nasty'),
  details: withDetails({ command: 'gateway login nasty' }),
}
const rejectedHeader = { code: 'SERVER_UNAVAILABLE', message: says('Authorization') }
const error = (code: number) =>
  JSON.stringify({ jsonrpc: '2.0', id: null, error: { code, message: 'said the server' } })

// Nothing was sent that could have been carried out: "unavailable" is right, but the reason has to be the server's answer.
const notMcp = (reason: RegExp) => ({
  code: expect.stringMatching(/^(BACKEND_ERROR|SERVER_UNAVAILABLE)$/),
  message: expect.stringMatching(reason),
})

const CASES: readonly Case[] = [
  { means: '401', answer: { status: 401 }, call: loginNeeded },
  {
    means: '401 with a JSON-RPC error',
    answer: { status: 401, headers: json, body: error(-32001) },
    call: loginNeeded,
  },
  {
    means: '401 though Authorization is configured',
    answer: { status: 401 },
    headers: { authorization: 'Bearer x' },
    call: rejectedHeader,
  },
  {
    means: '429 with seconds',
    answer: { status: 429, headers: { 'retry-after': '7' } },
    call: { code: 'RATE_LIMITED', details: withDetails({ retry_after_ms: 7_000 }) },
  },
  { means: '429 without', answer: { status: 429 }, call: { code: 'RATE_LIMITED' } },
  {
    means: '429 with a JSON-RPC error',
    answer: { status: 429, headers: { ...json, 'retry-after': '1' }, body: error(-32000) },
    call: { code: 'RATE_LIMITED', details: withDetails({ retry_after_ms: 1_000 }) },
  },
  { means: '503', answer: { status: 503 }, call: { code: 'SERVER_UNAVAILABLE', message: says('503') } },
  { means: '500', answer: { status: 500 }, call: { code: 'BACKEND_ERROR', message: says('500') } },
  { means: '403', answer: { status: 403 }, call: { code: 'BACKEND_ERROR', message: says('403') } },
  {
    means: '404',
    answer: { status: 404 },
    call: { code: expect.stringMatching(/^(BACKEND_ERROR|SERVER_UNAVAILABLE)$/), message: says('404') },
  },
  {
    means: 'HTML',
    answer: { status: 200, headers: html, body: '<!doctype html><p>Hello' },
    call: { code: 'BACKEND_ERROR', message: says('text/html') },
    connect: notMcp(/text\/html/),
  },
  {
    means: 'invalid JSON',
    answer: { status: 200, headers: json, body: '{"jsonrpc":"2.0","id":1,' },
    call: { code: 'BACKEND_ERROR', message: says('malformed JSON') },
    connect: notMcp(/^(?!.*connection broke).{1,400}$/),
  },
  {
    means: 'JSON that is no JSON-RPC',
    answer: { status: 200, headers: json, body: '{"ok":true}' },
    call: { code: 'BACKEND_ERROR' },
    connect: notMcp(/^(?!.*connection broke).{1,400}$/),
  },
  {
    means: 'an empty body',
    answer: { status: 200, headers: json, body: '' },
    call: { code: 'BACKEND_ERROR', message: says('empty') },
    connect: notMcp(/^(?!.*connection broke).{1,400}$/),
  },
  { means: 'nothing at all', answer: { status: 200 }, call: { code: 'BACKEND_ERROR', message: says('empty') } },
  { means: '202 without an answer', answer: { status: 202 }, call: { code: 'BACKEND_ERROR' } },
  {
    means: 'a stream that ends without an answer',
    answer: { status: 200, headers: { 'content-type': 'text/event-stream' }, body: ': bye\n\n' },
    call: { code: 'OUTCOME_UNKNOWN' },
  },
  {
    means: 'a socket that is closed',
    answer: 'hang up',
    call: { code: 'OUTCOME_UNKNOWN' },
    connect: { code: 'SERVER_UNAVAILABLE' },
  },
]

describe.each(['legacy', 'modern'] as const)('as the answer to a call, %s', era => {
  test.each(CASES)('$means', async ({ answer, headers, call }) => {
    const instead = ({ method, params }: Readonly<Record<string, unknown>>) =>
      method === 'tools/call' && (params as { name: string }).name === 'text' ? answer : undefined
    await using http = await openByHand(rich(era), { instead })
    await using server = openBackend({ url: http.url, ...(headers && { headers }) }, { name: 'nasty' })
    await expect(server.call('text')).rejects.toMatchObject({ details: withDetails({}), ...call })
    if (call !== loginNeeded) expect(await server.call('empty')).toEqual({ content: [] })
    else expect(server.backend.status()).toMatchObject({ state: 'login needed', auth: { kind: 'login needed' } })
  })
})

const CONNECTING = CASES.filter(({ means }) => /^(401|404|429|503|HTML|invalid|JSON|an empty|a socket)/.test(means))

test.each(CONNECTING)('as the answer to everything: $means', async ({ answer, headers, call, connect = call }) => {
  await using http = await openByHand(rich('legacy'), { instead: () => answer })
  await using server = openBackend({ url: http.url, ...(headers && { headers }) }, { name: 'nasty' })
  await expect(server.call('text')).rejects.toMatchObject({ details: withDetails({}), ...connect })
  const state = connect === loginNeeded ? 'login needed' : 'cooling'
  expect(server.backend.status()).toMatchObject({ state, last_error: expect.any(String) })
})

test('429 with a date as Retry-After', async () => {
  const retryAfter = new Date(Date.now() + 60_000).toUTCString()
  const instead = ({ method }: Readonly<Record<string, unknown>>) =>
    method === 'tools/call' ? { status: 429, headers: { 'retry-after': retryAfter } } : undefined
  await using http = await openByHand(rich('modern'), { instead })
  await using server = openBackend({ url: http.url })
  const failure = (await server.call('text').catch((thrown: unknown) => thrown)) as {
    details: { retry_after_ms: number }
  }
  expect(failure).toMatchObject({ code: 'RATE_LIMITED', details: { retry_after_ms: expect.any(Number) } })
  expect(failure.details.retry_after_ms).toBeGreaterThan(30_000)
  expect(failure.details.retry_after_ms).toBeLessThanOrEqual(60_000)
})

test('nobody listens', async () => {
  const http = await openByHand(rich('legacy'))
  await http.close()
  await using server = openBackend({ url: http.url }, { name: 'away' })
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: says('ECONNREFUSED'),
    details: { server: 'away', retry_at: expect.any(String) },
  })
})

test('calls that fail together fail alike, and delay the next try as one failure', async () => {
  const instead = ({ method }: Readonly<Record<string, unknown>>) =>
    method === 'tools/call' ? { status: 401 } : undefined
  await using http = await openByHand(rich('modern'), { instead })
  await using server = openBackend({ url: http.url })
  await server.toolNames()
  await Promise.all(Array.from({ length: 10 }, () => expect(server.call('text')).rejects.toThrow('login')))
  const again = () => server.toolNames().catch(() => [])
  await expect.poll(again, { timeout: 10_000 }).toContain('text')
})

test('a name with spaces is quoted in the command to log in', async () => {
  await using http = await openByHand(rich('legacy'), { instead: () => ({ status: 401 }) })
  await using server = openBackend({ url: http.url }, { name: 'my server' })
  await expect(server.call('text')).rejects.toMatchObject({ details: { command: 'gateway login "my server"' } })
})
