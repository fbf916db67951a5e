import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type BackendAsk, ClientRefusal } from '../../src/backends/call.js'
import { InputRounds, type Serve } from '../../src/gateway/input-rounds.js'
import type { Caller } from '../../src/gateway/tool.js'
import type { JsonObject } from '../../src/json.js'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] })
  // What the LRU cache tells the time by: the object itself, which fake timers would only hide.
  vi.spyOn(performance, 'now').mockImplementation(() => Date.now())
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const MINUTE = 60_000

const FORM = { method: 'elicitation/create', params: { message: 'Which?' } }
const ACCEPTED = { action: 'accept', content: {} }
const DONE = { content: [] }
const INVALID = { code: -32602, message: 'Invalid or expired requestState' }
const ELICITS = { elicitation: {} }
const EVERYTHING = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} }

interface Asking {
  readonly resultType: string
  readonly inputRequests: Readonly<Record<string, JsonObject>>
  readonly requestState: string
}

const modern = (retry?: Caller['retry'], capabilities: JsonObject = ELICITS): Caller => ({
  principal: { id: 'somebody', key: 'somebody', agents: ['a'] },
  era: 'modern',
  client: { capabilities, tell: () => {} },
  ...(retry && { retry }),
})

const legacy = (ask: (request: BackendAsk) => Promise<JsonObject>, signal?: AbortSignal): Caller => ({
  principal: { id: 'somebody', key: 'somebody', agents: ['a'] },
  era: 'legacy',
  client: { capabilities: EVERYTHING, ask, tell: () => {} },
  ...(signal && { signal }),
})

const binding = () => ['somebody', 'tools/call', 'digest']
const asking = (result: unknown): Asking => result as Asking
const backWith = ({ inputRequests, requestState }: Asking): Caller['retry'] => ({
  inputResponses: Object.fromEntries(Object.keys(inputRequests ?? {}).map(key => [key, ACCEPTED])),
  requestState,
})

/** A backend of 2026: it forgets the request, and remembers with the state it gave. */
function forgetful(results: readonly JsonObject[]) {
  const retries: Caller['retry'][] = []
  const serve: Serve = async ({ retry }) => {
    retries.push(retry)
    return results[retries.length - 1] ?? DONE
  }
  return { retries, serve }
}

/** A backend of 2025: it waits for the answer. */
function waiting() {
  const seen: { calls: number; signal?: Caller['signal'] } = { calls: 0 }
  const serve: Serve = async ({ client, signal }) => {
    seen.calls++
    seen.signal = signal
    return { ...DONE, answer: await client?.ask?.({ ...FORM, signal: new AbortController().signal }) }
  }
  return { seen, serve }
}

describe('a client of 2026 and a backend of 2026', () => {
  const STATE = 'ünsealed {"round": 1}\u0000'
  const question = { resultType: 'input_required', inputRequests: { mine: FORM }, requestState: STATE }

  test('the state goes out sealed and comes back byte for byte, with the keys as they were', async () => {
    const rounds = new InputRounds(() => true)
    const { retries, serve } = forgetful([question])
    const first = asking(await rounds.run(modern(), binding, serve))
    expect(first).toMatchObject({ resultType: 'input_required', inputRequests: { mine: FORM } })
    expect(`${first.requestState}${Buffer.from(first.requestState, 'base64url')}`).not.toContain('nsealed')
    expect(await rounds.run(modern(backWith(first)), binding, serve)).toEqual(DONE)
    expect(retries).toEqual([undefined, { inputResponses: { mine: ACCEPTED }, requestState: STATE }])
  })

  test('the same state is sealed differently each time', async () => {
    const rounds = new InputRounds(() => true)
    const { serve } = forgetful([question, question])
    const [one, two] = [await rounds.run(modern(), binding, serve), await rounds.run(modern(), binding, serve)]
    expect(asking(one).requestState).not.toBe(asking(two).requestState)
  })

  test('a backend that gave no state gets none', async () => {
    const rounds = new InputRounds(() => true)
    const { retries, serve } = forgetful([{ resultType: 'input_required', inputRequests: { mine: FORM } }])
    const first = asking(await rounds.run(modern(), binding, serve))
    expect(first).not.toHaveProperty('requestState')
    await rounds.run(modern({ inputResponses: { mine: ACCEPTED } }), binding, serve)
    expect(retries).toEqual([undefined, { inputResponses: { mine: ACCEPTED } }])
  })

  test('a state that is not ours, for something else, or too old, never reaches the backend', async () => {
    const rounds = new InputRounds(() => true)
    const { retries, serve } = forgetful([question])
    const first = asking(await rounds.run(modern(), binding, serve))
    const back = backWith(first)
    const attempts: [Caller['retry'], () => readonly unknown[]][] = [
      [{ ...back, requestState: STATE }, binding],
      [{ ...back, requestState: '' }, binding],
      [{ ...back, requestState: 42 }, binding],
      [{ ...back, requestState: { plain: STATE } }, binding],
      [{ ...back, requestState: `${first.requestState}A` }, binding],
      [{ ...back, requestState: 'A'.repeat(2_000_000) }, binding],
      [back, () => ['somebody else', 'tools/call', 'digest']],
      [back, () => ['somebody', 'prompts/get', 'digest']],
      [back, () => ['somebody', 'tools/call', 'another digest']],
    ]
    for (const [retry, about] of attempts)
      await expect(rounds.run(modern(retry), about, serve)).rejects.toMatchObject(INVALID)
    await expect(new InputRounds(() => true).run(modern(back), binding, serve)).rejects.toMatchObject(INVALID)
    vi.setSystemTime(Date.now() + 11 * MINUTE)
    await expect(rounds.run(modern(back), binding, serve)).rejects.toMatchObject(INVALID)
    expect(retries).toHaveLength(1)
  })

  test.each<[JsonObject, JsonObject, JsonObject | undefined]>([
    [FORM, {}, { elicitation: { form: {} } }],
    [FORM, { elicitation: { url: {} } }, { elicitation: { form: {} } }],
    [{ ...FORM, params: { mode: 'url' } }, { elicitation: {} }, { elicitation: { url: {} } }],
    [{ ...FORM, params: { mode: 'url' } }, { elicitation: { url: {} } }, undefined],
    [{ method: 'sampling/createMessage', params: {} }, { elicitation: {} }, { sampling: {} }],
    [{ method: 'sampling/createMessage', params: { tools: [] } }, { sampling: {} }, { sampling: { tools: {} } }],
    [{ method: 'sampling/createMessage', params: { toolChoice: {} } }, { sampling: { tools: {} } }, undefined],
    [{ method: 'roots/list' }, {}, { roots: {} }],
    [{ method: 'roots/list' }, { roots: {} }, undefined],
  ])('%j for a client with %j', async (request, capabilities, requiredCapabilities) => {
    const { serve } = forgetful([{ resultType: 'input_required', inputRequests: { mine: request } }])
    const round = new InputRounds(() => true).run(modern(undefined, capabilities), binding, serve)
    if (requiredCapabilities)
      await expect(round).rejects.toMatchObject({ code: -32021, data: { requiredCapabilities } })
    else expect(await round).toMatchObject({ inputRequests: { mine: request } })
  })

  test('a question that MCP has not is no question', async () => {
    const { serve } = forgetful([{ resultType: 'input_required', inputRequests: { mine: { method: 'ping' } } }])
    await expect(new InputRounds(() => true).run(modern(), binding, serve)).rejects.toMatchObject({ code: -32603 })
  })
})

describe('a client of 2026 and a backend of 2025', () => {
  test('the call waits, and goes on with the answer', async () => {
    const rounds = new InputRounds(() => true)
    const { seen, serve } = waiting()
    const first = asking(await rounds.run(modern(), binding, serve))
    expect(Object.values(first.inputRequests)).toEqual([FORM])
    expect(await rounds.run(modern(backWith(first)), binding, serve)).toEqual({ ...DONE, answer: ACCEPTED })
    expect(seen.calls).toBe(1)
  })

  test('a second retry with the same state is refused', async () => {
    const rounds = new InputRounds(() => true)
    const { seen, serve } = waiting()
    const first = asking(await rounds.run(modern(), binding, serve))
    await rounds.run(modern(backWith(first)), binding, serve)
    await expect(rounds.run(modern(backWith(first)), binding, serve)).rejects.toMatchObject(INVALID)
    expect(seen.calls).toBe(1)
  })

  test('nobody comes back: the call is cancelled at the backend, and its state is worth nothing', async () => {
    const rounds = new InputRounds(() => true)
    const { seen, serve } = waiting()
    const first = asking(await rounds.run(modern(), binding, serve))
    await vi.advanceTimersByTimeAsync(9 * MINUTE)
    expect(seen.signal?.aborted).toBe(false)
    await vi.advanceTimersByTimeAsync(2 * MINUTE)
    expect(seen.signal?.aborted).toBe(true)
    await expect(rounds.run(modern(backWith(first)), binding, serve)).rejects.toMatchObject(INVALID)
    expect(seen.calls).toBe(1)
  })

  test('a retry for something else does not end the call', async () => {
    const rounds = new InputRounds(() => true)
    const { seen, serve } = waiting()
    const first = asking(await rounds.run(modern(), binding, serve))
    await expect(rounds.run(modern(backWith(first)), () => ['somebody else'], serve)).rejects.toMatchObject(INVALID)
    expect(seen.signal?.aborted).toBe(false)
    expect(await rounds.run(modern(backWith(first)), binding, serve)).toMatchObject({ answer: ACCEPTED })
  })

  test('the end of the gateway is the end of the calls that wait', async () => {
    const rounds = new InputRounds(() => true)
    const { seen, serve } = waiting()
    await rounds.run(modern(), binding, serve)
    rounds.close()
    expect(seen.signal?.aborted).toBe(true)
  })
})

describe('a client of 2025 and a backend of 2026', () => {
  const question = (round: number, requests: JsonObject = { a: FORM }) => ({
    resultType: 'input_required',
    inputRequests: requests,
    requestState: `state ${round}`,
  })

  test('is asked while its request goes on, round after round, all at once in each', async () => {
    const asked: string[] = []
    const { retries, serve } = forgetful([question(1, { a: FORM, b: { method: 'roots/list' } }), question(2)])
    const client = legacy(async ({ method }) => {
      asked.push(method)
      return { to: method }
    })
    expect(await new InputRounds(() => true).run(client, binding, serve)).toEqual(DONE)
    expect(asked).toEqual(['elicitation/create', 'roots/list', 'elicitation/create'])
    expect(retries).toEqual([
      undefined,
      { inputResponses: { a: { to: 'elicitation/create' }, b: { to: 'roots/list' } }, requestState: 'state 1' },
      { inputResponses: { a: { to: 'elicitation/create' } }, requestState: 'state 2' },
    ])
  })

  test('what the client has not declared is not asked of it, and ends the call', async () => {
    const asked: string[] = []
    const client: Caller = {
      ...legacy(async () => ACCEPTED),
      client: {
        capabilities: ELICITS,
        tell: () => {},
        async ask({ method }) {
          asked.push(method)
          return ACCEPTED
        },
      },
    }
    const { retries, serve } = forgetful([question(1, { a: { method: 'roots/list' } })])
    await expect(new InputRounds(() => true).run(client, binding, serve)).rejects.toMatchObject({
      name: 'ClientRefusal',
    })
    expect([asked, retries.length]).toEqual([[], 1])
  })

  test('a page gets the id that 2025 wants; an id of its own it keeps', async () => {
    const asked: JsonObject[] = []
    const url = { method: 'elicitation/create', params: { mode: 'url', url: 'https://example.com/' } }
    const own = { ...url, params: { ...url.params, elicitationId: 'mine' } }
    const { serve } = forgetful([question(1, { a: url, b: own, c: FORM })])
    const client = legacy(async ({ params }) => {
      asked.push(params)
      return ACCEPTED
    })
    await new InputRounds(() => true).run(client, binding, serve)
    expect(asked).toEqual([{ ...url.params, elicitationId: expect.stringMatching(/./) }, own.params, FORM.params])
  })

  test('one refusal withdraws the other questions, and ends the call', async () => {
    let withdrawn = false
    const client = legacy(({ method, signal }) => {
      if (method === 'roots/list') return Promise.reject(new ClientRefusal(-1, 'not today'))
      return new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          withdrawn = true
          reject(new Error('withdrawn'))
        })
      })
    })
    const { retries, serve } = forgetful([question(1, { a: FORM, b: { method: 'roots/list' } })])
    await expect(new InputRounds(() => true).run(client, binding, serve)).rejects.toMatchObject({ code: -1 })
    expect(withdrawn).toBe(true)
    expect(retries).toHaveLength(1)
  })

  test('a call that is cancelled withdraws its questions', async () => {
    const controller = new AbortController()
    const client = legacy(
      ({ signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(new ClientRefusal(1, 'gone')))),
      controller.signal,
    )
    const { retries, serve } = forgetful([question(1)])
    const run = new InputRounds(() => true).run(client, binding, serve)
    const refused = expect(run).rejects.toThrow()
    await vi.advanceTimersByTimeAsync(1)
    controller.abort()
    await refused
    expect(retries).toHaveLength(1)
  })

  test('a backend that asks for ever is not answered for ever', async () => {
    const { retries, serve } = forgetful(Array.from({ length: 100 }, (_, index) => question(index)))
    const client = legacy(async () => ACCEPTED)
    await expect(new InputRounds(() => true).run(client, binding, serve)).rejects.toMatchObject({ code: -32603 })
    expect(retries.length).toBeLessThanOrEqual(12)
  })

  test('a backend that only wants to be asked again has to wait a moment', async () => {
    const { retries, serve } = forgetful([{ resultType: 'input_required', requestState: 'later' }])
    const client = legacy(async () => ACCEPTED)
    vi.restoreAllMocks()
    vi.useRealTimers()
    const started = performance.now()
    expect(await new InputRounds(() => true).run(client, binding, serve)).toEqual(DONE)
    expect(performance.now() - started).toBeGreaterThan(500)
    expect(retries).toEqual([undefined, { inputResponses: {}, requestState: 'later' }])
  })
})

test('a client that cannot be spoken to is served as it is', async () => {
  const { retries, serve } = forgetful([])
  const caller: Caller = { principal: { id: 'somebody', key: 'somebody', agents: ['a'] }, era: 'legacy' }
  expect(await new InputRounds(() => true).run(caller, binding, serve)).toEqual(DONE)
  expect(retries).toEqual([undefined])
})
