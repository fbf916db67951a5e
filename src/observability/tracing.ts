import type { JsonObject } from '../json.js'
import type { TraceFields } from './trace-context.js'

export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>

export interface SpanRequest {
  /** A request that came in, or one that goes out. */
  readonly kind: 'server' | 'client'
  readonly name: string
  readonly attributes: SpanAttributes
  /** `_meta` of the request as it came; the trace it names is gone on with. */
  readonly meta: JsonObject | undefined
  /** What the transport says, which counts where the request itself says nothing. */
  readonly transport?: TraceFields | undefined
}

// What callers choose is as long as they like.
const MAX_NAME = 128
const MAX_URI = 1_000

/** What every span of an MCP request says of it (OpenTelemetry, "Semantic conventions for Model Context Protocol"). Never arguments. */
export function describeRequest(method: string, params: JsonObject): Pick<SpanRequest, 'name' | 'attributes'> {
  const target = typeof params.name === 'string' ? params.name.slice(0, MAX_NAME) : undefined
  return {
    name: target === undefined ? method : `${method} ${target}`,
    attributes: {
      'mcp.method.name': method,
      ...(method === 'tools/call' && {
        'gen_ai.operation.name': 'execute_tool',
        'gen_ai.tool.name': target,
        'mcp.tool.name': target,
      }),
      ...(method === 'prompts/get' && { 'gen_ai.prompt.name': target }),
      ...(typeof params.uri === 'string' && { 'mcp.resource.uri': params.uri.slice(0, MAX_URI) }),
    },
  }
}

export interface ActiveSpan {
  /** `_meta` for whoever is called next: with this span as its parent, and everything else as it came. */
  readonly meta: JsonObject
  note(attributes: SpanAttributes): void
}

/** Spans of requests. Where no collector is configured there is none of this, and what a client says about its trace passes as it is. */
export interface Tracing {
  /** Runs a request as a span. Its outcome is the request's; what becomes of the span is nobody's concern. */
  span<T extends JsonObject>(request: SpanRequest, run: (span: ActiveSpan) => Promise<T>): Promise<T>
  /** Sends what is left, for a moment. */
  close(): Promise<void>
}
