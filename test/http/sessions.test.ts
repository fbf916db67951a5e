import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { ServerFactory } from '../../src/gateway/server.js'
import { SessionEvents } from '../../src/http/event-store.js'
import type { Front as HttpFront } from '../../src/http/front.js'
import { Sessions, type SessionsOptions } from '../../src/http/sessions.js'
import type { VerifiedToken } from '../../src/identity/token-verifier.js'
import { beginSession, commonHeaders, exchange, initialize, openStream, type Stream } from '../fixtures/http-clients.js'
import { openSocialGateway, type SocialGateway } from '../fixtures/social.js'

let social: SocialGateway
let mine: string
beforeAll(async () => {
  social = await openSocialGateway()
  mine = await social.token({ agents: ['a'] })
})
afterAll(() => social[Symbol.asyncDispose]())

const DOORS = [
  ['/mcp', () => social.mcp],
  ['/mcp?expose=direct', () => `${social.mcp}?expose=direct`],
  ['/servers/old/mcp', () => social.at('old')],
  ['/servers/new/mcp', () => social.at('new')],
  ['/servers/web-old/mcp', () => social.at('web-old')],
  ['/servers/web-new/mcp', () => social.at('web-new')],
] as const

const GONE = { status: 404, message: { error: { code: -32001, message: 'Session not found' } } }
const seen = ({ status, messages }: Stream) => ({ status, message: messages()[0] })

describe.each(DOORS)('a session at %s', (_, url) => {
  test('has an id of visible ASCII, and serves requests until it is ended', async () => {
    const session = await beginSession(url(), mine)
    expect(session.id).toMatch(/^[\x21-\x7e]{16,}$/)
    expect(session.initialized.answer.result).toMatchObject({
      protocolVersion: '2025-11-25',
      serverInfo: { name: 'agent-mcp-gateway' },
    })
    expect((await session.request('ping')).answer).toEqual({ jsonrpc: '2.0', id: 1, result: {} })
    expect((await session.request('tools/list')).answer.result?.tools).not.toEqual([])

    const stream = await session.listen()
    expect([stream.status, stream.headers['content-type']]).toEqual([200, 'text/event-stream'])
    expect((await session.end()).status).toBe(200)
    await stream.closed
    for (const method of ['POST', 'GET', 'DELETE'] as const)
      expect(seen(await again(session, method))).toMatchObject(GONE)
  })

  test('is not there for anybody else, in the same words as one that never was', async () => {
    const session = await beginSession(url(), mine)
    const strangers = [
      await social.token({ agents: ['b'] }),
      await social.token({ agents: ['b'], sub: 'agent:a' }),
      await social.token({ agents: ['a', 'b'], sub: 'agent:a' }),
    ]
    for (const method of ['POST', 'GET', 'DELETE'] as const) {
      const never = await again(session.as({ id: 'b9f8a3f4-6ed4-4a49-b8a5-7df4a1a0b7c1' }), method)
      expect(seen(never)).toMatchObject(GONE)
      for (const token of strangers) {
        // Who may act as several agents has to say which at the doors of one server.
        const other = await again(session.as({ token }), method)
        const asNever = await again(session.as({ token, id: 'b9f8a3f4-6ed4-4a49-b8a5-7df4a1a0b7c1' }), method)
        expect([other.status, other.text()]).toEqual([asNever.status, asNever.text()])
        expect(other.status).not.toBe(200)
        expect({ ...other.headers, date: '' }).toEqual({ ...asNever.headers, date: '' })
      }
    }
    expect((await session.request('ping')).status).toBe(200)
    await session.end()
    const audited = async () => (await social.opened.auditLines(1)).filter(({ operation }) => operation === 'session')
    await expect.poll(async () => (await audited()).at(-1)).toMatchObject({ principal: 'agent:b', decision: 'deny' })
  })

  test('goes on with the next token of the same principal', async () => {
    const session = await beginSession(url(), mine)
    const next = session.as({ token: await social.token({ agents: ['a'], ttlSeconds: 1234 }) })
    expect((await next.request('tools/list')).status).toBe(200)
    expect((await next.end()).status).toBe(200)
  })

  test('is there at its own door only', async () => {
    const session = await beginSession(url(), mine)
    for (const [name, elsewhere] of DOORS) {
      const isSame = new URL(elsewhere()).pathname === new URL(url()).pathname
      const { status } = await session.as({ url: elsewhere() }).request('ping')
      expect([name, status]).toEqual([name, isSame ? 200 : 404])
    }
    await session.end()
  })

  test('has one stream, for those who accept one', async () => {
    const session = await beginSession(url(), mine)
    const { accept: _, ...headers } = session.headers()
    expect((await exchange(url(), { method: 'GET', headers })).status).toBe(406)
    const first = await session.listen()
    expect(first.headers['x-accel-buffering']).toBe('no')
    expect((await again(session, 'GET')).status).toBe(409)
    first.close()
    // Another one is possible as soon as the first is gone.
    await expect.poll(() => reopened(session)).toBe(200)
    await session.end()
  })

  test('is not initialized twice', async () => {
    const session = await beginSession(url(), mine)
    const second = await session.post(initialize())
    expect([second.status, second.messages()[0]?.error?.code]).toEqual([400, -32600])
    expect((await session.request('ping')).status).toBe(200)
    await session.end()
  })

  test('ends its stream when the token ends, and lives on', async () => {
    const session = await beginSession(url(), mine)
    // Clocks may differ by a minute: what is left of it is a few seconds.
    const short = await social.token({ agents: ['a'], ttlSeconds: -57 })
    const stream = await session.as({ token: short }).listen()
    expect(stream.status).toBe(200)
    await stream.closed
    expect((await session.as({ token: short }).request('ping')).status).toBe(401)
    expect(stream.text()).not.toContain('error')
    expect((await session.request('ping')).status).toBe(200)
    await session.end()
  })
})

/** A request of that method; a stream is not waited for. */
async function again(session: Awaited<ReturnType<typeof beginSession>>, method: 'POST' | 'GET' | 'DELETE') {
  if (method === 'POST') return session.post({ jsonrpc: '2.0', id: 99, method: 'ping' })
  if (method === 'DELETE') return session.end()
  const stream = await session.listen()
  if (stream.status === 200) stream.close()
  await stream.closed
  return stream
}

async function reopened(session: Awaited<ReturnType<typeof beginSession>>): Promise<number> {
  return (await again(session, 'GET')).status
}

describe('the token', () => {
  test('may say the same in another order', async () => {
    const several = { agents: ['a', 'guest'], sub: 'several' }
    const session = await beginSession(social.mcp, await social.token(several))
    const next = session.as({ token: await social.token({ ...several, agents: ['guest', 'a'] }) })
    expect((await next.request('ping')).status).toBe(200)
    await session.end()
  })

  test('that is accepted within the tolerance for clocks gets whole answers', async () => {
    const late = await social.token({ agents: ['a'], ttlSeconds: -5 })
    const session = await beginSession(social.at('old'), late) // a process has to be started first
    expect(session.initialized).toMatchObject({ status: 200, answer: { result: { protocolVersion: '2025-11-25' } } })
    const [first, second] = ['first', 'second'].map(label => session.call('talk', { label, party: 'late', size: 2 }))
    expect((await first)?.answer.result?.structuredContent).toMatchObject({ label: 'first' })
    expect((await second)?.answer.result?.structuredContent).toMatchObject({ label: 'second' })
    await session.end()
  })
})

describe('what is behind a session ends with it', () => {
  test('the process that a client has for itself', async () => {
    const session = await beginSession(social.at('old'), mine)
    const pid = Number((await session.call('report')).answer.result?.structuredContent?.pid)
    expect(isRunning(pid)).toBe(true)
    await session.end()
    await expect.poll(() => isRunning(pid)).toBe(false)
  })

  test('the session at the server', async () => {
    const session = await beginSession(social.at('web-old'), mine)
    await session.call('report')
    const { received } = social.web['web-old']
    const own = received.findLast(({ body }) => body.method === 'tools/call')?.headers['mcp-session-id']
    expect(own).toBeDefined()
    expect(own).not.toBe(session.id)
    await session.end()
    await expect
      .poll(() => received.some(({ method, headers }) => method === 'DELETE' && headers['mcp-session-id'] === own))
      .toBe(true)
  })

  test('what it subscribed to, even while it still does', async () => {
    const session = await beginSession(social.at('new'), mine)
    const subscribing = session.request('resources/subscribe', { uri: 'note://parting' })
    await session.end()
    await subscribing
    await expect.poll(async () => (await social.report('new', mine)).subscribed).not.toContain('note://parting')
  })

  test('nothing begins when the server cannot be had', async () => {
    const session = await beginSession(social.at('broken'), mine)
    expect(session.initialized.answer.error).toBeDefined()
    if (session.id !== '') expect((await session.request('ping')).status).toBe(404)
  })
})

function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('a stream that broke off', () => {
  test('is taken up again after the last event, and no other stream is', async () => {
    const session = await beginSession(social.at('old'), mine)
    const stream = await session.listen()
    await session.call('grow', { name: 'first' })
    await expect.poll(() => stream.messages()).toHaveLength(1)
    const last = stream.eventIds().at(-1)
    stream.close()
    await expect.poll(() => reopened(session)).toBe(200)

    await session.call('talk', { label: 'on its own stream' })
    await session.call('grow', { name: 'second' })
    // Nobody listens, and so what is said is kept.
    const resumed = await listenAfter(session, String(last))
    await expect.poll(() => resumed.messages().length).toBeGreaterThan(0)
    expect(resumed.messages().map(({ method }) => method)).toEqual(['notifications/tools/list_changed'])
    expect(Number(resumed.eventIds()[0])).toBeGreaterThan(Number(last))
    await session.end()
  })

  test('gives the answer to a call whose caller hung up', async () => {
    const session = await beginSession(social.at('old'), mine)
    const call = (label: string) =>
      session.open('tools/call', { name: 'talk', arguments: { label, party: 'p', size: 2 } }, label)
    const broken = await call('first')
    await expect.poll(() => broken.eventIds()).toHaveLength(1)
    const [priming] = broken.eventIds()
    broken.close()
    const other = await call('second')
    await other.closed
    const resumed = await listenAfter(session, String(priming))
    await expect.poll(() => resumed.messages().some(({ id }) => id === 'first')).toBe(true)
    expect(resumed.messages().every(({ id, params }) => (id ?? params?.data) === 'first')).toBe(true)
    await session.end()
  })

  test.each(['0', '999999', 'nonsense', '1; DROP', '-1', '1e0', '__proto__'])(
    'is not taken up again after %j, which it never had',
    async id => {
      const session = await beginSession(social.at('old'), mine)
      const { status, messages } = await exchange(social.at('old'), {
        method: 'GET',
        headers: { ...session.headers(), 'last-event-id': id },
      })
      expect([status, messages()[0]?.error?.code]).toEqual([400, expect.any(Number)])
      await session.end()
    },
  )

  test('never gives the events of another session', async () => {
    const [one, other] = [await beginSession(social.at('old'), mine), await beginSession(social.at('old'), mine)]
    const broken = await one.open('tools/call', { name: 'talk', arguments: { label: 'secret' } }, 'one')
    await broken.closed
    for (const id of broken.eventIds()) {
      const stream = await openStream(social.at('old'), {
        method: 'GET',
        headers: { ...other.headers(), 'last-event-id': id },
      })
      await other.request('ping')
      expect(stream.text()).not.toContain('secret')
      stream.close()
    }
    await one.end()
    await other.end()
  })
})

/** As soon as the gateway has noticed that nobody listens any more. */
async function listenAfter(session: Awaited<ReturnType<typeof beginSession>>, id: string): Promise<Stream> {
  let stream: Stream | undefined
  await expect
    .poll(async () => {
      stream = await session.listen({ 'last-event-id': id })
      if (stream.status !== 200) stream.close()
      return stream.status
    })
    .toBe(200)
  return stream as Stream
}

describe('SessionEvents', () => {
  const message = (n: number, text = '') => ({ jsonrpc: '2.0', method: 'm', params: { n, text } }) as const

  async function replay(events: SessionEvents, after: string) {
    const sent: unknown[] = []
    const stream = await events.replayEventsAfter(after, {
      send: async (id, event) => void sent.push([id, 'params' in event && event.params]),
    })
    return { stream, sent }
  }

  test('keeps streams apart', async () => {
    const events = new SessionEvents()
    const ids = []
    for (const n of [1, 2, 3, 4, 5]) ids.push(await events.storeEvent(n % 2 ? 'odd' : 'even', message(n)))
    expect(new Set(ids).size).toBe(5)
    expect(await replay(events, String(ids[0]))).toEqual({
      stream: 'odd',
      sent: [
        [ids[2], message(3).params],
        [ids[4], message(5).params],
      ],
    })
    expect((await replay(events, String(ids[4]))).sent).toEqual([])
  })

  test('forgets what is old, by number and by size', async () => {
    const events = new SessionEvents()
    const first = await events.storeEvent('s', message(0))
    for (let n = 1; n <= 1_000; n++) await events.storeEvent('s', message(n))
    await expect(replay(events, first)).rejects.toThrow('no such event')
    const large = await events.storeEvent('s', message(1, 'x'.repeat(900_000)))
    await events.storeEvent('s', message(2, 'x'.repeat(900_000)))
    expect(await events.getStreamIdForEventId(large)).toBeUndefined()
  })
})

describe('limits', () => {
  const front: HttpFront = {
    refusal: () => undefined,
    onSwap: () => () => {},
    createServer: (entry, context) => factory.create(entry, context),
    createDeclaringServer: async (entry, context) => factory.create(entry, context),
    callPlainly: async () => ({ result: {} }),
    lackingScopes: () => undefined,
    headerProblem: async () => undefined,
    watch: async () => () => {},
  }
  let calls: (() => void)[] = []
  const mcp = {
    has: () => true,
    describe: async () => ({ capabilities: { tools: {} } }),
    request: async (_entry: unknown, method: string) => {
      if (method === 'tools/call') await new Promise<void>(resolve => calls.push(resolve))
      return { tools: [] }
    },
    watch: async () => () => {},
    notify: () => {},
    release: () => {},
  }
  const factory = new ServerFactory(
    mcp as unknown as ConstructorParameters<typeof ServerFactory>[0],
    ({ authInfo }) => {
      return authInfo?.extra?.principal as VerifiedToken['principal']
    },
  )
  const logger = { debug() {} } as unknown as SessionsOptions['logger']

  function open(options: Pick<SessionsOptions, 'limits'> = {}) {
    calls = []
    const clock = { now: Date.now() }
    const sessions = new Sessions({ front, logger, now: () => clock.now, ...options })
    onTestFinished(() => sessions.close())
    return { clock, sessions }
  }
  const tokenOf = (id: string): VerifiedToken => ({
    principal: { id, key: id, agents: [id] },
    clientId: '',
    scopes: [],
    expiresAt: Date.now() / 1000 + 3600,
    acceptedUntil: Date.now() / 1000 + 3660,
  })
  const asked = (method: string, body: unknown, headers = {}, who = 'a') => ({
    request: new Request('http://127.0.0.1/mcp', {
      method,
      headers: { ...commonHeaders(''), ...headers },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    }),
    entry: {},
    token: tokenOf(who),
    recheck: async () => tokenOf(who),
    ...(body !== undefined && { parsedBody: body }),
  })
  async function begin(sessions: Sessions, who = 'a'): Promise<string> {
    const response = await sessions.begin(asked('POST', initialize(), {}, who))
    await response.text()
    return response.headers.get('mcp-session-id') ?? `none: ${response.status}`
  }
  const send = (sessions: Sessions, id: string, method: string, who = 'a') =>
    sessions.answer(
      id,
      asked('POST', { jsonrpc: '2.0', id: 1, method, params: { name: 'x' } }, { 'mcp-session-id': id }, who),
    )
  const ping = async (sessions: Sessions, id: string, who = 'a') => {
    const response = await send(sessions, id, 'ping', who)
    await response.text()
    return response.status
  }
  const listen = (sessions: Sessions, id: string) =>
    sessions.answer(id, asked('GET', undefined, { 'mcp-session-id': id }))

  test('an idle session ends; one in use does not', async () => {
    const { clock, sessions } = open({ limits: { idleMs: 1_000 } })
    const [idle, used] = [await begin(sessions), await begin(sessions)]
    clock.now += 900
    expect(await ping(sessions, used)).toBe(200)
    clock.now += 900
    expect([await ping(sessions, idle), await ping(sessions, used)]).toEqual([404, 200])
    clock.now += 1_001
    sessions.sweep()
    expect(sessions.size).toBe(0)
  })

  test('who listens or waits for an answer is not idle', async () => {
    const { clock, sessions } = open({ limits: { idleMs: 1_000 } })
    const [listening, waiting] = [await begin(sessions), await begin(sessions)]
    const stream = await listen(sessions, listening)
    const answer = await send(sessions, waiting, 'tools/call')
    clock.now += 10_000
    sessions.sweep()
    expect(sessions.size).toBe(2)
    await vi.waitFor(() => expect(calls).toHaveLength(1))
    for (const finish of calls) finish()
    expect(await answer.text()).toContain('"result"')
    await stream.body?.cancel()
    clock.now += 1_001
    sessions.sweep()
    expect(sessions.size).toBe(0)
  })

  test('no session is older than the limit, unless it is at work', async () => {
    const { clock, sessions } = open({ limits: { idleMs: 1_000, ageMs: 5_000 } })
    const id = await begin(sessions)
    const stream = await listen(sessions, id)
    const answer = await send(sessions, id, 'tools/call')
    clock.now += 5_001
    sessions.sweep()
    expect(sessions.size).toBe(1)
    await vi.waitFor(() => expect(calls).toHaveLength(1))
    for (const finish of calls) finish()
    await answer.text()
    sessions.sweep()
    expect(sessions.size).toBe(0)
    expect(await stream.text()).not.toContain('error')
  })

  test('one too many takes the place of the one idle longest', async () => {
    const { clock, sessions } = open({ limits: { perPrincipal: 3 } })
    const other = await begin(sessions, 'b')
    const ids: string[] = []
    for (let n = 0; n < 3; n++) {
      ids.push(await begin(sessions))
      clock.now += 10
    }
    await ping(sessions, String(ids[0]))
    clock.now += 10
    ids.push(await begin(sessions))
    expect(sessions.size).toBe(4)
    expect(await Promise.all(ids.map(id => ping(sessions, id)))).toEqual([200, 404, 200, 200])
    expect(await ping(sessions, other, 'b')).toBe(200)
  })

  test('one at work is never put out: the new one is refused', async () => {
    const { sessions } = open({ limits: { perPrincipal: 2 } })
    const busy = [await begin(sessions), await begin(sessions)]
    const answers = await Promise.all(busy.map(id => send(sessions, id, 'tools/call')))
    await vi.waitFor(() => expect(calls).toHaveLength(2))
    const refused = await sessions.begin(asked('POST', initialize()))
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, expect.any(String)])
    expect(await refused.json()).toMatchObject({ jsonrpc: '2.0', error: { code: -32603 } })
    expect(await begin(sessions, 'b')).not.toContain('none')
    for (const finish of calls) finish()
    for (const answer of answers) expect(await answer.text()).toContain('"result"')
    expect(await begin(sessions)).not.toContain('none')
    expect(sessions.size).toBe(3)
  })

  test('one that only listens goes before one at work, and after one that does nothing', async () => {
    const { clock, sessions } = open({ limits: { perPrincipal: 2 } })
    const listening = await begin(sessions)
    const stream = await listen(sessions, listening)
    clock.now += 10
    const idle = await begin(sessions)
    clock.now += 10
    await begin(sessions)
    expect([await ping(sessions, listening), await ping(sessions, idle)]).toEqual([200, 404])
    await stream.body?.cancel()
  })

  test('many at once are no way around the limit', async () => {
    const { sessions } = open({ limits: { perPrincipal: 5 } })
    await Promise.all(Array.from({ length: 50 }, () => begin(sessions)))
    expect(sessions.size).toBeLessThanOrEqual(5)
  })

  test('10,000 clients that never say goodbye leave no more than the limit behind', async () => {
    const { sessions } = open()
    const heapAfter = async (count: number) => {
      for (let n = 0; n < count; n++) await begin(sessions, `p${n % 3}`)
      collectGarbage()
      return process.memoryUsage().heapUsed
    }
    const early = await heapAfter(2_000)
    const late = await heapAfter(8_000)
    expect(sessions.size).toBe(300)
    // 8,000 sessions that stayed would be 8,000 times some 10 kB.
    expect(late - early).toBeLessThan(8 * 1024 * 1024)
  })

  test('all principals together have a limit too', async () => {
    const { sessions } = open({ limits: { all: 10 } })
    for (let n = 0; n < 30; n++) await begin(sessions, `p${n}`)
    expect(sessions.size).toBe(10)
  })

  test('a quiet stream has a comment every 15 seconds', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    onTestFinished(() => void vi.useRealTimers())
    const { sessions } = open()
    const id = await begin(sessions)
    const streams = [await listen(sessions, id), await send(sessions, id, 'tools/call')]
    for (const { body } of streams) {
      const reader = body?.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      while (!text.includes(': keepalive')) {
        vi.advanceTimersByTime(15_000)
        text += (await reader?.read())?.value ?? ''
      }
      expect(text.match(/^:/gm)).not.toBeNull()
      await reader?.cancel()
    }
    for (const finish of calls) finish()
  })
})
