import type { ServerConfig } from '../config/servers-file.js'
import { describeRequest, type SpanRequest } from '../observability/tracing.js'
import type { OutgoingRequest } from './call.js'

/** A request to a backend as a span. */
export function toClientSpan({ method, params, meta }: OutgoingRequest, config: ServerConfig): SpanRequest {
  const { name, attributes } = describeRequest(method, params)
  return {
    kind: 'client',
    name,
    attributes: { ...attributes, 'mcp.gateway.server': config.name, ...placeOf(config) },
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
