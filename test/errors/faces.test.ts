import { describe, expect, test } from 'vitest'
import { toExitStatus, toHttpStatus, toJsonRpcError, toToolResult } from '../../src/errors/faces.js'
import { errorCodes, GatewayError, type GatewayErrorCode } from '../../src/errors/gateway-error.js'

// DESIGN.md sections 3 and 6: the codes, and the exit statuses scripts rely on.
const faces: readonly [code: GatewayErrorCode, jsonrpc: number, http: number, exit: number][] = [
  ['DENIED_BY_POLICY', -32602, 403, 1],
  ['INVALID_AGENT_ID', -32602, 403, 1],
  ['NO_FALLBACK_CONFIGURED', -32602, 403, 1],
  ['FALLBACK_AGENT_NOT_IN_RULES', -32602, 403, 1],
  ['TOOL_NOT_FOUND', -32602, 404, 1],
  ['INVALID_ARGUMENTS', -32602, 400, 1],
  ['SERVER_UNAVAILABLE', -32603, 502, 69],
  ['LOGIN_FAILED', -32603, 502, 1],
  ['AUTH_REQUIRED', -32603, 502, 77],
  ['TIMEOUT', -32603, 504, 75],
  ['RATE_LIMITED', -32603, 429, 75],
  ['BACKEND_ERROR', -32603, 502, 1],
  ['OUTCOME_UNKNOWN', -32603, 502, 1],
  ['SHUTTING_DOWN', -32603, 503, 75],
  ['CONFIG_INVALID', -32603, 500, 78],
  ['INTERNAL', -32603, 500, 1],
]

test('every code has its row here', () => {
  expect([...errorCodes].sort()).toEqual(faces.map(([code]) => code).sort())
})

describe.each(faces)('%s', (code, jsonrpc, http, exit) => {
  const error = new GatewayError(code, 'what happened', {
    cause: new Error('secret cause'),
    details: { server: 'shop' },
  })

  test('as a tool result says the same in structuredContent and as text', () => {
    const result = toToolResult(error)
    expect(result).toMatchObject({ isError: true, structuredContent: { error: { code } } })
    expect(result.content).toHaveLength(1)
    expect(JSON.parse(result.content[0].text)).toEqual(result.structuredContent)
  })

  test('has its JSON-RPC error, HTTP status and exit status', () => {
    expect(toJsonRpcError(error)).toMatchObject({ code: jsonrpc, data: { code } })
    expect(toHttpStatus(error)).toBe(http)
    expect(toExitStatus(error)).toBe(exit)
  })

  test('tells callers what they may know and never the cause', () => {
    const sent = JSON.stringify([toToolResult(error), toJsonRpcError(error)])
    expect(sent).not.toContain('secret cause')
    expect(sent.includes('what happened')).toBe(code !== 'INTERNAL')
    expect(sent.includes('shop')).toBe(code !== 'INTERNAL')
  })
})

test('details stand beside code and message and never replace them', () => {
  const error = new GatewayError('TOOL_NOT_FOUND', 'no such tool', {
    details: { nearest: ['a'], code: 'X', message: 'Y' },
  })
  expect(toToolResult(error).structuredContent.error).toEqual({
    code: 'TOOL_NOT_FOUND',
    message: 'no such tool',
    nearest: ['a'],
  })
})
