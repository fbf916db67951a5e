import type { FetchLike, JSONRPCMessage, JSONRPCRequest } from '@modelcontextprotocol/client'
import { createParser } from 'eventsource-parser'
import { Agent, type Dispatcher, fetch as undiciFetch } from 'undici'
import type { HttpServerConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import {
  BackendRefusal,
  type CallClock,
  ConnectionBroken,
  type OutgoingCall,
  type RawResult,
  SessionLost,
} from './call.js'
import { type HeaderFields, sendFailure, statusFailure } from './http-failures.js'
import { isResponse, type JsonRpcResponse, MAX_MESSAGE_BYTES, parseMessage, progressIn, resultOf } from './json-rpc.js'

const CONNECT_TIMEOUT_MS = 10_000
const KEEP_ALIVE_MS = 30_000
const MAX_CONNECTIONS = 128

/** The keep-alive connections to one backend. Times are ours to keep (CallClock), so undici has none but for connecting. */
export const openPool = (): Agent =>
  new Agent({
    connections: MAX_CONNECTIONS,
    connect: { timeout: CONNECT_TIMEOUT_MS },
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
  })

/** The SDK's transports over the same pool, and the headers of the last response that refused something. */
export function fetchOver(pool: Agent): { fetch: FetchLike; lastRefusal: () => HeaderFields } {
  let refusal: HeaderFields = {}
  return {
    lastRefusal: () => refusal,
    async fetch(url, init) {
      // undici's own fetch and the global one differ in type only.
      const response = await undiciFetch(url, { ...init, dispatcher: pool } as Parameters<typeof undiciFetch>[1])
      if (!response.ok) refusal = Object.fromEntries(response.headers)
      return response as unknown as Response
    },
  }
}

/** Where a backend's messages go: fixed for a connection, built once. */
export interface HttpTarget {
  readonly pool: Agent
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly config: HttpServerConfig
}

export function toHttpTarget(config: HttpServerConfig, pool: Agent): HttpTarget {
  const { origin, pathname, search } = new URL(config.url)
  const content = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' }
  return { pool, origin, path: `${pathname}${search}`, headers: { ...config.headers, ...content }, config }
}

/** One message out, and what came beside its answer: notifications and requests, which the SDK's client serves. */
export interface HttpCall {
  readonly request: JSONRPCRequest
  readonly headers: Readonly<Record<string, string>>
  readonly clock: CallClock
  readonly onMessage: (message: JSONRPCMessage) => void
  readonly onProgress: OutgoingCall['onProgress']
}

/**
 * The direct lane: one pooled POST, the answer as JSON or as a stream of events (Streamable HTTP, "Sending Messages to the
 * Server"). Rejects with BackendRefusal, SessionLost, ConnectionBroken, the clock's error, or a GatewayError.
 */
export async function callOverHttp(target: HttpTarget, call: HttpCall): Promise<RawResult> {
  const { request, headers, clock } = call
  let response: Dispatcher.ResponseData
  try {
    response = await target.pool.request({
      origin: target.origin,
      path: target.path,
      method: 'POST',
      headers: { ...target.headers, ...headers },
      body: JSON.stringify(request),
      signal: clock.signal,
    })
  } catch (error) {
    if (clock.signal.aborted) throw clock.signal.reason
    throw sendFailure(error)
  }
  try {
    return await readAnswer(target, call, response)
  } catch (error) {
    if (clock.signal.aborted) throw clock.signal.reason
    if (error instanceof BackendRefusal || error instanceof SessionLost || error instanceof GatewayError) throw error
    throw new ConnectionBroken(`the connection broke before the answer was complete: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

// What these statuses say holds whatever JSON-RPC error comes with them.
const SPEAKS_FOR_ITSELF = new Set([401, 429])

async function readAnswer(target: HttpTarget, call: HttpCall, response: Dispatcher.ResponseData): Promise<RawResult> {
  const { statusCode, headers } = response
  const contentType = String(headers['content-type'] ?? '').toLowerCase()
  if (statusCode === 200 && contentType.startsWith('text/event-stream')) return readStream(call, response)
  const text = await readText(response)
  const message = contentType.startsWith('application/json') ? parseMessage(text) : undefined
  const answer = message && isResponse(message) ? message : undefined
  if (statusCode === 200 && answer) return resultOf(answer)
  // Many servers say 400 where the specification says 404. An error without an id was made before the request was looked at.
  const isLostSession =
    'mcp-session-id' in call.headers && (statusCode === 404 || (statusCode === 400 && answer?.id == null))
  if (isLostSession) throw new SessionLost(`the server answered HTTP ${statusCode} to a session it has forgotten`)
  if (answer && 'error' in answer && !SPEAKS_FOR_ITSELF.has(statusCode)) return resultOf(answer)
  if (statusCode !== 200) throw statusFailure(statusCode, headers, target.config)
  throw new GatewayError(
    'BACKEND_ERROR',
    `answered with ${describeBody(contentType, text)} where a JSON-RPC response was expected`,
  )
}

/** Reads events until the answer is there; everything before it belongs to the SDK's client or winds up the clock. */
async function readStream(
  { request, clock, onMessage, onProgress }: HttpCall,
  { body }: Dispatcher.ResponseData,
): Promise<RawResult> {
  let answer: JsonRpcResponse | undefined
  const parser = createParser({
    onEvent({ data }) {
      const message = parseMessage(data)
      if (message === undefined) return
      if (isResponse(message) && message.id === request.id) answer ??= message
      else {
        const progress = progressIn(message)
        if (progress?.token !== request.id) return onMessage(message)
        clock.progress()
        onProgress?.(progress.progress)
      }
    },
  })
  const decoder = new TextDecoder()
  let received = 0
  for await (const chunk of body) {
    received += chunk.length
    if (received > MAX_MESSAGE_BYTES) throw tooLarge()
    parser.feed(decoder.decode(chunk, { stream: true }))
    if (answer) return resultOf(answer)
  }
  throw new ConnectionBroken('the stream ended without an answer')
}

async function readText({ body }: Dispatcher.ResponseData): Promise<string> {
  const chunks: Buffer[] = []
  let received = 0
  for await (const chunk of body) {
    received += chunk.length
    if (received > MAX_MESSAGE_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

const tooLarge = () => new GatewayError('BACKEND_ERROR', `answered with more than ${MAX_MESSAGE_BYTES} bytes`)

const describeBody = (contentType: string, text: string): string =>
  text === ''
    ? 'an empty body'
    : contentType.startsWith('application/json')
      ? 'malformed JSON'
      : contentType.split(';')[0] || 'a body without a content type'
