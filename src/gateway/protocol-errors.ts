import { ProtocolError } from '@modelcontextprotocol/server'
import { BackendRefusal, ClientRefusal, type RawResult } from '../backends/call.js'
import { publicMessage, toToolResult } from '../errors/faces.js'
import { facesOf, GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'

const INTERNAL_ERROR = -32603
const RESOURCE_NOT_FOUND_2025 = -32002
const INVALID_PARAMS = -32602
const MISSING_CAPABILITY = -32021
export const URL_ELICITATION_REQUIRED = -32042
/** Header mismatch and unsupported version: between the gateway and its backend, and nobody else's business. */
const OF_THE_HOP: ReadonlySet<number> = new Set([-32020, -32022])
/** Reserved by the specification; 2026-07-28 defines few of them. */
const isReserved = (code: number): boolean => code <= -32020 && code >= -32099

type Era = 'legacy' | 'modern'

/** A failure as the JSON-RPC error that a client of this era may get (2026-07-28, "Error Codes"). */
export function toProtocolError(error: unknown, era: Era): ProtocolError {
  if (error instanceof ProtocolError) return error
  if (error instanceof ClientRefusal) return new ProtocolError(INTERNAL_ERROR, error.message)
  if (!(error instanceof GatewayError)) return new ProtocolError(INTERNAL_ERROR, 'Internal error')
  const refusal = refusalIn(error)
  if (refusal) return new ProtocolError(codeFor(refusal.code, era), refusal.message, refusal.data)
  const data = { ...(error.isPublic && error.details), code: error.code }
  return new ProtocolError(facesOf(error.code).jsonrpc, publicMessage(error), data)
}

/** The JSON-RPC error that the backend answered with, if it was that. */
export const refusalIn = (error: GatewayError): BackendRefusal | undefined =>
  error.cause instanceof BackendRefusal ? error.cause : undefined

function codeFor(code: number, era: Era): number {
  if (OF_THE_HOP.has(code)) return INTERNAL_ERROR
  if (era === 'legacy') return code === MISSING_CAPABILITY ? INTERNAL_ERROR : code
  if (code === RESOURCE_NOT_FOUND_2025) return INVALID_PARAMS
  return isReserved(code) && code !== MISSING_CAPABILITY ? INTERNAL_ERROR : code
}

/** What was thrown in the middle of a tool call, as a result that a model can read; undefined for what has to be an error. */
export const toFailedCall = (error: unknown): RawResult | undefined =>
  error instanceof ClientRefusal
    ? toToolResult(new GatewayError('BACKEND_ERROR', `the server needs the client's input: ${error.message}`))
    : undefined

/**
 * A server of 2025 may refuse a call until its user has been to some pages; a client of 2026 is asked to go there, and then makes
 * the same call again. Undefined for any other refusal.
 */
export function toUrlElicitation(error: unknown): RawResult | undefined {
  const refusal = error instanceof GatewayError ? refusalIn(error) : undefined
  if (refusal?.code !== URL_ELICITATION_REQUIRED || !isJsonObject(refusal.data)) return undefined
  const { elicitations } = refusal.data
  const pages = Array.isArray(elicitations) ? elicitations.filter(isJsonObject) : []
  if (pages.length === 0) return undefined
  const requests = pages.map(({ message, url }, index): [string, JsonObject] => [
    `url-${index + 1}`,
    { method: 'elicitation/create', params: { mode: 'url', message: message ?? refusal.message, url } },
  ])
  return { resultType: 'input_required', inputRequests: Object.fromEntries(requests) }
}
