import type {
  Client,
  JSONRPCMessage,
  JSONRPCRequest,
  StreamableHTTPClientTransport,
} from '@modelcontextprotocol/client'
import { version } from '../version.js'
import type { CallClock, OutgoingCall, RawResult } from './call.js'
import { callOverHttp, type HttpTarget } from './http-lane.js'
import type { StdioTransport } from './stdio-transport.js'
import type { BackendTool } from './tool.js'

/** The short way for a plain `tools/call`: no schemas, no streams, no per-call client. */
export interface DirectLane {
  /** False for what only the SDK can send: parameter headers, names that need encoding in a header. */
  carries(call: OutgoingCall, tool: BackendTool): boolean
  call(call: OutgoingCall, clock: CallClock): Promise<RawResult>
}

export type Wire =
  | { readonly stdio: StdioTransport }
  | { readonly http: HttpTarget; readonly transport: StreamableHTTPClientTransport }

// Above anything the SDK's client counts to, below what a server that keeps ids in 32 bits can hold.
const FIRST_ID = 1_000_000_000

const PLAIN_HEADER_VALUE = /^[\x21-\x3c\x3e-\x7e][\x20-\x7e]*(?<! )$/

/** Opens the lane beside an SDK client that is connected over the same wire. */
export function directLaneOver(wire: Wire, client: Client): DirectLane {
  let lastId = FIRST_ID
  const isModern = client.getProtocolEra() === 'modern'
  const protocolVersion = client.getNegotiatedProtocolVersion() ?? ''
  // The request envelope of 2026-07-28; the small tools offer a backend no client features, so it may not ask for any.
  const envelope = isModern
    ? {
        'io.modelcontextprotocol/protocolVersion': protocolVersion,
        'io.modelcontextprotocol/clientInfo': { name: 'agent-mcp-gateway', version },
        'io.modelcontextprotocol/clientCapabilities': {},
      }
    : {}

  const toRequest = ({ name, arguments: args, meta }: OutgoingCall): JSONRPCRequest => {
    const id = ++lastId
    // The token is ours even if the caller asked for none: progress keeps a long call alive.
    return {
      jsonrpc: '2.0',
      id,
      method: 'tools/call',
      params: { name, arguments: args, _meta: { ...meta, ...envelope, progressToken: id } },
    }
  }

  if ('stdio' in wire) {
    return { carries: () => true, call: (call, clock) => wire.stdio.call(toRequest(call), clock, call.onProgress) }
  }

  const { http, transport } = wire
  const onMessage = (message: JSONRPCMessage) => transport.onmessage?.(message)
  const send = (
    call: OutgoingCall,
    request: JSONRPCRequest,
    headers: Readonly<Record<string, string>>,
    clock: CallClock,
  ) =>
    callOverHttp(http, {
      request,
      clock,
      onMessage,
      onProgress: call.onProgress,
      headers: { 'mcp-protocol-version': protocolVersion, ...headers },
    })

  if (isModern) {
    return {
      carries: ({ name }, { hasParameterHeaders }) => !hasParameterHeaders && PLAIN_HEADER_VALUE.test(name),
      call: (call, clock) => send(call, toRequest(call), { 'mcp-method': 'tools/call', 'mcp-name': call.name }, clock),
    }
  }
  return {
    carries: () => true,
    async call(call, clock) {
      const request = toRequest(call)
      const session = transport.sessionId
      // Hanging up does not cancel in this era, a notification does.
      const cancel = () => {
        const params = { requestId: request.id }
        void transport.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params }).catch(() => {})
      }
      clock.signal.addEventListener('abort', cancel, { once: true })
      try {
        return await send(call, request, session === undefined ? {} : { 'mcp-session-id': session }, clock)
      } finally {
        clock.signal.removeEventListener('abort', cancel)
      }
    },
  }
}
