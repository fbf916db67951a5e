import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import {
  askModern,
  beginSession,
  type ClientSession,
  exchange,
  listenModern,
  type Message,
  modern,
  type openStream,
  type Stream,
} from '../fixtures/http-clients.js'
import { openSocialGateway, type SocialGateway } from '../fixtures/social.js'

let social: SocialGateway
let alice: string
let bob: string
beforeAll(async () => {
  social = await openSocialGateway()
  alice = await social.token({ agents: ['a'] })
  bob = await social.token({ agents: ['b'] })
})
afterAll(() => social[Symbol.asyncDispose]())

const ELICITATION = { elicitation: { form: {} } }
const PROGRESS = 'notifications/progress'
const LOG = 'notifications/message'

interface Place {
  readonly url: () => string
  /** A call of a tool of the server there. */
  readonly call: (tool: string, args: Record<string, unknown>) => { name: string; arguments: Record<string, unknown> }
}

const small = (server: string): Place => ({
  url: () => social.mcp,
  call: (tool, args) => ({ name: 'execute_tool', arguments: { server, tool, args } }),
})
const direct = (server: string): Place => ({
  url: () => `${social.mcp}?expose=direct`,
  call: (tool, args) => ({ name: `${server}__${tool}`, arguments: args }),
})
const own = (server: string): Place => ({
  url: () => social.at(server),
  call: (name, args) => ({ name, arguments: args }),
})

/** Where clients without capabilities share one process. */
const SHARED: readonly [string, Place][] = [
  ['/mcp, 2025 behind', small('old')],
  ['/mcp, 2026 behind', small('new')],
  ['/mcp?expose=direct, 2025 behind', direct('old')],
  ['/mcp?expose=direct, 2026 behind', direct('new')],
  ['/servers/new/mcp', own('new')],
]
const EVERYWHERE: readonly [string, Place][] = [
  ...SHARED,
  ['/servers/old/mcp', own('old')],
  ['/servers/web-old/mcp', own('web-old')],
  ['/servers/web-new/mcp', own('web-new')],
]

let parties = 0
const wordsOf = ({ before, answer }: { readonly before: readonly Message[]; readonly answer: Message }) => ({
  progress: before
    .filter(({ method }) => method === PROGRESS)
    .map(({ params }) => [params?.progressToken, params?.message]),
  logs: before.filter(({ method }) => method === LOG).map(({ params }) => params?.data),
  label: answer.result?.structuredContent?.label ?? answer.error,
})
const three = <T>(value: T): T[] => [value, value, value]

describe.each(SHARED)('one process for all, at %s', (_, { url, call }) => {
  test('progress and logs of calls under way together go to their own clients, with the same tokens and ids', async () => {
    const sessions = await Promise.all([alice, bob, alice, bob].map(token => beginSession(url(), token)))
    for (const session of sessions) await session.request('logging/setLevel', { level: 'debug' })
    const party = `party ${++parties}`
    const labels = ['alice 1', 'bob 1', 'alice 2', 'bob 2']
    const outcomes = await Promise.all(
      sessions.map((session, index) =>
        session.request(
          'tools/call',
          { ...call('talk', { label: labels[index], party, size: 4 }), _meta: { progressToken: 1 } },
          42,
        ),
      ),
    )
    const pids = outcomes.map(({ answer }) => answer.result?.structuredContent?.pid)
    expect(new Set(pids).size).toBe(1)
    for (const [index, outcome] of outcomes.entries()) {
      const { progress, logs, label } = wordsOf(outcome)
      expect([outcome.answer.id, label, progress]).toEqual([42, labels[index], three([1, labels[index]])])
      // Over a shared connection nobody can tell whose a log message is, and then it is nobody's.
      expect(logs.every(text => text === labels[index])).toBe(true)
    }
    for (const session of sessions) await session.end()
  })

  test('the same for clients of 2026', async () => {
    const party = `party ${++parties}`
    const speak = (token: string, label: string) =>
      askModern(
        url(),
        token,
        'tools/call',
        { ...call('talk', { label, party, size: 3 }), _meta: { progressToken: 1 } },
        { id: 1 },
      )
    const labels = ['alice', 'bob', 'alice again']
    const outcomes = await Promise.all(labels.map(label => speak(label === 'bob' ? bob : alice, label)))
    for (const [index, outcome] of outcomes.entries()) {
      const label = labels[index]
      expect(wordsOf(outcome)).toEqual({ label, logs: [], progress: three([1, label]) })
    }
  })

  test('cancelling a call cancels that call', async () => {
    const [one, other] = [await beginSession(url(), alice), await beginSession(url(), bob)]
    const names = [`alice ${++parties}`, `bob ${parties}`]
    const streams = await Promise.all(
      [one, other].map((session, index) =>
        session.open('tools/call', call('silent', { label: names[index] }), 'the same'),
      ),
    )
    const report = async () => contentOf(await other.request('tools/call', call('report', {})))
    await expect.poll(async () => (await report()).silent).toEqual(expect.arrayContaining(names))
    expect(await other.notify('notifications/cancelled', { requestId: 'the same' })).toBe(202)
    await expect.poll(async () => (await report()).cancelled).toContain(names[1])
    expect((await report()).cancelled).not.toContain(names[0])
    // Hanging up is no cancellation with 2025.
    streams[0]?.close()
    await one.request('ping')
    expect((await report()).cancelled).not.toContain(names[0])
    expect(await one.notify('notifications/cancelled', { requestId: 'the same' })).toBe(202)
    await expect.poll(async () => (await report()).cancelled).toContain(names[0])
    for (const session of [one, other]) await session.end()
  })

  test('cancelling what is not there has no effect', async () => {
    const session = await beginSession(url(), alice)
    const label = `still there ${++parties}`
    const stream = await session.open('tools/call', call('silent', { label }), 'mine')
    const report = async () => contentOf(await session.request('tools/call', call('report', {})))
    await expect.poll(async () => (await report()).silent).toContain(label)
    for (const requestId of [7, 1_000_000_001, 'ask-1', null, {}, undefined])
      expect(await session.notify('notifications/cancelled', { requestId })).toBeOneOf([202, 400])
    for (const progressToken of [1, 1_000_000_001, 'nobody'])
      expect(await session.notify(PROGRESS, { progressToken, progress: 1 })).toBe(202)
    expect((await report()).cancelled).not.toContain(label)
    expect(stream.isClosed).toBe(false)
    await session.notify('notifications/cancelled', { requestId: 'mine' })
    await session.end()
  })
})

const contentOf = ({ answer }: { readonly answer: Message }) =>
  (answer.result?.structuredContent ?? { error: answer.error }) as Record<string, unknown>

describe.each(EVERYWHERE)('questions at %s', (_, { url, call }) => {
  test('reach the client whose call they are about', async () => {
    const say = (who: string) => ({
      answer: ({ params }: Message) => ({ action: 'accept', content: { who, to: params?.message } }),
    })
    const [one, other] = [
      await beginSession(url(), alice, { capabilities: ELICITATION, ...say('alice') }),
      await beginSession(url(), bob, { capabilities: ELICITATION, ...say('bob') }),
    ]
    const asked = await Promise.all(
      [one, other, one, other].map((session, index) =>
        session.request('tools/call', call('ask', { label: `question ${index}` }), 10 + index),
      ),
    )
    for (const [index, outcome] of asked.entries()) {
      const content = { who: index % 2 === 0 ? 'alice' : 'bob', to: `question ${index}` }
      expect(contentOf(outcome)).toMatchObject({ label: `question ${index}`, answer: { action: 'accept', content } })
    }
    expect(one.asked.map(({ params }) => params?.message).sort()).toEqual(['question 0', 'question 2'])
    expect(other.asked.map(({ params }) => params?.message).sort()).toEqual(['question 1', 'question 3'])
    for (const session of [one, other]) await session.end()
  })

  test('to a model reach the one of the client whose call they are about', async () => {
    const model = (who: string) => ({
      capabilities: { sampling: {} },
      answer: ({ params }: Message) => ({
        role: 'assistant',
        model: who,
        content: { type: 'text', text: JSON.stringify(params?.messages) },
      }),
    })
    const sessions = [await beginSession(url(), alice, model('alice')), await beginSession(url(), bob, model('bob'))]
    const outcomes = await Promise.all(
      sessions.map((session, index) =>
        session.request('tools/call', call('ask', { label: `prompt ${index}`, kind: 'sampling' }), 5),
      ),
    )
    for (const [index, outcome] of outcomes.entries()) {
      expect(contentOf(outcome)).toMatchObject({
        label: `prompt ${index}`,
        answer: { model: ['alice', 'bob'][index], content: { text: expect.stringContaining(`prompt ${index}`) } },
      })
      expect(sessions[index]?.asked.map(({ method }) => method)).toEqual(['sampling/createMessage'])
      await sessions[index]?.end()
    }
  })

  test('that a client has not declared never reach it', async () => {
    const session = await beginSession(url(), alice, { capabilities: { sampling: {} }, answer: () => ({}) })
    const label = `not declared ${++parties}`
    const stream = await session.open('tools/call', call('ask', { label }), 'the question')
    const isRefused = async () => {
      const { refused } = contentOf(await session.request('tools/call', call('report', {})))
      return stream.isClosed || (refused as string[]).includes(label)
    }
    await expect.poll(isRefused).toBe(true)
    expect(session.asked).toEqual([])
    if (!stream.isClosed) await session.notify('notifications/cancelled', { requestId: 'the question' })
    await session.end()
  })

  test('are answered by nobody else', async () => {
    let questioned: (request: Message) => void = () => {}
    const question = new Promise<Message>(resolve => {
      questioned = resolve
    })
    let answer: (result: unknown) => void = () => {}
    const victim = await beginSession(url(), alice, {
      capabilities: ELICITATION,
      answer: request => {
        questioned(request)
        return new Promise(resolve => {
          answer = resolve
        })
      },
    })
    const attacker = await beginSession(url(), bob, { capabilities: ELICITATION })
    const pending = victim.request('tools/call', call('ask', { label: 'who are you?' }), 1)
    const { id } = await question
    const forged = { jsonrpc: '2.0', result: { action: 'accept', content: { who: 'attacker' } } }
    for (const guess of [id, String(id), 0, 1, 2, 3, 'ask-1', 'ask-2', 'ask-3', 1_000_000_001])
      expect((await attacker.post({ ...forged, id: guess })).status).toBe(202)
    expect((await attacker.as({ id: victim.id }).post({ ...forged, id })).status).toBe(404)
    answer({ action: 'accept', content: { who: 'alice' } })
    expect(contentOf(await pending)).toMatchObject({ answer: { content: { who: 'alice' } } })
    for (const session of [victim, attacker]) await session.end()
  })

  test('to clients of 2026 come with a state that is theirs alone, and good once', async () => {
    const ask = (token: string, params: Record<string, unknown>, capabilities = ELICITATION) =>
      askModern(url(), token, 'tools/call', params, { capabilities })
    const label = `state ${++parties}`
    const first = await ask(alice, call('ask_twice', { label }))
    const state = first.answer.result?.requestState as string
    expect(first.answer.result).toMatchObject({ resultType: 'input_required', requestState: expect.any(String) })
    expect(Buffer.from(state, 'base64url').toString('latin1')).not.toContain('first')
    const respond = (result: Message['result'], who: string) => ({
      inputResponses: Object.fromEntries(
        Object.keys((result?.inputRequests ?? {}) as object).map(key => [key, { action: 'accept', content: { who } }]),
      ),
    })
    const answers = respond(first.answer.result, 'attacker')
    const forged: [string, string, Record<string, unknown>][] = [
      ['another principal', bob, { ...call('ask_twice', { label }), ...answers, requestState: state }],
      ['other arguments', alice, { ...call('ask_twice', { label: 'other' }), ...answers, requestState: state }],
      ['another tool', alice, { ...call('ask', { label }), ...answers, requestState: state }],
      [
        'another agent',
        await social.token({ agents: ['b'], sub: 'agent:a' }),
        { ...call('ask_twice', { label }), ...answers, requestState: state },
      ],
      ...[
        `${state.slice(0, -2)}xx`,
        `${state}x`,
        `${state}\n`,
        state.slice(0, 40),
        '',
        'null',
        'W10',
        'x'.repeat(2 ** 20 + 1),
        `${label}.q`,
      ].map((text, index): [string, string, Record<string, unknown>] => [
        `tampered ${index}`,
        alice,
        { ...call('ask_twice', { label }), ...answers, requestState: text },
      ]),
    ]
    for (const [name, token, params] of forged) {
      const { answer } = await ask(token, params)
      expect([name, answer.error]).toEqual([
        name,
        { code: -32602, message: 'Invalid or expired requestState', data: { reason: 'invalid_request_state' } },
      ])
    }
    const second = await ask(alice, {
      ...call('ask_twice', { label }),
      ...respond(first.answer.result, 'one'),
      requestState: state,
    })
    expect(second.answer.result).toMatchObject({ resultType: 'input_required' })
    expect(second.answer.result?.requestState).not.toBe(state)
  })
})

describe.each(EVERYWHERE.filter(([name]) => !/new|2026/.test(name)))('a parked call at %s', (_, { url, call }) => {
  const ask = (params: Record<string, unknown>) =>
    askModern(url(), alice, 'tools/call', params, { capabilities: ELICITATION })
  const accept = ({ answer }: { answer: Message }, who: string) => ({
    inputResponses: Object.fromEntries(
      Object.keys((answer.result?.inputRequests ?? {}) as object).map(key => [
        key,
        { action: 'accept', content: { who } },
      ]),
    ),
    requestState: answer.result?.requestState,
  })

  test('goes on once with each state', async () => {
    const params = call('ask_twice', { label: `twice ${++parties}` })
    const first = await ask(params)
    const retry = { ...params, ...accept(first, 'one') }
    const second = await ask(retry)
    expect(second.answer.result).toMatchObject({ resultType: 'input_required' })
    const replayed = await ask(retry)
    expect(replayed.answer.error).toMatchObject({ code: -32602, message: 'Invalid or expired requestState' })
    const last = { ...params, ...accept(second, 'two') }
    const done = await ask(last)
    expect(contentOf(done)).toMatchObject({ first: { content: { who: 'one' } }, second: { content: { who: 'two' } } })
    expect((await ask(last)).answer.error).toMatchObject({ code: -32602, message: 'Invalid or expired requestState' })
  })

  test('is gone on with by one of two that come at once', async () => {
    const params = call('ask', { label: `race ${++parties}` })
    const first = await ask(params)
    const retry = { ...params, ...accept(first, 'one') }
    const outcomes = await Promise.all([ask(retry), ask(retry)])
    expect(outcomes.map(({ answer }) => answer.error?.code).sort()).toEqual([-32602, undefined])
  })
})

describe('resources', () => {
  test.each(['old', 'new'])('clients that share the server "%s" hear of those they asked for', async server => {
    const url = `${social.mcp}?expose=direct`
    const sessions = await Promise.all([alice, bob].map(token => beginSession(url, token)))
    const streams = await Promise.all(sessions.map(session => session.listen()))
    const name = `note://shared-${++parties}`
    // One name begins with the other; that makes it no part of it.
    const uris = [`gateway://${server}/${name}`, `gateway://${server}/${name}0`]
    for (const [index, session] of sessions.entries())
      expect((await session.request('resources/subscribe', { uri: uris[index] })).answer.result).toEqual({})
    const heard = (stream: Stream | undefined) => [
      ...new Set(
        stream
          ?.messages()
          .flatMap(({ method, params }) => (method === 'notifications/resources/updated' ? [params?.uri] : [])),
      ),
    ]
    const touch = (uri: string) => askModern(url, alice, 'tools/call', { name: `${server}__touch`, arguments: { uri } })
    await expect
      .poll(async () => {
        await touch(`${name}0`)
        await touch(name)
        return streams.map(stream => heard(stream).length > 0)
      })
      .toEqual([true, true])
    expect(streams.map(heard)).toEqual([[uris[0]], [uris[1]]])
    // The end of one is not the end of the other.
    await sessions[0]?.end()
    const before = streams[1]?.messages().length ?? 0
    await touch(`${name}0`)
    await expect.poll(() => streams[1]?.messages().length).toBeGreaterThan(before)
    await sessions[1]?.end()
  })
})

describe('notifications', () => {
  test('of a client do not reach servers that it may not use', async () => {
    const guest = await social.token({ agents: ['guest'] })
    const report = () => social.report('new', alice)
    await report() // the server runs
    const evil = (name: string) => ({ jsonrpc: '2.0', method: `notifications/evil/${name}` })
    const session = await beginSession(social.mcp, guest)
    await session.post(evil('session'))
    const { body: _, ...question } = modern(guest, 'notifications/evil/modern')
    const { params } = JSON.parse(String(modern(guest, 'x').body)) as Message
    await exchange(social.mcp, { ...question, body: JSON.stringify({ ...evil('modern'), params }) })
    await exchange(`${social.mcp}?expose=direct`, { ...question, body: JSON.stringify({ ...evil('direct'), params }) })
    await session.request('ping')
    expect((await report()).notified.filter(method => method.includes('evil'))).toEqual([])
    await session.end()
  })
})

describe.each(['old', 'new', 'web-old', 'web-new'])('cursors of %s', server => {
  const list = async (token: string, cursor?: string, method = 'resources/list') => {
    const { answer } = await askModern(social.at(server), token, method, cursor === undefined ? {} : { cursor })
    return answer
  }

  test('are for the one who got them, and for nothing else', async () => {
    const cursor = (await list(alice)).result?.nextCursor as string
    expect(Buffer.from(cursor, 'base64url').toString('latin1')).not.toContain('page-2')
    expect((await list(alice, cursor)).result?.resources).toMatchObject([{ uri: 'note://2' }])
    expect((await list(alice, cursor)).result?.resources).toMatchObject([{ uri: 'note://2' }])
    const elsewhere = server === 'new' ? 'old' : 'new'
    const other = await askModern(social.at(elsewhere), alice, 'resources/list', { cursor })
    const errors = [
      await list(bob, cursor),
      await list(await social.token({ agents: ['b'], sub: 'agent:a' }), cursor),
      await list(alice, cursor, 'prompts/list'),
      await list(alice, cursor, 'tools/list'),
      other.answer,
      await list(alice, 'page-2'),
      await list(alice, ''),
      await list(alice, `${cursor.slice(0, -2)}xx`),
      await list(alice, `${cursor}\n`),
      await list(alice, 'x'.repeat(100_000)),
    ].map(({ error }) => error)
    for (const error of errors) expect(error).toEqual({ code: -32602, message: 'Invalid cursor' })
  })

  test('go on in a session, and are refused in another one’s', async () => {
    const [one, other] = [await beginSession(social.at(server), alice), await beginSession(social.at(server), bob)]
    const cursor = (await one.request('resources/list')).answer.result?.nextCursor
    const ask = (session: ClientSession) => session.request('resources/list', { cursor })
    expect((await ask(one)).answer.result?.resources).toMatchObject([{ uri: 'note://2' }])
    expect((await ask(other)).answer.error).toMatchObject({ code: -32602 })
    for (const session of [one, other]) await session.end()
  })
})

describe('clients of 2026', () => {
  test('that hang up cancel their own call', async () => {
    const names = [`alice leaves ${++parties}`, `bob stays ${parties}`]
    const streams = await Promise.all(
      [alice, bob].map((token, index) =>
        openedLater(
          social.at('new'),
          modern(token, 'tools/call', { name: 'silent', arguments: { label: names[index] } }),
        ),
      ),
    )
    await expect.poll(async () => (await social.report('new', alice)).silent).toEqual(expect.arrayContaining(names))
    streams[0]?.abort()
    await expect.poll(async () => (await social.report('new', alice)).cancelled).toContain(names[0])
    expect((await social.report('new', alice)).cancelled).not.toContain(names[1])
    streams[1]?.abort()
    await expect.poll(async () => (await social.report('new', alice)).cancelled).toContain(names[1])
  })

  test('with streams under the same id hear of their own', async () => {
    const streams = await Promise.all(
      [alice, bob].map((token, index) =>
        listenModern(
          social.at('new'),
          token,
          index === 0 ? { toolsListChanged: true } : { promptsListChanged: true },
          1,
        ),
      ),
    )
    await askModern(social.at('new'), alice, 'tools/call', { name: 'notice_prompts', arguments: {} })
    await askModern(social.at('new'), alice, 'tools/call', { name: 'grow', arguments: { name: `own_${++parties}` } })
    await expect
      .poll(() => streams.map(stream => stream.messages().map(({ method }) => method?.split('/')[1])))
      .toEqual([
        ['subscriptions', 'tools'],
        ['subscriptions', 'prompts'],
      ])
    for (const stream of streams) stream.close()
  })
})

test('one principal cannot use up a server that others need too', async () => {
  const greedy = await social.token({ agents: ['a'], sub: 'greedy' })
  const sessions: ClientSession[] = []
  onTestFinished(async () => void (await Promise.all(sessions.map(session => session.end()))))
  for (let count = 0; count < 66; count++) sessions.push(await beginSession(social.at('old'), greedy))
  for (const { initialized } of sessions)
    if (initialized.answer.error) expect(initialized.answer.error.message).not.toContain('shutting down')
  const other = await beginSession(social.at('old'), bob)
  expect(other.initialized.answer.error).toBeUndefined()
  expect((await other.call('talk', { label: 'served' })).answer.result?.structuredContent).toMatchObject({
    label: 'served',
  })
  await other.end()
})

test('what a server still says of a call that its caller hung up on is for nobody else', async () => {
  const party = `party ${++parties}`
  const speak = (label: string) => ({ name: 'talk', arguments: { label, party, size: 2 } })
  let looks = 0
  const heard = async () => {
    const { methods, notified } = await social.report('new', alice)
    const calls = methods.filter(method => method === 'tools/call').length - ++looks // a look is a call too
    return { calls, cancelled: notified.filter(method => method === 'notifications/cancelled').length }
  }
  const { calls, cancelled } = await heard()
  const given = openedLater(social.at('new'), modern(bob, 'tools/call', speak('bob'), { logLevel: 'debug' }))
  await expect.poll(async () => (await heard()).calls).toBe(calls + 1)
  given.abort()
  await expect.poll(async () => (await heard()).cancelled).toBe(cancelled + 1)

  const { answer, before } = await askModern(social.at('new'), alice, 'tools/call', speak('alice'), {
    logLevel: 'debug',
  })
  expect(answer.result?.structuredContent).toMatchObject({ label: 'alice' })
  expect(before).toEqual([])
})

describe('calls that wait for an answer', () => {
  test('are limited for each principal: the oldest one goes', async () => {
    const many = await social.token({ agents: ['a'], sub: 'many' })
    const ask = (params: Record<string, unknown>, token: string) =>
      askModern(social.at('old'), token, 'tools/call', params, { capabilities: ELICITATION })
    const question = (label: string) => ({ name: 'ask', arguments: { label } })
    const retry = (label: string, { answer }: { readonly answer: Message }) => ({
      ...question(label),
      requestState: answer.result?.requestState,
      inputResponses: Object.fromEntries(
        Object.keys((answer.result?.inputRequests ?? {}) as object).map(key => [
          key,
          { action: 'accept', content: {} },
        ]),
      ),
    })
    const others = await ask(question('other'), bob)
    const parked = []
    for (let count = 0; count < 33; count++) parked.push(await ask(question(`parked ${count}`), many))
    const [first, second] = parked
    expect((await ask(retry('parked 0', first as never), many)).answer.error).toMatchObject({ code: -32602 })
    expect((await ask(retry('parked 1', second as never), many)).answer.result?.structuredContent).toBeDefined()
    expect((await ask(retry('other', others), bob)).answer.result?.structuredContent).toMatchObject({ label: 'other' })
  })
})

/** A request whose headers do not come before its answer. */
function openedLater(url: string, question: Parameters<typeof openStream>[1]): AbortController {
  const controller = new AbortController()
  const { method = 'POST', headers, body } = question
  fetch(url, {
    method,
    headers: headers as Record<string, string>,
    body: String(body),
    signal: controller.signal,
  }).catch(() => {})
  return controller
}
