import {
  type Attributes,
  type Context,
  createTraceState,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http'
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources'
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace-base'
import type { JsonObject } from '../json.js'
import { readTraceparent, type TraceFields, traceFieldsOf, writeTraceparent } from './trace-context.js'
import type { ActiveSpan, SpanAttributes, Tracing } from './tracing.js'

export interface TracingOptions {
  readonly url: string
  readonly serviceName: string
  readonly version: string
  readonly redact: (text: string) => string
  /** Called once per outage of the collector. */
  readonly onError: (reason: string) => void
}

const FLUSH_MS = 2_000
const SCOPE = 'agent-mcp-gateway'

/** Spans to a collector over OTLP/HTTP, in batches, beside the calls. Further settings are OpenTelemetry's own variables. */
export function openTracing({ url, serviceName, version, redact, onError }: TracingOptions): Tracing {
  const service = resourceFromAttributes({ 'service.name': serviceName, 'service.version': version })
  const exporter = reporting(new OTLPTraceExporter({ url }), onError)
  const provider = new BasicTracerProvider({
    resource: defaultResource()
      .merge(service)
      .merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  })
  const tracer = provider.getTracer(SCOPE, version)

  return {
    async span({ kind, name, attributes, meta, transport }, run) {
      const own = traceFieldsOf(meta)
      const fields = own ?? transport
      const span = tracer.startSpan(
        name,
        {
          kind: kind === 'server' ? SpanKind.SERVER : SpanKind.CLIENT,
          attributes: defined(attributes),
          links: linksTo(own && transport),
        },
        contextOf(fields),
      )
      const noted = new Set<string>()
      try {
        const result = await run(activeSpan(span, meta, fields, noted))
        if (result.isError === true) fail(span, noted, 'tool_error')
        return result
      } catch (error) {
        const { type, status, message } = errorIn(error)
        if (status !== undefined) span.setAttribute('rpc.response.status_code', status)
        fail(span, noted, type, message && redact(message))
        throw error
      } finally {
        span.end()
      }
    },
    async close() {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>(resolve => {
        timer = setTimeout(resolve, FLUSH_MS)
      })
      await Promise.race([provider.shutdown().catch(() => {}), late])
      clearTimeout(timer)
    },
  }
}

function activeSpan(
  span: Span,
  meta: JsonObject | undefined,
  fields: TraceFields | undefined,
  noted: Set<string>,
): ActiveSpan {
  const { traceState, ...parent } = span.spanContext()
  const tracestate = traceState?.serialize()
  const { traceparent: _, tracestate: __, ...rest } = { ...fields, ...meta }
  return {
    meta: { ...rest, traceparent: writeTraceparent(parent), ...(tracestate && { tracestate }) },
    note(attributes) {
      for (const key of Object.keys(attributes)) noted.add(key)
      span.setAttributes(defined(attributes))
    },
  }
}

function fail(span: Span, noted: ReadonlySet<string>, type: string, message?: string): void {
  if (!noted.has('error.type')) span.setAttribute('error.type', type)
  span.setStatus({ code: SpanStatusCode.ERROR, ...(message !== undefined && { message }) })
}

/** JSON-RPC errors by their number, the gateway's by their name. */
function errorIn(error: unknown): { type: string; status?: string; message?: string } {
  if (!(error instanceof Error)) return { type: '_OTHER' }
  const { cause, message } = error
  const code = 'code' in error ? error.code : undefined
  const refusal = cause instanceof Error && 'code' in cause && typeof cause.code === 'number' ? cause.code : undefined
  const number = typeof code === 'number' ? code : refusal
  if (number !== undefined) return { type: String(number), status: String(number), message }
  return { type: typeof code === 'string' ? code : '_OTHER', message }
}

function spanContextOf({ traceparent, tracestate }: TraceFields): SpanContext | undefined {
  const parent = readTraceparent(traceparent)
  if (!parent) return undefined
  return { ...parent, isRemote: true, ...(tracestate !== undefined && { traceState: createTraceState(tracestate) }) }
}

function contextOf(fields: TraceFields | undefined): Context {
  const parent = fields && spanContextOf(fields)
  return parent ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT
}

/** The trace of the transport, where it is not the parent. */
function linksTo(transport: TraceFields | undefined): Link[] {
  const context = transport && spanContextOf(transport)
  return context ? [{ context }] : []
}

const defined = (attributes: SpanAttributes): Attributes =>
  Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined))

/** Says so when the collector cannot be had, and does no more about it. */
function reporting(exporter: SpanExporter, onError: (reason: string) => void): SpanExporter {
  let isFailing = false
  return {
    export(spans, done) {
      exporter.export(spans, result => {
        const hasFailed = result.error !== undefined || result.code !== 0
        if (hasFailed && !isFailing) onError(result.error?.message ?? 'unknown')
        isFailing = hasFailed
        done(result)
      })
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: async () => exporter.forceFlush?.(),
  }
}
