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
