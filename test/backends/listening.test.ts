import type { Client, McpSubscription } from '@modelcontextprotocol/client'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { createReopenScheduler, keepListening } from '../../src/backends/listening.js'
import { openBackend } from '../fixtures/backend.js'
import { createTalker } from '../fixtures/servers/talker.js'
import { listen, openByHand } from '../fixtures/servers.js'

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
    await using server = await openByHand(receive)
    await using front = await listen((incoming, response, body) => {
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
  /** A client whose streams end like that, as far as listening goes. */
  function clientOf(listen: () => Promise<'local' | 'remote'>) {
    const calls = vi.fn(async () => {
      const how = await listen()
      return { closed: Promise.resolve(how), close: async () => {}, honoredFilter: {} } as unknown as McpSubscription
    })
    return { client: { listen: calls } as unknown as Client, calls }
  }

  test('a stream that ends is opened again after a while, until it is not wanted', async () => {
    const ended = new AbortController()
    const { client, calls } = clientOf(async () => 'remote')
    const onOpen = vi.fn()
    const started = performance.now()
    const options = { onOpen, onFailure: () => {}, signal: ended.signal }
    const listening = keepListening(client, { toolsListChanged: true }, options)
    await expect.poll(() => calls.mock.calls.length).toBe(2)
    expect(performance.now() - started).toBeGreaterThan(400)
    expect(calls).toHaveBeenCalledWith({ toolsListChanged: true }, { signal: ended.signal })
    expect(onOpen).toHaveBeenCalledTimes(2)
    ended.abort()
    await listening
    expect(calls).toHaveBeenCalledTimes(2)
  })

  test('a server that refuses it is asked again later', async () => {
    const ended = new AbortController()
    const { client, calls } = clientOf(() => Promise.reject(new Error('no')))
    const [onOpen, onFailure] = [vi.fn(), vi.fn()]
    const listening = keepListening(client, {}, { onOpen, onFailure, signal: ended.signal })
    await expect.poll(() => calls.mock.calls.length).toBe(2)
    expect([onOpen.mock.calls.length, onFailure.mock.calls.length]).toEqual([0, 2])
    ended.abort()
    await listening
  })

  test('what was closed from here stays closed', async () => {
    const { client, calls } = clientOf(async () => 'local')
    const { signal } = new AbortController()
    await keepListening(client, {}, { onOpen: () => {}, onFailure: () => {}, signal })
    expect(calls).toHaveBeenCalledTimes(1)
  })
})
