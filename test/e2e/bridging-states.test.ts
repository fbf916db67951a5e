import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge, type RawRequest } from '../fixtures/bridge.js'
import type { Json } from '../fixtures/clients.js'
import { STATE_PREFIX } from '../fixtures/servers/talker.js'
import type { Heard } from '../fixtures/talker.js'

let bridge: Bridge

beforeAll(async () => {
  bridge = await openBridge()
})
afterAll(() => bridge[Symbol.asyncDispose]())

const ELICITS = { elicitation: { form: {}, url: {} } }
const form = (message: string) => ({
  method: 'elicitation/create',
  params: { message, requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
})
const accepted = { action: 'accept', content: { which: 'this' } }
const INVALID_STATE = { code: -32602, message: 'Invalid or expired requestState' }

interface InputRequired {
  readonly inputRequests: Readonly<Record<string, Json>>
  readonly requestState: string
}

const ask = (rounds: unknown, extra: Json = {}): RawRequest => ({
  method: 'tools/call',
  params: { name: 'ask', arguments: { rounds }, ...extra },
  capabilities: ELICITS,
})

/** The answers to everything that was asked, and the state that came with it. */
const answers = ({ inputRequests, requestState }: InputRequired) => ({
  inputResponses: Object.fromEntries(Object.keys(inputRequests).map(key => [key, accepted])),
  requestState,
})

describe.each(BACKENDS)('a client of 2026 in front of $name', ({ name: server, era }) => {
  const heardCalls = (since: number): Heard[] =>
    bridge.talkers[server]
      .heard()
      .slice(since)
      .filter(({ method }) => method === 'tools/call')
  const asked = async (request: RawRequest): Promise<InputRequired> => {
    const { status, json } = await bridge.post({ server }, request)
    expect([status, json().result]).toMatchObject([200, { resultType: 'input_required' }])
    return json().result as unknown as InputRequired
  }
  const answered = async (request: RawRequest) => (await bridge.post({ server }, request)).json()

  test('the state goes out sealed, another one each round, and comes back to the server byte for byte', async () => {
    const since = bridge.talkers[server].heard().length
    const rounds = [[form('1')], [form('2')]]
    const first = await asked(ask(rounds))
    const second = await asked(ask(rounds, answers(first)))
    const last = await answered(ask(rounds, answers(second)))
    expect(last.result).toMatchObject({
      resultType: 'complete',
      structuredContent: { answers: [[accepted], [accepted]] },
    })
    expect(first.requestState).not.toBe(second.requestState)
    for (const { requestState } of [first, second]) {
      for (const text of [
        requestState,
        Buffer.from(requestState, 'base64url').toString(),
        atob(requestState.replaceAll('-', '+').replaceAll('_', '/')),
      ]) {
        expect(text).not.toContain('plain-state')
        expect(text).not.toContain('round')
        expect(text).not.toContain('parked')
      }
    }
    const states = heardCalls(since).map(({ params }) => params?.requestState)
    // The talker answers to a state that is not its own, byte for byte, with an error.
    if (era === 'modern')
      expect(states).toEqual([undefined, expect.stringContaining(STATE_PREFIX), expect.stringContaining(STATE_PREFIX)])
    else expect(states).toEqual([undefined])
  })

  test.each<[string, (state: string) => string]>([
    ['cut', state => state.slice(0, -8)],
    ['changed', state => `${state.slice(0, 40)}${state[40] === 'A' ? 'B' : 'A'}${state.slice(41)}`],
    ['empty', () => ''],
    ['made up', () => Buffer.from(JSON.stringify({ round: 1 })).toString('base64url')],
    ['the plain one of the server', () => `${STATE_PREFIX}{"round":1,"answers":[]}`],
  ])('a state that was tampered with (%s) is refused, and the server not called', async (_how, tamper) => {
    const rounds = [[form('1')]]
    const first = await asked(ask(rounds))
    const since = bridge.talkers[server].heard().length
    const { inputResponses, requestState } = answers(first)
    const { status, json } = await bridge.post(
      { server },
      ask(rounds, { inputResponses, requestState: tamper(requestState) }),
    )
    expect([status, json().error]).toMatchObject([200, INVALID_STATE])
    expect(heardCalls(since)).toEqual([])
  })

  test('a state is good for the same request of the same principal only', async () => {
    const rounds = [[form('1')]]
    const first = await asked(ask(rounds))
    const since = bridge.talkers[server].heard().length
    const back = answers(first)
    const elsewhere = BACKENDS.find(({ name }) => name !== server)?.name ?? server
    const strangers: [Parameters<Bridge['post']>[0], RawRequest][] = [
      [{ server }, { ...ask(rounds, back), agent: 'other' }],
      [{ server }, ask([[form('2')]], back)],
      [{ server }, { ...ask(rounds, back), params: { name: 'later', arguments: { rounds }, ...back } }],
      [{ server }, { method: 'prompts/get', params: { name: 'asking', ...back }, capabilities: ELICITS }],
      [{ server: elsewhere }, ask(rounds, back)],
    ]
    const elsewhereSince = bridge.talkers[elsewhere].heard().length
    for (const [door, request] of strangers)
      expect((await bridge.post(door, request)).json().error).toMatchObject(INVALID_STATE)
    expect(heardCalls(since)).toEqual([])
    expect(
      bridge.talkers[elsewhere]
        .heard()
        .slice(elsewhereSince)
        .filter(({ method }) => method === 'tools/call'),
    ).toEqual([])
    // It is still good where it belongs, in whatever order the arguments are written.
    const { method, params } = form('1')
    const { requestedSchema, message } = params
    const reordered = [[{ params: { requestedSchema, message }, method }]]
    expect((await answered(ask(reordered, back))).result).toMatchObject({
      structuredContent: { answers: [[accepted]] },
    })
  })

  test.each([
    ['sampling', { method: 'sampling/createMessage', params: { messages: [], maxTokens: 1 } }, { sampling: {} }],
    ['roots', { method: 'roots/list', params: {} }, { roots: {} }],
    [
      'a page',
      { method: 'elicitation/create', params: { mode: 'url', message: 'Go', url: 'https://example.com/' } },
      { elicitation: { url: {} } },
    ],
    [
      'sampling with tools',
      { method: 'sampling/createMessage', params: { messages: [], maxTokens: 1, tools: [] } },
      { sampling: { tools: {} } },
    ],
    [
      'sampling with the context of servers',
      { method: 'sampling/createMessage', params: { messages: [], maxTokens: 1, includeContext: 'allServers' } },
      { sampling: { context: {} } },
    ],
  ])('%s that the client has not declared', async (_what, question, requiredCapabilities) => {
    const needed = Object.keys(Object.values(requiredCapabilities)[0] ?? {})
    const declared =
      needed.length === 0 ? {} : 'sampling' in requiredCapabilities ? { sampling: {} } : { elicitation: { form: {} } }
    const { status, json } = await bridge.post({ server }, { ...ask([[question]]), capabilities: declared })
    if (era === 'modern') {
      expect([status, json().error]).toMatchObject([400, { code: -32021, data: { requiredCapabilities } }])
    } else {
      expect(json().result).toMatchObject({ structuredContent: { answers: [[{ error: { code: -32601 } }]] } })
    }
  })

  test('missing answers are asked for again, and those nobody asked for are ignored', async () => {
    const rounds = [[form('1'), form('2')]]
    const first = await asked(ask(rounds))
    expect(Object.keys(first.inputRequests)).toHaveLength(2)
    const [one = '', two = ''] = Object.keys(first.inputRequests)
    const extra = { nobody: accepted }
    const half = await bridge.post(
      { server },
      ask(rounds, { inputResponses: { [one]: accepted, ...extra }, requestState: first.requestState }),
    )
    if (era === 'modern') return // what to do about it is for the server
    const second = half.json().result as unknown as InputRequired
    expect(Object.keys(second.inputRequests)).toEqual([two])
    expect((await answered(ask(rounds, answers(second)))).result).toMatchObject({
      structuredContent: { answers: [[accepted, accepted]] },
    })
  })

  test('a question that is asked again is asked under the keys of the server', async () => {
    const first = await asked(ask([[form('1'), form('2')]]))
    const requests = Object.values(first.inputRequests)
    expect(requests).toMatchObject([form('1'), form('2')])
    if (era === 'modern') expect(Object.keys(first.inputRequests)).toEqual(['r1-q1', 'r1-q2'])
  })
})

describe.each(BACKENDS.filter(({ era }) => era === 'legacy'))('a call parked in front of $name', ({ name: server }) => {
  test('is carried on with once: a second retry with the same state is refused', async () => {
    const rounds = [[form('1')]]
    const first = (await bridge.post({ server }, ask(rounds))).json().result as unknown as InputRequired
    expect((await bridge.post({ server }, ask(rounds, answers(first)))).json().result).toMatchObject({
      structuredContent: { answers: [[accepted]] },
    })
    expect((await bridge.post({ server }, ask(rounds, answers(first)))).json().error).toMatchObject(INVALID_STATE)
  })

  test('beyond 32 of one principal the oldest is cancelled at the server', async () => {
    const since = bridge.talkers[server].heard().length
    const rounds = (index: number) => [[form(`parked ${index}`)]]
    const crowded = (request: RawRequest): RawRequest => ({ ...request, agent: 'crowd' })
    const states: InputRequired[] = []
    for (let index = 0; index <= 32; index++)
      states.push(
        (await bridge.post({ server }, crowded(ask(rounds(index))))).json().result as unknown as InputRequired,
      )
    const cancelled = () =>
      bridge.talkers[server]
        .heard()
        .slice(since)
        .filter(({ method }) => method === 'notifications/cancelled')
    const [firstCall] = bridge.talkers[server]
      .heard()
      .slice(since)
      .filter(({ method }) => method === 'tools/call')
    await expect.poll(() => cancelled().map(({ params }) => params?.requestId)).toEqual([firstCall?.id])
    const retry = async (index: number) =>
      (await bridge.post({ server }, crowded(ask(rounds(index), answers(states[index] as InputRequired))))).json()
    expect((await retry(0)).error).toMatchObject(INVALID_STATE)
    for (const index of [1, 32])
      expect((await retry(index)).result).toMatchObject({ structuredContent: { answers: [[accepted]] } })
    for (let index = 2; index < 32; index++) await retry(index)
  })

  test.each([
    ['prompts/get', { name: 'visiting', arguments: { url: 'https://example.com/prompt' } }],
    ['tools/call', { name: 'visit', arguments: { url: 'https://example.com/tool' } }],
    ['resources/read', { uri: 'talk://visiting/https://example.com/resource' }],
  ])('%s too may send its user to a page first', async (method, params) => {
    const first = await bridge.post({ server }, { method, params, capabilities: ELICITS })
    expect(first.json().result).toMatchObject({ resultType: 'input_required' })
    const { inputRequests } = first.json().result as unknown as InputRequired
    expect(Object.values(inputRequests)).toMatchObject([{ method: 'elicitation/create', params: { mode: 'url' } }])
    const since = bridge.talkers[server].heard().length
    const inputResponses = Object.fromEntries(Object.keys(inputRequests).map(key => [key, { action: 'accept' }]))
    const again = { method, params: { ...params, inputResponses }, capabilities: ELICITS }
    const second = await bridge.post({ server }, again)
    // To a server of 2025 it is the same request once more: it knows nothing of answers.
    const heard = bridge.talkers[server].heard().slice(since)
    expect(heard.find(message => message.method === method)?.params).not.toHaveProperty('inputResponses')
    expect(second.json().result).toMatchObject({ resultType: 'complete' })
  })

  test('a page to be visited first is asked for without a state, and only of a client that can', async () => {
    const visit = (url: string, capabilities: Json): RawRequest => ({
      method: 'tools/call',
      params: { name: 'visit', arguments: { url } },
      capabilities,
    })
    const cannot = await bridge.post({ server }, visit('https://example.com/1', { elicitation: { form: {} } }))
    expect([cannot.status, cannot.json().error]).toMatchObject([
      400,
      { code: -32021, data: { requiredCapabilities: { elicitation: { url: {} } } } },
    ])
    const { result } = (await bridge.post({ server }, visit('https://example.com/2', ELICITS))).json()
    expect(result).toMatchObject({ resultType: 'input_required' })
    expect(result).not.toHaveProperty('requestState')
    expect(Object.values((result as unknown as InputRequired).inputRequests)).toMatchObject([
      {
        method: 'elicitation/create',
        params: { mode: 'url', url: 'https://example.com/2', message: 'Go there first' },
      },
    ])
  })
})

describe.each(BACKENDS)('errors of $name', ({ name: server }) => {
  const refuse = (code: number): RawRequest => ({
    method: 'tools/call',
    params: { name: 'refuse', arguments: { code, message: 'no', data: { why: 'so' } } },
    capabilities: ELICITS,
  })

  test.each([-32020, -32022])('%i is between the gateway and its server', async code => {
    const { status, json } = await bridge.post({ server }, refuse(code))
    expect([status, json().error]).toMatchObject([200, { code: -32603 }])
  })

  test.each([-32002, -32042, -32050])('%i does not reach a client of 2026', async code => {
    const { error } = (await bridge.post({ server }, refuse(code))).json()
    expect(error).toMatchObject({ code: expect.any(Number) })
    expect([-32602, -32603]).toContain(error?.code)
  })
})
