import type { JSONRPCMessage, JSONRPCRequest } from '@modelcontextprotocol/client'
import { createParser, type EventSourceParser } from 'eventsource-parser'
import type { Dispatcher } from 'undici'
import type { HttpServerConfig } from '../config/servers-file.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isRefusal, Unauthorized } from './authorization.js'
import {
  type CallClock,
  ConnectionBroken,
  type OutgoingRequest,
  type RawResult,
  SessionLost,
  type StreamPosition,
} from './call.js'
import { type HeaderFields, sendFailure, statusFailure } from './http-failures.js'
import { isResponse, type JsonRpcResponse, MAX_MESSAGE_BYTES, parseMessage, progressIn, resultOf } from './json-rpc.js'

// How long a stream may stay open after it gave the answer, before its connection is given up.
const LINGER_MS = 1_000

/** One message out, and what came beside its answer: notifications and requests, which the SDK's client serves. */
export interface HttpCall {
  readonly request: JSONRPCRequest
  readonly headers: Readonly<Record<string, string>>
  readonly clock: CallClock
  readonly onMessage: (message: JSONRPCMessage) => void
  readonly onProgress: OutgoingRequest['onProgress']
  /** The request was sent before, and its stream broke off after this event: what is left of it is asked for. */
  readonly resumeAfter?: string | undefined
}

/** Reads one response as it arrives. undici's own request() would put a stream and an abort signal around it for every call. */
export class HttpAnswer implements Dispatcher.DispatchHandler {
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
      if (this.#events) throw this.#broken('the stream ended without an answer')
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
        : this.#broken(`the connection broke before the answer was complete: ${error.message}`, error)
    })
  }

  #broken(message: string, cause?: Error): ConnectionBroken {
    const broken = new ConnectionBroken(message, { cause })
    broken.position = this.#events?.position
    return broken
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
  #eventId: string | undefined
  #retryMs: number | undefined

  constructor({ request, clock, onMessage, onProgress }: HttpCall, onAnswer: (answer: JsonRpcResponse) => void) {
    this.#parser = createParser({
      onRetry: retryMs => {
        this.#retryMs = retryMs
      },
      onEvent: ({ data, id }) => {
        if (id) this.#eventId = id
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

  /** How far the stream has come, if its server numbers events so that it can be taken up again. */
  get position(): StreamPosition | undefined {
    return this.#eventId === undefined ? undefined : { eventId: this.#eventId, retryMs: this.#retryMs }
  }

  read(chunk: Buffer): void {
    this.#parser.feed(this.#decoder.decode(chunk, { stream: true }))
  }
}

// What this status says holds whatever JSON-RPC error comes with it.
const SPEAKS_FOR_ITSELF = 429

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
  const challenge = headers['www-authenticate']?.toString()
  if (isRefusal(status, challenge)) throw new Unauthorized(status, challenge, statusFailure(status, headers, config))
  // Many servers say 400 where the specification says 404. An error without an id was made before the request was looked at.
  if ('mcp-session-id' in call.headers && (status === 404 || (status === 400 && answer?.id == null))) {
    throw new SessionLost(`the server answered HTTP ${status} to a session it has forgotten`)
  }
  if (answer && 'error' in answer && status !== SPEAKS_FOR_ITSELF) return resultOf(answer)
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
