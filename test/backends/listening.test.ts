import type { Client, McpSubscription } from '@modelcontextprotocol/client'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createReopenScheduler, keepListening } from '../../src/backends/listening.js'
import { openBackend } from '../fixtures/backend.js'
import { createTalker } from '../fixtures/servers/talker.js'
import { openByHand } from '../fixtures/servers.js'

const MINUTE = 60_000

describe('the GET stream of a server of 2025', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  /** Opens a stream, which ends after that long, and again and again; counts. */
  function live(streamMs: number, delayMs = 1_000): { opened: number } {
    const schedule = createReopenScheduler()
    const count = { opened: 0 }
    const open = () => {
      count.opened++
      setTimeout(() => schedule(open, delayMs), streamMs)
    }
    open()
    return count
  }

  test('a server that closes it at once is asked less and less often', async () => {
    const count = live(0)
    await vi.advanceTimersByTimeAsync(10 * MINUTE)
    expect(count.opened).toBeGreaterThan(3)
    expect(count.opened - 1).toBeLessThan(10)
    const before = count.opened
    await vi.advanceTimersByTimeAsync(24 * 60 * MINUTE)
    const aDay = count.opened - before
    expect(aDay).toBeGreaterThan(100) // it may be well again one day
    expect(aDay).toBeLessThan(150)
  })

  test('one that is cut every few minutes is opened again soon', async () => {
    const count = live(2 * MINUTE)
    await vi.advanceTimersByTimeAsync(60 * MINUTE)
    expect(count.opened).toBeGreaterThan(28)
  })

  test('a good stream makes up for bad ones', async () => {
    const schedule = createReopenScheduler()
    let opened = 0
    const reopen = () => {
      opened++
    }
    for (let index = 0; index < 6; index++) {
      schedule(reopen, 0)
      await vi.advanceTimersByTimeAsync(5 * MINUTE)
      if (index < 5) schedule(reopen, 0)()
    }
    schedule(reopen, 0)
    const before = opened
    await vi.advanceTimersByTimeAsync(1_000)
    expect(opened).toBe(before + 1)
  })

  test('the wait that the server asks for is kept, and given up when nobody listens any more', async () => {
    const schedule = createReopenScheduler()
    let opened = 0
    const cancel = schedule(() => opened++, 30_000)
    await vi.advanceTimersByTimeAsync(29_000)
    expect(opened).toBe(0)
    cancel()
    await vi.advanceTimersByTimeAsync(MINUTE)
    expect(opened).toBe(0)
  })
})

describe('a server of 2025 without a GET stream', () => {
  test.each([405, 404, 406, 501])('answers %i to it, is asked once, and is used all the same', async status => {
    const receive = createTalker({ era: 'legacy' })
    let asked = 0
    await using server = await openByHand(receive, {})
    const http = await import('../fixtures/servers.js')
    await using front = await http.listen((incoming, response, body) => {
      if (incoming.method === 'GET') {
        asked++
        return response.writeHead(status).end()
      }
      return fetch(server.url, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
        body: JSON.stringify(body),
      }).then(async answer => {
        response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' })
        response.end(await answer.text())
      })
    })
    await using backend = openBackend({ url: front.url })
    await expect.poll(() => backend.toolNames()).toContain('echo')
    await expect.poll(() => asked).toBe(1)
    for (let index = 0; index < 5; index++) expect(await backend.ask('echo', { index })).toEqual({ args: { index } })
    // Longer than the first wait before another try would be.
    expect(await backend.ask('later', { ms: 1_500 })).toEqual({ answers: [] })
    expect(asked).toBe(1)
  })
})

describe('subscriptions/listen', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  /** A client whose streams live that long, as far as listening goes. */
  function clientOf(closed: () => Promise<'local' | 'remote'>) {
    const listen = vi.fn(
      async () => ({ closed: closed(), close: async () => {}, honoredFilter: {} }) as unknown as McpSubscription,
    )
    return { client: { listen } as unknown as Client, listen }
  }
  const events = (signal: AbortSignal) => {
    const seen = { opened: 0, failures: [] as unknown[] }
    const options = {
      onOpen: () => void seen.opened++,
      onFailure: (error: unknown) => void seen.failures.push(error),
      signal,
    }
    return { seen, options }
  }

  test('a stream that ends is opened again, less often if it always ends at once', async () => {
    const ended = new AbortController()
    const { client, listen } = clientOf(async () => 'remote')
    const { seen, options } = events(ended.signal)
    const listening = keepListening(client, { toolsListChanged: true }, options)
    await vi.advanceTimersByTimeAsync(10 * MINUTE)
    expect(listen.mock.calls.length).toBeGreaterThan(5)
    expect(listen.mock.calls.length).toBeLessThan(30)
    expect(seen.opened).toBe(listen.mock.calls.length)
    ended.abort()
    await vi.advanceTimersByTimeAsync(MINUTE)
    await listening
    const { length } = listen.mock.calls
    await vi.advanceTimersByTimeAsync(60 * MINUTE)
    expect(listen.mock.calls.length).toBe(length)
  })

  test('a server that refuses it is asked again later', async () => {
    const ended = new AbortController()
    const listen = vi.fn(async () => {
      throw new Error('no')
    })
    const { seen, options } = events(ended.signal)
    void keepListening({ listen } as unknown as Client, {}, options)
    await vi.advanceTimersByTimeAsync(10 * MINUTE)
    expect(seen.opened).toBe(0)
    expect(seen.failures.length).toBe(listen.mock.calls.length)
    expect(listen.mock.calls.length).toBeGreaterThan(5)
    expect(listen.mock.calls.length).toBeLessThan(30)
    ended.abort()
  })

  test('what was closed from here stays closed', async () => {
    const { client, listen } = clientOf(async () => 'local')
    const { options } = events(new AbortController().signal)
    await keepListening(client, {}, options)
    await vi.advanceTimersByTimeAsync(10 * MINUTE)
    expect(listen).toHaveBeenCalledTimes(1)
  })
})
