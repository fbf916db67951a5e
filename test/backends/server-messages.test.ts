import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type BackendAsk, CallClock, type ClientPeer } from '../../src/backends/call.js'
import { type BackendChange, type InFlight, ServerMessages } from '../../src/backends/server-messages.js'

interface Person extends ClientPeer {
  readonly asked: BackendAsk[]
  readonly told: unknown[]
}

function person(name: string, extra: Partial<ClientPeer> = {}): Person {
  const asked: BackendAsk[] = []
  const told: unknown[] = []
  return {
    principal: name,
    capabilities: {},
    takesLogs: true,
    asked,
    told,
    async ask(request) {
      asked.push(request)
      return { by: name }
    },
    tell: (method, params) => void told.push([method, params]),
    ...extra,
  }
}

const clocks: CallClock[] = []
const inFlight = (client: ClientPeer, timeoutMs = 1_000): InFlight => {
  const clock = new CallClock(timeoutMs, 60_000)
  clocks.push(clock)
  return { client, clock }
}

const changes: BackendChange[] = []
const open = (sessionClient?: ClientPeer) =>
  new ServerMessages({ client: undefined, sessionClient, onChange: change => void changes.push(change) })

const question = (id: number | string, extra: Record<string, unknown> = {}) => ({
  id,
  method: 'elicitation/create',
  params: { message: 'Which?' },
  signal: new AbortController().signal,
  notify: () => {},
  ...extra,
})

beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  for (const clock of clocks.splice(0)) clock.stop()
  changes.length = 0
  vi.useRealTimers()
})

describe('a request of the backend', () => {
  test('is for the client whose request it came with, whoever came later', async () => {
    const messages = open()
    const [ann, bob] = [person('ann'), person('bob')]
    const [first, second] = [inFlight(ann), inFlight(bob)]
    messages.enter(first)
    messages.enter(second)
    messages.noteOrigin(7, first)
    messages.noteOrigin('7', second)
    expect(await messages.ask(question(7))).toEqual({ by: 'ann' })
    expect(await messages.ask(question('7'))).toEqual({ by: 'bob' })
  })

  test('without a stream of its own it is for the newest request of one principal', async () => {
    const messages = open()
    const [first, second] = [person('ann'), person('ann')]
    messages.enter(inFlight(first))
    const newest = inFlight(second)
    messages.enter(newest)
    await messages.ask(question(1))
    expect([first.asked.length, second.asked.length]).toEqual([0, 1])
    messages.leave(newest)
    await messages.ask(question(2))
    expect([first.asked.length, second.asked.length]).toEqual([1, 1])
  })

  test('is never put to one of two principals by guessing', async () => {
    const messages = open()
    const [ann, bob] = [person('ann'), person('bob')]
    messages.enter(inFlight(ann))
    messages.enter(inFlight(bob))
    await expect(messages.ask(question(1))).rejects.toMatchObject({ name: 'ClientRefusal', code: -32601 })
    expect([ann.asked, bob.asked]).toEqual([[], []])
  })

  test('between requests is for the client that the session is held for, and for nobody on a shared one', async () => {
    const ann = person('ann')
    expect(await open(ann).ask(question(1))).toEqual({ by: 'ann' })
    await expect(open().ask(question(1))).rejects.toMatchObject({ code: -32601 })
    const shared = open(ann)
    shared.share()
    await expect(shared.ask(question(1))).rejects.toMatchObject({ code: -32601 })
  })

  test('of a request that is over is not for it', async () => {
    const messages = open()
    const gone = inFlight(person('ann'))
    messages.enter(gone)
    messages.noteOrigin(1, gone)
    messages.leave(gone)
    await expect(messages.ask(question(1))).rejects.toMatchObject({ code: -32601 })
  })

  test('after somebody has given up a request is for nobody else', async () => {
    const messages = open()
    const [ann, bob] = [person('ann'), person('bob')]
    const slow = inFlight(ann)
    messages.enter(slow)
    await vi.advanceTimersByTimeAsync(1_001)
    messages.leave(slow)
    const next = inFlight(bob)
    messages.enter(next)
    await expect(messages.ask(question(1))).rejects.toMatchObject({ code: -32601 })
    messages.tell('notifications/message', { level: 'error', data: 'of ann' })
    expect(bob.told).toEqual([])
    messages.leave(next)
    messages.enter(inFlight(ann))
    messages.tell('notifications/message', { level: 'error', data: 'of ann' })
    expect(ann.told).toHaveLength(1)
  })

  test('stops the clock of its request until it is answered', async () => {
    const messages = open()
    let answer: (result: Record<string, unknown>) => void = () => {}
    const slow = person('ann', {
      ask: () =>
        new Promise(resolve => {
          answer = resolve
        }),
    })
    const origin = inFlight(slow, 1_000)
    messages.enter(origin)
    messages.noteOrigin(1, origin)
    await vi.advanceTimersByTimeAsync(900)
    const asked = messages.ask(question(1))
    await vi.advanceTimersByTimeAsync(30_000)
    expect(origin.clock.ended).toBeUndefined()
    answer({ action: 'accept' })
    await asked
    await vi.advanceTimersByTimeAsync(900)
    expect(origin.clock.ended).toBeUndefined()
    await vi.advanceTimersByTimeAsync(200)
    expect(origin.clock.ended).toMatchObject({ code: 'TIMEOUT' })
  })

  test('does not stop the clock for ever', async () => {
    const messages = open()
    const silent = person('ann', { ask: () => new Promise(() => {}) })
    const origin = inFlight(silent)
    messages.enter(origin)
    void messages.ask(question(1))
    await vi.advanceTimersByTimeAsync(61_000)
    expect(origin.clock.ended).toMatchObject({ code: 'TIMEOUT' })
  })

  test('keeps its _meta, but not its progress token: progress comes back under that', async () => {
    const ann = person('ann')
    const messages = open(ann)
    const sent: unknown[] = []
    await messages.ask(
      question(1, {
        params: { message: 'Which?', _meta: { progressToken: 'theirs', 'example.com/a': 1 } },
        notify: (method: string, params: unknown) => void sent.push([method, params]),
      }),
    )
    expect(ann.asked[0]?.params).toEqual({ message: 'Which?', _meta: { 'example.com/a': 1 } })
    ann.asked[0]?.onProgress?.({ progress: 1, total: 2 })
    expect(sent).toEqual([['notifications/progress', { progressToken: 'theirs', progress: 1, total: 2 }]])
  })
})

describe('a notification of the backend', () => {
  test.each([
    ['notifications/tools/list_changed', {}, { kind: 'tools' }],
    ['notifications/prompts/list_changed', {}, { kind: 'prompts' }],
    ['notifications/resources/list_changed', {}, { kind: 'resources' }],
    [
      'notifications/resources/updated',
      { uri: 'a:b', extra: 1 },
      { kind: 'resource', uri: 'a:b', params: { uri: 'a:b', extra: 1 } },
    ],
  ])('%s is a change, and told to nobody by itself', (method, params, change) => {
    const ann = person('ann')
    const messages = open(ann)
    messages.enter(inFlight(ann))
    messages.tell(method, params)
    expect(changes).toEqual([change])
    expect(ann.told).toEqual([])
  })

  test('a log message is for the request it came with, if that wants any', () => {
    const messages = open()
    const [ann, bob] = [person('ann'), person('bob', { takesLogs: false })]
    const [first, second] = [inFlight(ann), inFlight(bob)]
    messages.enter(first)
    messages.enter(second)
    messages.tell('notifications/message', { level: 'info', data: 1 }, first)
    messages.tell('notifications/message', { level: 'info', data: 2 }, second)
    expect(ann.told).toEqual([['notifications/message', { level: 'info', data: 1 }]])
    expect(bob.told).toEqual([])
  })

  test('a log message that may be meant for two principals is for neither', () => {
    const messages = open()
    const [ann, bob] = [person('ann'), person('bob')]
    messages.enter(inFlight(ann))
    messages.enter(inFlight(bob))
    messages.tell('notifications/message', { level: 'info' })
    expect([ann.told, bob.told]).toEqual([[], []])
  })

  test('anything else is for the client of the session', () => {
    const ann = person('ann')
    open(ann).tell('notifications/elicitation/complete', { elicitationId: '1' })
    expect(ann.told).toEqual([['notifications/elicitation/complete', { elicitationId: '1' }]])
    open().tell('notifications/elicitation/complete', {}) // nobody is there
  })
})
