import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ParkedCall, ParkedCalls } from '../../src/gateway/parked-calls.js'
import type { Caller, CallingClient } from '../../src/gateway/tool.js'

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

const client: CallingClient = { capabilities: { elicitation: {} }, tell: () => {} }
const callerOf = (extra: Partial<Caller> = {}): Caller => ({
  principal: { id: 'somebody', key: 'somebody', agents: ['a'] },
  era: 'modern',
  client,
  ...extra,
})
const question = (message: string, signal: AbortSignal = new AbortController().signal) => ({
  method: 'elicitation/create',
  params: { message },
  signal,
})

/** A call whose backend has a question, and what became of it. */
function startAsking(principal = 'somebody', caller = callerOf()) {
  const call = new ParkedCall(principal)
  const seen: { signal?: Caller['signal']; answer?: unknown; refused?: unknown } = {}
  call.start(caller, client, async served => {
    seen.signal = served.signal
    try {
      seen.answer = await served.client?.ask?.(question('Which?'))
    } catch (error) {
      seen.refused = error
      throw error
    }
    return { content: [], answer: seen.answer }
  })
  return { call, seen }
}

const accepted = { action: 'accept', content: {} }

describe('a parked call', () => {
  test('gives what is asked, and the result once it is answered', async () => {
    const { call } = startAsking()
    const first = await call.round(callerOf())
    expect(first).toEqual({
      wanted: {
        [Object.keys('wanted' in first ? first.wanted : {})[0] ?? '']: {
          method: 'elicitation/create',
          params: { message: 'Which?' },
        },
      },
    })
    call.answer({ [Object.keys('wanted' in first ? first.wanted : {})[0] ?? '']: accepted, nobody: accepted })
    expect(await call.round(callerOf())).toEqual({ result: { content: [], answer: accepted } })
  })

  test('asks again for what was not answered, under the same key', async () => {
    const { call } = startAsking()
    const first = await call.round(callerOf())
    call.answer({ 'not-it': accepted })
    expect(await call.round(callerOf())).toEqual(first)
  })

  test('does not ask what the backend has withdrawn', async () => {
    const withdrawn = new AbortController()
    const call = new ParkedCall('somebody')
    call.start(callerOf(), client, async served => {
      const gone = served.client?.ask?.(question('1', withdrawn.signal)).catch(() => 'gone')
      const stays = served.client?.ask?.(question('2'))
      withdrawn.abort()
      return { answers: [await gone, await stays] }
    })
    const round = await call.round(callerOf())
    const wanted = 'wanted' in round ? round.wanted : {}
    expect(Object.values(wanted)).toMatchObject([{ params: { message: '2' } }])
    call.answer(Object.fromEntries(Object.keys(wanted).map(key => [key, accepted])))
    expect(await call.round(callerOf())).toEqual({ result: { answers: ['gone', accepted] } })
  })

  test('is cancelled by the client that hangs up while it is there, and not while it is away', async () => {
    const leg = new AbortController()
    const { call, seen } = startAsking()
    await call.round(callerOf({ signal: leg.signal }))
    leg.abort() // the request ended with the question
    expect(seen.signal?.aborted).toBe(false)

    const next = new AbortController()
    const waiting = call.round(callerOf({ signal: next.signal }))
    next.abort()
    expect(seen.signal?.aborted).toBe(true)
    await waiting.catch(() => {})
    expect(seen.refused).toMatchObject({ name: 'ClientRefusal' })
  })

  test('reports to the request that is there, and to none in between', async () => {
    const told: string[] = []
    const listening = (name: string) =>
      callerOf({
        client: { ...client, tell: method => void told.push(`${name} ${method}`) },
        onProgress: ({ progress }) => void told.push(`${name} ${progress}`),
      })
    const call = new ParkedCall('somebody')
    const say: { progress?: Caller['onProgress']; tell?: CallingClient['tell'] | undefined } = {}
    call.start(listening('start'), client, async served => {
      say.progress = served.onProgress
      say.tell = served.client?.tell
      say.progress?.({ progress: 1 })
      return { answer: await served.client?.ask?.(question('Which?')) }
    })
    const first = call.round(listening('first'))
    say.progress?.({ progress: 2 })
    say.tell?.('notifications/message', {})
    const round = await first
    say.progress?.({ progress: 3 })
    say.tell?.('notifications/message', {})
    call.answer(Object.fromEntries(Object.keys('wanted' in round ? round.wanted : {}).map(key => [key, accepted])))
    await call.round(listening('second'))
    expect(told).toEqual(['first 2', 'first notifications/message'])
  })

  test('gives its failure to whoever comes back', async () => {
    const call = new ParkedCall('somebody')
    call.start(callerOf(), client, async () => {
      throw new Error('no')
    })
    await expect(call.round(callerOf())).rejects.toThrow('no')
  })
})

describe('parked calls', () => {
  test('are cancelled when nobody comes back within ten minutes', async () => {
    const parked = new ParkedCalls()
    const { call, seen } = startAsking()
    await call.round(callerOf())
    const id = parked.park(call)
    await vi.advanceTimersByTimeAsync(9 * MINUTE)
    expect(seen.signal?.aborted).toBe(false)
    await vi.advanceTimersByTimeAsync(2 * MINUTE)
    expect(seen.signal?.aborted).toBe(true)
    expect(seen.refused).toMatchObject({ name: 'ClientRefusal' })
    expect(parked.unpark(id)).toBeUndefined()
    expect(parked.size).toBe(0)
  })

  test('are carried on with once, and parked under another id the next time', async () => {
    const parked = new ParkedCalls()
    const { call } = startAsking()
    await call.round(callerOf())
    const id = parked.park(call)
    expect(parked.unpark(id)).toBe(call)
    expect(parked.unpark(id)).toBeUndefined()
    expect(parked.park(call)).not.toBe(id)
    parked.close()
  })

  test('are left alone once they are under way again', async () => {
    const parked = new ParkedCalls()
    const { call, seen } = startAsking()
    await call.round(callerOf())
    expect(parked.unpark(parked.park(call))).toBe(call)
    await vi.advanceTimersByTimeAsync(11 * MINUTE)
    expect(seen.signal?.aborted).toBe(false) // its time is for others to keep
  })

  test('32 of one principal at most: the one that waits longest makes room', async () => {
    const parked = new ParkedCalls()
    const started = Array.from({ length: 33 }, () => startAsking('crowd'))
    const other = startAsking('other')
    for (const { call } of [other, ...started]) {
      await call.round(callerOf())
      parked.park(call)
    }
    expect(parked.size).toBe(33)
    expect(started.map(({ seen }) => seen.signal?.aborted)).toEqual([true, ...Array.from({ length: 32 }, () => false)])
    expect(other.seen.signal?.aborted).toBe(false)
  })

  test('1024 of all principals at most', async () => {
    const parked = new ParkedCalls()
    const started = Array.from({ length: 1_025 }, (_, index) => startAsking(`p${index}`))
    for (const { call } of started) parked.park(call)
    expect(parked.size).toBe(1_024)
    expect(started.map(({ seen }) => seen.signal?.aborted).indexOf(false)).toBe(1)
  })

  test('are all cancelled at the end', async () => {
    const parked = new ParkedCalls()
    const { call, seen } = startAsking()
    await call.round(callerOf())
    parked.park(call)
    parked.close()
    expect(seen.signal?.aborted).toBe(true)
    expect(parked.size).toBe(0)
  })
})
