import { describe, test } from 'vitest'
import type { TestBackend } from '../fixtures/backend.js'
import { LANES } from '../fixtures/lanes.js'

interface Report {
  readonly silent: readonly unknown[]
  readonly cancelled: readonly unknown[]
}

const report = (server: TestBackend) => server.ask<Report>('report')

/** How many of the calls that it never answers the backend knows to be given up. */
async function givenUp(server: TestBackend): Promise<number> {
  const { silent, cancelled } = await report(server)
  return silent.filter(id => cancelled.includes(id)).length
}

describe.concurrent.each(LANES)('$name', ({ open }) => {
  test.for([
    { caller: 'a plain call', onProgress: undefined },
    { caller: 'a call that asks for progress', onProgress: () => {} },
  ])('$caller without an answer ends with TIMEOUT, and the backend is told', async ({ onProgress }, { expect }) => {
    await using server = await open()
    await server.toolNames()
    const call = server.call('silent', {}, { timeoutMs: 500, ...(onProgress && { onProgress }) })
    await expect(call).rejects.toMatchObject({ code: 'TIMEOUT', details: { server: 'backend', timeout_ms: 500 } })
    await expect.poll(() => givenUp(server), { timeout: 5_000 }).toBe(1)
    expect(await server.call('empty')).toEqual({ content: [] })
  })

  test("the server's own timeoutMs holds where the caller names none", async ({ expect }) => {
    await using server = await open({ timeoutMs: 200 })
    await server.toolNames()
    await expect(server.call('silent')).rejects.toMatchObject({ code: 'TIMEOUT', details: { timeout_ms: 200 } })
  })

  test('progress winds the clock up again', async ({ expect }) => {
    await using server = await open({ timeoutMs: 1_000 })
    await server.toolNames()
    const started = performance.now()
    expect(await server.ask('slow', { steps: 8, everyMs: 150 })).toEqual({ steps: 8 })
    expect(performance.now() - started).toBeGreaterThan(1_000)
  })

  test('maxTimeoutMs holds whatever the progress', async ({ expect }) => {
    await using server = await open({ timeoutMs: 500, maxTimeoutMs: 1_000 })
    await server.toolNames()
    let steps = 0
    const call = server.call('slow', { steps: 200, everyMs: 50 }, { onProgress: () => void steps++, timeoutMs: 60_000 })
    await expect(call).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(steps).toBeGreaterThan(0)
    expect(steps).toBeLessThan(100)
  })

  test("the caller's cancellation reaches the backend", async ({ expect }) => {
    await using server = await open()
    await server.toolNames()
    const caller = new AbortController()
    const call = server.call('silent', {}, { signal: caller.signal }).catch((error: unknown) => error)
    await expect.poll(async () => (await report(server)).silent).toHaveLength(1)
    caller.abort()
    expect(await call).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    await expect.poll(() => givenUp(server), { timeout: 5_000 }).toBe(1)
  })

  test('a call that is cancelled beforehand is not made', async ({ expect }) => {
    await using server = await open()
    await server.toolNames()
    const call = server.call('silent', {}, { signal: AbortSignal.abort() })
    await expect(call).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(await report(server)).toMatchObject({ silent: [], cancelled: [] })
  })
})
