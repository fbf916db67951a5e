import type { IncomingHttpHeaders } from 'node:http'
import type { RequestId } from '@modelcontextprotocol/server'
import { isJsonObject, type JsonObject } from '../json.js'

const MODERN = '2026-07-28'
const LEGACY = new Set([undefined, '2025-03-26', '2025-06-18', '2025-11-25'])
const META = {
  version: 'io.modelcontextprotocol/protocolVersion',
  capabilities: 'io.modelcontextprotocol/clientCapabilities',
  clientInfo: 'io.modelcontextprotocol/clientInfo',
  logLevel: 'io.modelcontextprotocol/logLevel',
  serverInfo: 'io.modelcontextprotocol/serverInfo',
}

/** A `tools/call` that needs nothing of the SDK. */
export interface DirectCall {
  readonly id: RequestId
  readonly era: 'legacy' | 'modern'
  readonly name: string
  readonly args: unknown
  readonly meta: JsonObject | undefined
}

const MISSING_CAPABILITY = -32021

/** The status that an error has over HTTP (2026-07-28, "Error Codes"). */
export const statusOf = (outcome: { readonly result: JsonObject } | { readonly error: JsonObject }): number =>
  'error' in outcome && outcome.error.code === MISSING_CAPABILITY ? 400 : 200

/**
 * Takes a request only if it is plainly a well-formed `tools/call` without progress or logging. Everything else, every malformed
 * request included, is left to the SDK, whose answer is the specified one; so the two lanes cannot disagree about errors.
 */
export function readDirectCall(body: unknown, headers: IncomingHttpHeaders): DirectCall | undefined {
  if (!isJsonObject(body) || body.jsonrpc !== '2.0' || body.method !== 'tools/call') return undefined
  const { id, params } = body
  if ((typeof id !== 'string' && !Number.isSafeInteger(id)) || !isJsonObject(params)) return undefined
  const { name, arguments: args, _meta: meta } = params
  if (
    typeof name !== 'string' ||
    (args !== undefined && !isJsonObject(args) && typeof args !== 'string') ||
    (meta !== undefined && !isJsonObject(meta))
  )
    return undefined
  if (meta && ('progressToken' in meta || META.logLevel in meta)) return undefined
  if ('inputResponses' in params || 'requestState' in params) return undefined
  if (!/^application\/json\s*(;|$)/i.test(headers['content-type'] ?? '')) return undefined

  const call = { id: id as RequestId, name, args, meta }
  if (meta && META.version in meta) return isPlainModern(meta, name, headers) ? { ...call, era: 'modern' } : undefined
  return isPlainLegacy(headers) ? { ...call, era: 'legacy' } : undefined
}

/** The envelope and the mirrored headers of 2026-07-28, agreeing with the body. */
function isPlainModern(meta: JsonObject, name: string, headers: IncomingHttpHeaders): boolean {
  const { [META.capabilities]: capabilities, [META.clientInfo]: clientInfo = {} } = meta
  return (
    meta[META.version] === MODERN &&
    isJsonObject(capabilities) &&
    Object.values(capabilities).every(isJsonObject) &&
    isJsonObject(clientInfo) &&
    Object.values(clientInfo).every(value => typeof value === 'string') &&
    (meta[META.clientInfo] === undefined || (clientInfo.name !== undefined && clientInfo.version !== undefined)) &&
    headers['mcp-protocol-version'] === MODERN &&
    headers['mcp-method'] === 'tools/call' &&
    headers['mcp-name'] === name
  )
}

/** A client of 2025 accepts both kinds of answer, names a version it has or none, and has no session with us. */
function isPlainLegacy(headers: IncomingHttpHeaders): boolean {
  const accept = headers.accept ?? ''
  return (
    accept.includes('application/json') &&
    accept.includes('text/event-stream') &&
    LEGACY.has(headers['mcp-protocol-version']?.toString()) &&
    headers['mcp-session-id'] === undefined
  )
}

/** The response as the SDK would encode it for the same era. */
export function toDirectResponse(
  { id, era }: DirectCall,
  outcome: { readonly result: JsonObject } | { readonly error: JsonObject },
  serverInfo: JsonObject,
): string {
  if ('error' in outcome) return JSON.stringify({ jsonrpc: '2.0', id, error: outcome.error })
  const { result } = outcome
  if (era === 'legacy') return JSON.stringify({ jsonrpc: '2.0', id, result })
  const meta = isJsonObject(result._meta) ? result._meta : {}
  return JSON.stringify({
    jsonrpc: '2.0',
    id,
    result: { resultType: 'complete', ...result, _meta: { [META.serverInfo]: serverInfo, ...meta } },
  })
}
