import type {
  Client,
  JSONRPCMessage,
  JSONRPCRequest,
  StandardSchemaV1,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client'
import type { ServerConfig } from '../config/servers-file.js'
import type { JsonObject } from '../json.js'
import { version } from '../version.js'
import type { CallClock, OutgoingRequest, RawResult } from './call.js'
import { callOverHttp, type HttpTarget } from './http-lane.js'
import { callResumably } from './http-resumption.js'
import { encodeHeaderValue } from './parameter-headers.js'
import { fromSdkError } from './sdk-errors.js'
import type { StdioTransport } from './stdio-transport.js'

/** A request on its way out, with its clock. */
export interface LaneRequest extends OutgoingRequest {
  readonly clock: CallClock
  /** Takes what the backend says on the stream of the answer, beside progress. */
  readonly onMessage: (message: JSONRPCMessage) => void
}

/** Sends a request and gives back the result as the backend wrote it. Rejects as Connection.callTool does. */
export type Lane = (request: LaneRequest) => Promise<RawResult>

// Above anything the SDK's client counts to, below what a server that keeps ids in 32 bits can hold.
const FIRST_ID = 1_000_000_000

/** Numbers requests, and adds what the era wants in `_meta`. */
function createEnvelope(client: Client): (request: LaneRequest) => JSONRPCRequest {
  let lastId = FIRST_ID
  const isModern = client.getProtocolEra() === 'modern'
  const hop = {
    'io.modelcontextprotocol/protocolVersion': client.getNegotiatedProtocolVersion(),
    'io.modelcontextprotocol/clientInfo': { name: 'agent-mcp-gateway', version },
  }
  const envelopeFor = (peer: LaneRequest['client']): JsonObject => ({
    ...hop,
    'io.modelcontextprotocol/clientCapabilities': peer?.capabilities ?? {},
    ...(peer?.logLevel !== undefined && { 'io.modelcontextprotocol/logLevel': peer.logLevel }),
  })
  // Calls made for nobody in particular are nearly all of them.
  const plain = isModern ? envelopeFor(undefined) : {}
  return ({ method, params, meta, onProgress, client: peer }) => {
    const id = ++lastId
    const envelope = isModern && peer ? envelopeFor(peer) : plain
    // The token is ours even if the caller asked for none: progress keeps a long call alive.
    const progress = method === 'tools/call' || onProgress ? { progressToken: id } : {}
    return { jsonrpc: '2.0', id, method, params: { ...params, _meta: { ...meta, ...envelope, ...progress } } }
  }
}

/** The direct lane over a child's stdin and stdout. */
export function stdioLane(transport: StdioTransport, client: Client): Lane {
  const toRequest = createEnvelope(client)
  return request => transport.call(toRequest(request), request.clock, request.onProgress)
}

/** The direct lane over Streamable HTTP: no schemas, no per-call client. */
export function httpLane(target: HttpTarget, transport: StreamableHTTPClientTransport, client: Client): Lane {
  const toRequest = createEnvelope(client)
  const version = { 'mcp-protocol-version': client.getNegotiatedProtocolVersion() ?? '' }

  if (client.getProtocolEra() === 'modern') {
    return request => {
      const { method, params, clock, onProgress, onMessage } = request
      const name = method === 'resources/read' ? params.uri : params.name
      const mirrored = {
        'mcp-method': method,
        ...(NAMED.has(method) && typeof name === 'string' && { 'mcp-name': encodeHeaderValue(name) }),
      }
      const headers = { ...version, ...mirrored, ...request.headers }
      return callOverHttp(target, { request: toRequest(request), clock, onMessage, onProgress, headers })
    }
  }
  return async outgoing => {
    const { clock, onProgress, onMessage } = outgoing
    const request = toRequest(outgoing)
    const session = transport.sessionId
    const headers = session === undefined ? version : { ...version, 'mcp-session-id': session }
    // Hanging up does not cancel in this era, a notification does.
    const cancel = () => {
      const params = { requestId: request.id }
      void transport.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params }).catch(() => {})
    }
    const unsubscribe = clock.onEnd(cancel)
    try {
      return await callResumably(target, { request, clock, onMessage, onProgress, headers })
    } finally {
      unsubscribe()
    }
  }
}

/** Requests whose subject is mirrored in `Mcp-Name` (2026-07-28, "Standard Request Headers"). */
const NAMED: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read'])

// The clock is ours and aborts the signal; the SDK's must not run out first.
const NEVER_MS = 2 ** 31 - 1

/** The SDK's own way, for the old HTTP+SSE transport, whose answers come on another stream. */
export function sdkLane(client: Client, config: ServerConfig): Lane {
  return async ({ method, params, meta, clock, onProgress }) => {
    const progress = (news: Parameters<NonNullable<typeof onProgress>>[0]) => {
      clock.progress()
      onProgress?.(news)
    }
    const controller = new AbortController()
    const unsubscribe = clock.onEnd(reason => controller.abort(reason))
    try {
      return await client.request({ method, params: { ...params, ...(meta && { _meta: { ...meta } }) } }, AS_IT_IS, {
        signal: controller.signal,
        timeout: NEVER_MS,
        onprogress: progress,
      })
    } catch (error) {
      throw clock.ended ?? fromSdkError(error, config).error
    } finally {
      unsubscribe()
    }
  }
}

/** A schema that takes everything: what only passes through is not parsed again. */
const AS_IT_IS: StandardSchemaV1<RawResult, RawResult> = {
  '~standard': { version: 1, vendor: 'agent-mcp-gateway', validate: value => ({ value: value as RawResult }) },
}
