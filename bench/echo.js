// @ts-check
/**
 * The answers of a minimal MCP server of both eras with one tool, `echo`. Written by hand, so that the backend costs next to
 * nothing and what is measured is the thing in front of it.
 */

const MODERN = '2026-07-28'
const LEGACY = '2025-11-25'

const serverInfo = { name: 'bench-echo', version: '1.0.0' }
const capabilities = { tools: {} }
// A list that expires during a run would put its re-reading into somebody's round.
const cacheable = { ttlMs: 3_600_000, cacheScope: 'private' }

const echo = {
  name: 'echo',
  description: 'Gives the message back',
  inputSchema: {
    type: 'object',
    properties: { message: { type: 'string' } },
    required: ['message'],
    additionalProperties: false,
  },
}

/**
 * @param {{ id?: string | number, method?: string, params?: any }} message
 * @returns {object | undefined} undefined for what has no answer
 */
export function answer({ id, method, params }) {
  if (id === undefined) return undefined
  const isModern = params?._meta?.['io.modelcontextprotocol/protocolVersion'] === MODERN
  /** @param {object} result */
  const complete = result => ({ jsonrpc: '2.0', id, result: isModern ? { ...result, resultType: 'complete' } : result })
  switch (method) {
    case 'server/discover':
      return complete({ supportedVersions: [MODERN], capabilities, serverInfo, ...cacheable })
    case 'initialize':
      return complete({ protocolVersion: LEGACY, capabilities, serverInfo })
    case 'tools/list':
      return complete({ tools: [echo], ...cacheable })
    case 'tools/call':
      return complete({ content: [{ type: 'text', text: params.arguments.message }] })
    default:
      return { jsonrpc: '2.0', id, error: { code: -32601, message: 'Method not found' } }
  }
}
