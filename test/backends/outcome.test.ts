import { describe, expect, test } from 'vitest'
import { LANES } from '../fixtures/lanes.js'

describe.each(LANES)('the connection breaks during a call: $name', ({ open }) => {
  test('the outcome is unknown, and the call is not repeated', async () => {
    await using server = await open({ timeoutMs: 5_000 })
    await server.toolNames()
    await expect(server.call('break')).rejects.toMatchObject({
      code: 'OUTCOME_UNKNOWN',
      details: { server: 'backend' },
    })
    expect(await server.ask('break')).toEqual({ executions: 2 }) // this one, and the one that broke
  })

  test.each(['break_read_only', 'break_idempotent'])('%s is repeated once', async tool => {
    await using server = await open({ timeoutMs: 5_000 })
    await server.toolNames()
    expect(await server.ask(tool)).toEqual({ executions: 2 })
  })

  test('calls beside it end as well, and the next one works', async () => {
    await using server = await open({ timeoutMs: 5_000 })
    await server.toolNames()
    const others = [server.call('empty'), server.call('text')].map(call => call.catch((error: unknown) => error))
    await expect(server.call('break')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    for (const outcome of await Promise.all(others)) {
      if (outcome instanceof Error) expect(outcome).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      else expect(outcome).toHaveProperty('content')
    }
    expect(await server.call('empty')).toEqual({ content: [] })
  })
})
