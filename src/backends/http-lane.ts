import type { FetchLike, JSONRPCMessage, JSONRPCRequest } from '@modelcontextprotocol/client'
import { createParser, type EventSourceParser } from 'eventsource-parser'
import { Agent, type Dispatcher, fetch as undiciFetch } from 'undici'
import type { HttpServerConfig } from '../config/servers-file.js'
import { GatewayError } from '../errors/gateway-error.js'
import { type CallClock, ConnectionBroken, type OutgoingCall, type RawResult, SessionLost } from './call.js'
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
      // undici's own fetch and the global one differ in type only. A redirect could lead our headers anywhere: it is an error.
      const options = { ...init, redirect: 'manual', dispatcher: pool } as Parameters<typeof undiciFetch>[1]
      const response = (await undiciFetch(url, options)) as unknown as Response
      if (!response.ok) refusal = Object.fromEntries(response.headers)
      return bounded(response)
    },
  }
}

/** The response with an end: a body, or one event of a stream, may not be larger than a message. */
function bounded(response: Response): Response {
  if (response.body === null) return response
  const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true
  let received = 0
  const meter = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      received += chunk.length
      if (isStream && Buffer.from(chunk).includes('\n\n')) received = 0
      if (received > MAX_MESSAGE_BYTES)
        controller.error(new Error(`answered with more than ${MAX_MESSAGE_BYTES} bytes`))
      else controller.enqueue(chunk)
    },
  })
  const { status, statusText, headers } = response
  return new Response(response.body.pipeThrough(meter), { status, statusText, headers })
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
  return { pool, origin, path: `${pathname}${search}`, headers: { ...ownHeaders(config), ...content }, config }
}

// The protocol's to say; configurations copied from elsewhere often have them.
const NOT_OURS = new Set([
  'content-type',
  'accept',
  'content-length',
  'host',
  'connection',
  'mcp-protocol-version',
  'mcp-session-id',
])

/** The configured headers, in lower case, so that none goes out twice. */
export function ownHeaders({ headers }: HttpServerConfig): Record<string, string> {
  const lowerCased = Object.entries(headers).map(([name, value]): [string, string] => [name.toLowerCase(), value])
  return Object.fromEntries(lowerCased.filter(([name]) => !NOT_OURS.has(name)))
}

/** One message out, and what came beside its answer: notifications and requests, which the SDK's client serves. */
export interface HttpCall {
  readonly request: JSONRPCRequest
  readonly headers: Readonly<Record<string, string>>
  readonly clock: CallClock
  readonly onMessage: (message: JSONRPCMessage) => void
  readonly onProgress: OutgoingCall['onProgress']
}

// How long a stream may stay open after it gave the answer, before its connection is given up.
const LINGER_MS = 1_000

/**
 * The direct lane: one pooled POST, the answer as JSON or as a stream of events (Streamable HTTP, "Sending Messages to the
 * Server"). Rejects with BackendRefusal, SessionLost, Unreachable, ConnectionBroken, the clock's error, or a GatewayError.
 */
export function callOverHttp({ pool, origin, path, headers, config }: HttpTarget, call: HttpCall): Promise<RawResult> {
  return new Promise((resolve, reject) => {
    const answer = new HttpAnswer(config, call, resolve, reject)
    const body = JSON.stringify(call.request)
    pool.dispatch({ origin, path, method: 'POST', headers: { ...headers, ...call.headers }, body }, answer)
  })
}

/** Reads one response as it arrives. undici's own request() would put a stream and an abort signal around it for every call. */
class HttpAnswer implements Dispatcher.DispatchHandler {
  readonly #config: HttpServerConfig
  readonly #call: HttpCall
  readonly #resolve: (result: RawResult) => void
  readonly #reject: (error: Error) => void
  readonly #unsubscribe: () => void
  #controller: Dispatcher.DispatchController | undefined
  #status = 0
  #headers: HeaderFields = {}
  #chunks: Buffer[] = []
  #received = 0
  #events: EventReader | undefined
  #isSettled = false
  #linger: NodeJS.Timeout | undefined

  constructor(
    config: HttpServerConfig,
    call: HttpCall,
    resolve: (result: RawResult) => void,
    reject: (error: Error) => void,
  ) {
    this.#config = config
    this.#call = call
    this.#resolve = resolve
    this.#reject = reject
    this.#unsubscribe = call.clock.onEnd(reason => this.#giveUp(reason))
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    const { ended } = this.#call.clock
    if (ended) this.#giveUp(ended)
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: HeaderFields): void {
    this.#status = status
    this.#headers = headers
    if (status === 200 && contentTypeOf(headers).startsWith('text/event-stream')) {
      this.#events = new EventReader(this.#call, answer => {
        this.#settle(() => resultOf(answer))
        this.#linger = setTimeout(() => this.#controller?.abort(new Error('answered')), LINGER_MS).unref()
      })
    }
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#received += chunk.length
    if (this.#received > MAX_MESSAGE_BYTES) {
      this.#giveUp(new GatewayError('BACKEND_ERROR', `answered with more than ${MAX_MESSAGE_BYTES} bytes`))
    } else if (this.#events) this.#events.read(chunk)
    else this.#chunks.push(chunk)
  }

  onResponseEnd(): void {
    clearTimeout(this.#linger)
    this.#settle(() => {
      if (this.#events) throw new ConnectionBroken('the stream ended without an answer')
      return readBody(this.#config, this.#call, {
        status: this.#status,
        headers: this.#headers,
        text: Buffer.concat(this.#chunks).toString('utf8'),
      })
    })
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    clearTimeout(this.#linger)
    this.#settle(() => {
      throw this.#status === 0
        ? sendFailure(error)
        : new ConnectionBroken(`the connection broke before the answer was complete: ${error.message}`, {
            cause: error,
          })
    })
  }

  #giveUp(reason: Error): void {
    this.#settle(() => {
      throw reason
    })
    this.#controller?.abort(reason)
  }

  #settle(result: () => RawResult): void {
    if (this.#isSettled) return
    this.#isSettled = true
    this.#unsubscribe()
    try {
      this.#resolve(result())
    } catch (error) {
      this.#reject(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

/** Finds the answer in a stream of events; what comes before it belongs to the SDK's client or winds up the clock. */
class EventReader {
  readonly #decoder = new TextDecoder()
  readonly #parser: EventSourceParser

  constructor({ request, clock, onMessage, onProgress }: HttpCall, onAnswer: (answer: JsonRpcResponse) => void) {
    this.#parser = createParser({
      onEvent({ data }) {
        const message = parseMessage(data)
        if (message === undefined) return
        if (isResponse(message)) return message.id === request.id ? onAnswer(message) : onMessage(message)
        const progress = progressIn(message)
        if (progress?.token !== request.id) return onMessage(message)
        clock.progress()
        onProgress?.(progress.progress)
      },
    })
  }

  read(chunk: Buffer): void {
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }))
  }
}

// What these statuses say holds whatever JSON-RPC error comes with them.
const SPEAKS_FOR_ITSELF = new Set([401, 429])

/** The result in a response that is not a stream; throws for everything else. */
function readBody(
  config: HttpServerConfig,
  call: HttpCall,
  { status, headers, text }: { status: number; headers: HeaderFields; text: string },
): RawResult {
  const contentType = contentTypeOf(headers)
  const message = contentType.startsWith('application/json') ? parseMessage(text) : undefined
  const answer = message && isResponse(message) ? message : undefined
  if (status === 200 && answer) return resultOf(answer)
  // Many servers say 400 where the specification says 404. An error without an id was made before the request was looked at.
  if ('mcp-session-id' in call.headers && (status === 404 || (status === 400 && answer?.id == null))) {
    throw new SessionLost(`the server answered HTTP ${status} to a session it has forgotten`)
  }
  if (answer && 'error' in answer && !SPEAKS_FOR_ITSELF.has(status)) return resultOf(answer)
  if (status !== 200) throw statusFailure(status, headers, config)
  throw new GatewayError(
    'BACKEND_ERROR',
    `answered with ${describeBody(contentType, text)} where a JSON-RPC response was expected`,
  )
}

const contentTypeOf = (headers: HeaderFields): string => String(headers['content-type'] ?? '').toLowerCase()

function describeBody(contentType: string, text: string): string {
  if (text === '') return 'an empty body'
  if (contentType.startsWith('application/json')) return 'malformed JSON'
  return contentType.split(';')[0] || 'a body without a content type'
}
