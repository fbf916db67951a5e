import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { openBackend } from '../fixtures/backend.js'

type Answer = (response: ServerResponse, id: number) => void

/** A server of the 2025 era whose `tools/call` and streams answer as the test says. */
async function openServer({ call, resume }: { call: Answer; resume: Answer }) {
  const resumed: (string | undefined)[] = []
  let calls = 0
  let id = 0
  const json = (response: ServerResponse, result: unknown, requestId: number) => {
    response.writeHead(200, { 'content-type': 'application/json', 'mcp-session-id': 's' })
    response.end(JSON.stringify({ jsonrpc: '2.0', id: requestId, result }))
  }
  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    if (request.method === 'DELETE') return response.writeHead(204).end()
    if (request.method === 'GET') {
      const after = request.headers['last-event-id']
      if (after === undefined) return response.writeHead(405).end()
      resumed.push(String(after))
      return resume(response, id)
    }
    const message = JSON.parse(await text(request))
    if (message.id === undefined) return response.writeHead(202).end()
    switch (message.method) {
      case 'initialize': {
        const serverInfo = { name: 'cutter', version: '1' }
        return json(response, { protocolVersion: '2025-11-25', capabilities: { tools: {} }, serverInfo }, message.id)
      }
      case 'tools/list':
        return json(response, { tools: [{ name: 'slow', inputSchema: { type: 'object' } }] }, message.id)
      case 'tools/call':
        calls++
        id = message.id
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        return call(response, id)
      default:
        response.writeHead(400).end()
    }
  }
  const server = createServer((request, response) => void serve(request, response))
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const backend = openBackend({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, timeoutMs: 5_000 })
  return {
    resumed,
    get calls() {
      return calls
    },
    backend,
    async [Symbol.asyncDispose]() {
      await backend[Symbol.asyncDispose]()
      server.closeAllConnections()
      server.close()
    },
  }
}

const event = (id: string, data: unknown = '') =>
  `id: ${id}\nretry: 100\ndata: ${data === '' ? '' : JSON.stringify(data)}\n\n`
const answer = (id: number) => ({ jsonrpc: '2.0', id, result: { content: [{ type: 'text', text: 'late' }] } })
const stream = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'text/event-stream' })
const cutAfter =
  (eventId: string): Answer =>
  response =>
    response.end(event(eventId))
const LATE = { content: [{ type: 'text', text: 'late' }] }

describe('a stream that ends before the answer is there', () => {
  test('is taken up after its last event, and the call is made once', async () => {
    await using server = await openServer({
      call: cutAfter('e1'),
      resume: (response, id) => stream(response).end(event('e2', answer(id))),
    })
    expect(await server.backend.call('slow')).toEqual(LATE)
    expect([server.calls, server.resumed]).toEqual([1, ['e1']])
  })

  test('is taken up as often as it ends with news, and its progress is heard', async () => {
    let rounds = 0
    await using server = await openServer({
      call: cutAfter('e0'),
      resume: (response, id) => {
        rounds++
        const progress = { method: 'notifications/progress', params: { progressToken: id, progress: rounds } }
        const message = rounds < 8 ? { jsonrpc: '2.0', ...progress } : answer(id)
        stream(response).end(event(`e${rounds}`, message))
      },
    })
    const heard: number[] = []
    expect(await server.backend.call('slow', {}, { onProgress: ({ progress }) => heard.push(progress) })).toEqual(LATE)
    expect(heard).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(server.resumed).toEqual(['e0', 'e1', 'e2', 'e3', 'e4', 'e5', 'e6', 'e7'])
  })

  test('is taken up when the connection breaks, too', async () => {
    await using server = await openServer({
      call: response => response.write(event('e1'), () => response.destroy()),
      resume: (response, id) => stream(response).end(event('e2', answer(id))),
    })
    expect(await server.backend.call('slow')).toEqual(LATE)
  })

  test('hands on the error that the rest of it brings', async () => {
    const error = { code: -32603, message: 'broken inside' }
    await using server = await openServer({
      call: cutAfter('e1'),
      resume: (response, id) => stream(response).end(event('e2', { jsonrpc: '2.0', id, error })),
    })
    await expect(server.backend.call('slow')).rejects.toMatchObject({
      code: 'BACKEND_ERROR',
      details: { backend_code: -32603 },
    })
  })

  test('without a numbered event the outcome is unknown, and nothing is asked for', async () => {
    await using server = await openServer({ call: response => response.end(': hello\n\n'), resume: cutAfter('never') })
    await expect(server.backend.call('slow')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect([server.calls, server.resumed]).toEqual([1, []])
  })

  test.each([404, 405, 500, 401])(
    'refused with %i, the outcome is unknown, and the call is not repeated',
    async status => {
      await using server = await openServer({
        call: cutAfter('e1'),
        resume: response => response.writeHead(status).end(),
      })
      await expect(server.backend.call('slow')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
      expect([server.calls, server.resumed]).toEqual([1, ['e1']])
    },
  )

  test('that brings nothing new is given up after a few times', async () => {
    await using server = await openServer({ call: cutAfter('e1'), resume: response => stream(response).end() })
    await expect(server.backend.call('slow')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(server.resumed).toEqual(Array(5).fill('e1'))
  })

  test('is not waited for longer than the call may take', async () => {
    await using server = await openServer({
      call: response => response.end('id: e1\nretry: 60000\ndata:\n\n'),
      resume: cutAfter('never'),
    })
    await expect(server.backend.call('slow', {}, { timeoutMs: 300 })).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(server.resumed).toEqual([])
  })
})
