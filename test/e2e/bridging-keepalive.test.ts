import { type ClientRequest, request } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Bridge, openBridge } from '../fixtures/bridge.js'

let bridge: Bridge

beforeAll(async () => {
  bridge = await openBridge()
})
afterAll(() => bridge[Symbol.asyncDispose]())

describe.concurrent('a stream on which nothing happens', () => {
  const MODERN = {
    'io.modelcontextprotocol/protocolVersion': '2026-07-28',
    'io.modelcontextprotocol/clientCapabilities': {},
  }

  /** Opens a stream as it is on the wire; resolves with its headers and the first of the frames that are no events. */
  async function firstComment(url: URL, options: { method: string; headers: Record<string, string>; body?: unknown }) {
    const { body, ...init } = options
    let sent: ClientRequest | undefined
    try {
      return await new Promise<{ comment: string; accelerated: unknown }>((resolve, reject) => {
        sent = request(url, { ...init, agent: false }, response => {
          response.setEncoding('utf8').on('data', (text: string) => {
            const comment = text.split('\n').find(line => line.startsWith(':'))
            if (comment !== undefined) resolve({ comment, accelerated: response.headers['x-accel-buffering'] })
          })
          response.on('end', () => reject(new Error(`the stream ended (HTTP ${response.statusCode})`)))
        })
        sent.on('error', reject)
        sent.end(body === undefined ? undefined : JSON.stringify(body))
      })
    } finally {
      sent?.destroy()
    }
  }

  const common = (token: string) => ({
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
  })

  test('the GET stream of a session of 2025', async () => {
    const { url, token } = await bridge.door({ server: 'http-2026' })
    const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } }
    const answer = await fetch(url, {
      method: 'POST',
      headers: common(token),
      body: JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params }),
    })
    await answer.text()
    const session = {
      'mcp-session-id': answer.headers.get('mcp-session-id') ?? '',
      'mcp-protocol-version': '2025-11-25',
    }
    const { accept, authorization } = common(token)
    const stream = firstComment(url, { method: 'GET', headers: { accept, authorization, ...session } })
    expect(await stream).toMatchObject({ comment: expect.stringMatching(/^:/), accelerated: 'no' })
  })

  test('subscriptions/listen of 2026', async () => {
    const { url, token } = await bridge.door({ server: 'http-2026' })
    const headers = { ...common(token), 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'subscriptions/listen' }
    const params = { notifications: { toolsListChanged: true }, _meta: MODERN }
    const body = { jsonrpc: '2.0', id: 'l', method: 'subscriptions/listen', params }
    const { comment, accelerated } = await firstComment(url, { method: 'POST', headers, body })
    expect([comment[0], accelerated]).toEqual([':', 'no'])
  })

  test.each([
    ['2026', { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'later' }, MODERN],
    ['2025', { 'mcp-protocol-version': '2025-11-25' }, {}],
  ])('a call of %s that takes long and reports progress', async (_era, extra, meta) => {
    const { url, token } = await bridge.door({ server: 'http-2026' })
    const headers: Record<string, string> = { ...common(token), ...extra }
    if (!('mcp-method' in extra)) {
      const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } }
      const body = JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params })
      const answer = await fetch(url, { method: 'POST', headers, body })
      await answer.text()
      headers['mcp-session-id'] = answer.headers.get('mcp-session-id') ?? ''
    }
    const params = { name: 'later', arguments: { ms: 60_000 }, _meta: { ...meta, progressToken: 'p' } }
    const body = { jsonrpc: '2.0', id: 1, method: 'tools/call', params }
    const { comment, accelerated } = await firstComment(url, { method: 'POST', headers, body })
    expect([comment[0], accelerated]).toEqual([':', 'no'])
  })
})
