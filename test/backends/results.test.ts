import type { Progress } from '@modelcontextprotocol/client'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type CallOptions, openBackend, type TestBackend } from '../fixtures/backend.js'
import { LANES } from '../fixtures/lanes.js'
import { createServer, type ServerParts } from '../fixtures/servers/by-hand.js'
import { RESULTS } from '../fixtures/servers/rich.js'
import { openByHand } from '../fixtures/servers.js'

describe.each(LANES)('$name', ({ open }) => {
  let server: TestBackend
  beforeAll(async () => {
    server = await open()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  describe.each<{ caller: string; options: () => CallOptions }>([
    { caller: 'a plain call', options: () => ({}) },
    { caller: 'a call that asks for progress', options: () => ({ onProgress() {} }) },
  ])('$caller', ({ options }) => {
    test.each(Object.entries(RESULTS))('the result "%s" arrives as it was sent', async (name, result) => {
      expect(await server.call(name, {}, options())).toEqual(result)
    })

    test('arguments and _meta arrive as they were sent', async () => {
      const args = {
        text: 'a\u2028\n"ü😀"',
        args: '{"a":1}',
        number: 1e21,
        nothing: null,
        nested: { list: [1, [2, { three: [] }]], empty: {} },
        _meta: { mine: true },
        'x-odd key': '\u0000',
      }
      const meta = { 'example.com/trace': { id: 'abc' }, traceparent: '00-ab-cd-01' }
      const echo = await server.ask<{ arguments: unknown; _meta: object }>('echo', args, { ...options(), meta })
      expect(echo.arguments).toEqual(args)
      expect(echo._meta).toMatchObject(meta)
      const added = Object.keys(echo._meta).filter(key => !(key in meta) && key !== 'progressToken')
      expect(added.filter(key => !key.startsWith('io.modelcontextprotocol/'))).toEqual([])
    })

    test('a call without arguments has an empty object', async () => {
      expect((await server.ask<{ arguments: unknown }>('echo', {}, options())).arguments).toEqual({})
    })

    test('a JSON-RPC error is a BACKEND_ERROR with its code, message and data', async () => {
      await expect(server.call('refuse', {}, options())).rejects.toMatchObject({
        code: 'BACKEND_ERROR',
        message: expect.stringContaining('not today'),
        details: { server: 'backend', backend_code: -32042, backend_data: { opens: '09:00', days: [1, 2] } },
      })
    })

    test('concurrent calls get their own answers', async () => {
      const numbers = Array.from({ length: 40 }, (_, number) => number)
      const ask = (number: number) => server.ask<{ arguments: { number: number } }>('echo', { number }, options())
      const echoes = await Promise.all(numbers.map(ask))
      expect(echoes.map(echo => echo.arguments.number)).toEqual(numbers)
    })
  })

  test('progress is heard in order and before the result', async () => {
    const heard: Progress[] = []
    const result = await server.ask('slow', { steps: 3, everyMs: 10 }, { onProgress: progress => heard.push(progress) })
    expect(result).toEqual({ steps: 3 })
    expect(heard).toEqual([1, 2, 3].map(step => ({ progress: step, total: 3, message: `step ${step}` })))
  })
})

test('a result that asks for input is a BACKEND_ERROR: execute_tool has nobody to ask', async () => {
  const inputRequests = {
    name: { method: 'elicitation/create', params: { message: 'Who?', requestedSchema: { type: 'object' } } },
  }
  const tools = [{ name: 'ask', inputSchema: { type: 'object' } }]
  const call: ServerParts['call'] = (_params, { reply }) => reply({ resultType: 'input_required', inputRequests })
  await using http = await openByHand(createServer({ eras: ['modern'], tools, call }))
  await using server = openBackend({ url: http.url })
  await expect(server.call('ask')).rejects.toMatchObject({
    code: 'BACKEND_ERROR',
    message: expect.stringContaining('input_required'),
  })
})
