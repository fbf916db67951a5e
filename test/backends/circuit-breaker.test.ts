import { describe, expect, test } from 'vitest'
import { createCircuitBreaker } from '../../src/backends/circuit-breaker.js'
import { GatewayError } from '../../src/errors/gateway-error.js'
import { openBackend } from '../fixtures/backend.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { type NastyAnswer, openByHand } from '../fixtures/servers.js'

const DOWN: NastyAnswer = { status: 503 }
const LEFT_ALONE = {
  code: 'SERVER_UNAVAILABLE',
  message: expect.stringMatching(/failed 5 times in a row \(.*503.*\), and is left alone/),
}

/** A server that is well until told otherwise. */
async function openMoodyServer() {
  const mood: { answer: NastyAnswer | 'hang up' | undefined } = { answer: undefined }
  const http = await openByHand(createRichServer({ eras: ['modern'], countExecution: () => 1 }), {
    instead: ({ method }) => (method === 'tools/call' ? mood.answer : undefined),
  })
  const { call, backend } = openBackend({ url: http.url })
  return {
    mood,
    call: () => call('text'),
    fail: async (times: number) => {
      for (let n = 0; n < times; n++) await expect(call('text')).rejects.toThrow()
    },
    calls: () => http.received.filter(({ body }) => body.method === 'tools/call').length,
    async [Symbol.asyncDispose]() {
      await backend.close()
      await http.close()
    },
  }
}

describe('a remote server', () => {
  test.each([['503', DOWN] as const, ['a closed socket', 'hang up'] as const])(
    'that answers five calls in a row with %s is left alone, and used again once it is well',
    async (_name, answer) => {
      await using server = await openMoodyServer()
      server.mood.answer = answer
      await server.fail(5)
      const sent = server.calls()
      await expect(server.call()).rejects.toMatchObject({
        code: 'SERVER_UNAVAILABLE',
        message: expect.stringContaining('failed 5 times in a row'),
      })
      expect(server.calls()).toBe(sent)

      server.mood.answer = undefined
      await expect.poll(server.call, { timeout: 5_000 }).toMatchObject({ content: [{ text: 'plain' }] })
    },
  )

  test('is not given up for failures with a success between them', async () => {
    await using server = await openMoodyServer()
    for (let round = 0; round < 2; round++) {
      server.mood.answer = DOWN
      await server.fail(4)
      server.mood.answer = undefined
      await expect(server.call()).resolves.toMatchObject({ content: [{ text: 'plain' }] })
    }
  })

  test.each([{ status: 400 }, { status: 403 }, { status: 429 }, { status: 500 }])(
    'is not given up for what it says on purpose: $status',
    async answer => {
      await using server = await openMoodyServer()
      server.mood.answer = answer
      await server.fail(8)
      expect(server.calls()).toBe(8)
    },
  )
})

test('after the pause one request finds out, and the others do not wait for it', async () => {
  const protect = createCircuitBreaker()
  const down = () => Promise.reject(new GatewayError('SERVER_UNAVAILABLE', 'HTTP 503'))
  for (let n = 0; n < 5; n++) await expect(protect(down)).rejects.toThrow('HTTP 503')
  await expect(protect(down)).rejects.toMatchObject(LEFT_ALONE)

  let comeBack = (_answer: string) => {}
  const answer = new Promise<string>(resolve => {
    comeBack = resolve
  })
  let started = 0
  const slow = () => {
    started++
    return answer
  }
  let trial: Promise<string> | undefined
  await expect
    .poll(
      () => {
        trial = protect(slow)
        trial.catch(() => undefined)
        return started
      },
      { timeout: 5_000 },
    )
    .toBe(1)
  await expect(protect(slow)).rejects.toMatchObject(LEFT_ALONE)
  expect(started).toBe(1)

  comeBack('well')
  await expect(trial).resolves.toBe('well')
  await expect(protect(slow)).resolves.toBe('well')
})
