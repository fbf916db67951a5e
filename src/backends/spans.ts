import type { ServerConfig } from '../config/servers-file.js'
import type { SpanRequest } from '../observability/tracing.js'
import type { OutgoingRequest } from './call.js'

/** A request to a backend as a span (OpenTelemetry, "Semantic conventions for Model Context Protocol"). */
export function toClientSpan({ method, params, meta }: OutgoingRequest, config: ServerConfig): SpanRequest {
  const target = typeof params.name === 'string' ? params.name : undefined
  return {
    kind: 'client',
    name: target === undefined ? method : `${method} ${target}`,
    attributes: {
      'mcp.method.name': method,
      ...(method === 'tools/call' && {
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': target,
        'mcp.tool.name': target,
      }),
      ...(method === 'prompts/get' && { 'gen_ai.prompt.name': target }),
      ...(typeof params.uri === 'string' && { 'mcp.resource.uri': params.uri }),
      'mcp.gateway.server': config.name,
      ...placeOf(config),
    },
    meta,
  }
}

function placeOf(config: ServerConfig): SpanRequest['attributes'] {
  if (config.transport === 'stdio') return { 'network.transport': 'pipe' }
  if (!URL.canParse(config.url)) return { 'network.transport': 'tcp' }
  const { hostname, port, protocol } = new URL(config.url)
  return {
    'network.transport': 'tcp',
    'network.protocol.name': 'http',
    'server.address': hostname,
    'server.port': Number(port) || (protocol === 'https:' ? 443 : 80),
  }
}
