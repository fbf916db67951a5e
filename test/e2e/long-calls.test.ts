import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BACKENDS, type Bridge, openBridge } from '../fixtures/bridge.js'
import { CLIENTS, type TestClient } from '../fixtures/clients.js'

/** What is minutes outside, scaled down. */
const LIMITS = { timeoutMs: 1_000, maxTimeoutMs: 3_000 }

let bridge: Bridge

beforeAll(async () => {
  bridge = await openBridge({ extra: LIMITS })
})
afterAll(() => bridge[Symbol.asyncDispose]())

const form = {
  method: 'elicitation/create',
  params: { message: 'Which one?', requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
}
// One client of each era: clocks know no lines.
const matrix = CLIENTS.slice(0, 2).flatMap(line =>
  BACKENDS.map(({ name }) => ({ client: line.name, server: name, line })),
)

describe.concurrent.each(matrix)('$client in front of $server', ({ line, server }) => {
  const heard = (method: string) => bridge.talkers[server].heard().filter(message => message.method === method)
  /** The ids of the calls of this test, told apart by an argument. */
  const callsOf = (tag: string) =>
    heard('tools/call')
      .filter(({ params }) => (params?.arguments as { tag?: string } | undefined)?.tag === tag)
      .map(({ id }) => id)
  const isCancelled = (tag: string) =>
    callsOf(tag).some(id => heard('notifications/cancelled').some(({ params }) => params?.requestId === id))

  async function open(answer?: () => Promise<Record<string, unknown>>): Promise<TestClient> {
    const door = await bridge.door({ server })
    let client: TestClient | undefined
    // Starting a server is no part of these calls, however busy the machine is.
    const isReady = async () => {
      // Who can be asked nothing gets no question of a server that does not say whose call it is about.
      const opened = await line.open(door, answer ? { answer } : { capabilities: {} })
      await opened.request('tools/list')
      client = opened
    }
    await expect
      .poll(() =>
        isReady().then(
          () => true,
          () => false,
        ),
      )
      .toBe(true)
    if (!client) throw new Error('no client')
    return client
  }

  test('a call that reports progress may take many times its limit', async ({ expect }) => {
    await using client = await open()
    const news: number[] = []
    const [watched, unwatched] = await Promise.all([
      client.callTool('progress', { steps: 20, everyMs: 100 }, { onProgress: ({ progress }) => news.push(progress) }),
      client.callTool('progress', { steps: 20, everyMs: 100 }),
    ])
    expect([watched.structuredContent, unwatched.structuredContent]).toEqual([{ steps: 20 }, { steps: 20 }])
    expect(news).toEqual(Array.from({ length: 20 }, (_, index) => index + 1))
  })

  test('a silent call ends at its limit, and the server is told', async ({ expect }) => {
    await using client = await open()
    const tag = `silent ${line.name}`
    const result = await client.callTool('hang', { tag })
    expect(result).toMatchObject({ isError: true, structuredContent: { error: { code: 'TIMEOUT' } } })
    await expect.poll(() => isCancelled(tag)).toBe(true)
  })

  test('progress for ever does not help beyond the hard limit', async ({ expect }) => {
    await using client = await open()
    const tag = `endless ${line.name}`
    const started = performance.now()
    const result = await client.callTool('progress', { steps: 1_000, everyMs: 100, tag })
    expect(result).toMatchObject({ isError: true, structuredContent: { error: { code: 'TIMEOUT' } } })
    expect(performance.now() - started).toBeGreaterThan(LIMITS.maxTimeoutMs - 100)
    await expect.poll(() => isCancelled(tag)).toBe(true)
  })

  test('the clock stands still while somebody is being asked', async ({ expect }) => {
    const slow = async () => {
      await wait(1.5 * LIMITS.timeoutMs) // people take their time
      return { action: 'accept', content: { which: 'this' } }
    }
    await using client = await open(slow)
    const { structuredContent } = await client.callTool('ask', { rounds: [[form]] })
    expect(structuredContent).toEqual({ answers: [[{ action: 'accept', content: { which: 'this' } }]] })
  })
})
