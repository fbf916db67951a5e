import type { JsonObject } from '../json.js'
import { describeRequest, type SpanRequest } from '../observability/tracing.js'
import type { CallObserver } from './audited.js'
import type { Caller } from './tool.js'

/** A client's request as a span. */
export function toServerSpan(method: string, params: JsonObject, caller: Caller): SpanRequest {
  const { principal, era, client, meta, transportTrace } = caller
  const { name, attributes } = describeRequest(method, params)
  return {
    kind: 'server',
    name,
    attributes: {
      ...attributes,
      'mcp.session.id': principal.isLocal ? undefined : client?.session?.id,
      'mcp.protocol.version': era === 'modern' ? '2026-07-28' : undefined,
      'network.transport': principal.isLocal ? 'pipe' : 'tcp',
    },
    meta,
    transport: transportTrace,
  }
}

/** What the audit line of a call says, on its span. */
export const noteOnSpan: CallObserver = ({ caller, agent, server, tool, decision }, { code }) => {
  const isFine = code === 'OK' || code === 'INPUT_REQUIRED'
  caller.note?.({
    'mcp.gateway.agent': agent,
    'mcp.gateway.server': server,
    'mcp.gateway.tool': tool,
    'mcp.gateway.decision': decision?.decision,
    'mcp.gateway.code': code,
    ...(!isFine && { 'error.type': code === 'TOOL_ERROR' ? 'tool_error' : code }),
  })
}
