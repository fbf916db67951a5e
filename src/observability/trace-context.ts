import { isJsonObject, type JsonObject } from '../json.js'

/** What carries a trace from one hop to the next (W3C Trace Context, W3C Baggage), in `_meta` or in HTTP headers. */
export const TRACE_KEYS = ['traceparent', 'tracestate', 'baggage'] as const

export type TraceFields = Partial<Readonly<Record<(typeof TRACE_KEYS)[number], string>>>

export interface TraceParent {
  readonly traceId: string
  readonly spanId: string
  readonly traceFlags: number
}

/** Later versions may add fields after these; version ff and ids of nothing but zeros are none (Trace Context, section 3.2.2). */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/
const MAX_LENGTH = 512

export function readTraceparent(text: unknown): TraceParent | undefined {
  if (typeof text !== 'string' || text.length > MAX_LENGTH) return undefined
  const [, traceId, spanId, flags] = TRACEPARENT.exec(text) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16) }
}

export const writeTraceparent = ({ traceId, spanId, traceFlags }: TraceParent): string =>
  `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, '0')}`

/** Of anything that has them by name; undefined where there is no trace. */
export function traceFieldsIn(read: (name: string) => unknown): TraceFields | undefined {
  if (typeof read('traceparent') !== 'string') return undefined
  const fields = TRACE_KEYS.flatMap(key => {
    const value = read(key)
    return typeof value === 'string' ? [[key, value]] : []
  })
  return Object.fromEntries(fields)
}

export const traceFieldsOf = (meta: JsonObject | undefined): TraceFields | undefined =>
  isJsonObject(meta) ? traceFieldsIn(key => meta[key]) : undefined
