import type { JsonObject } from '../json.js'
import type { SpanRequest } from '../observability/tracing.js'
import type { CallObserver } from './audited.js'
import type { Caller } from './tool.js'

const MAX_NAME = 128

/** A client's request as a span (OpenTelemetry, "Semantic conventions for Model Context Protocol"). Never contains arguments. */
export function toServerSpan(method: string, params: JsonObject, caller: Caller): SpanRequest {
  const { principal, era, client, meta, transportTrace } = caller
  const target = typeof params.name === 'string' ? params.name.slice(0, MAX_NAME) : undefined
  const session = principal.isLocal ? undefined : client?.session?.id
  return {
    kind: 'server',
    name: target === undefined ? method : `${method} ${target}`,
    attributes: {
      'mcp.method.name': method,
      ...(method === 'tools/call' && {
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': target,
        'mcp.tool.name': target,
      }),
      ...(method === 'prompts/get' && { 'gen_ai.prompt.name': target }),
      ...(typeof params.uri === 'string' && { 'mcp.resource.uri': params.uri.slice(0, 1_000) }),
      'mcp.session.id': session,
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
