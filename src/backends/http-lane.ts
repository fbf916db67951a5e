import type { FetchLike } from '@modelcontextprotocol/client'
import { type Dispatcher, fetch as undiciFetch } from 'undici'
import { openDispatcher } from '../config/proxy.js'
import type { HttpServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { type BackendAuthorization, isRefusal, Unauthorized, withAuthorization } from './authorization.js'
import type { RawResult } from './call.js'
import { HttpAnswer, type HttpCall } from './http-answer.js'
import { type HeaderFields, statusFailure } from './http-failures.js'
import { MAX_MESSAGE_BYTES } from './json-rpc.js'

const CONNECT_TIMEOUT_MS = 10_000
const KEEP_ALIVE_MS = 30_000
const MAX_CONNECTIONS = 128

/** The keep-alive connections to one backend. Times are ours to keep (CallClock), so undici has none but for connecting. */
export const openPool = (url: string, env: Env): Dispatcher =>
  openDispatcher(
    url,
    {
      connections: MAX_CONNECTIONS,
      connect: { timeout: CONNECT_TIMEOUT_MS },
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: 0,
      bodyTimeout: 0,
    },
    env,
  )

/** How one backend is reached. */
export interface Route {
  readonly pool: Dispatcher
  readonly config: HttpServerConfig
  /** Absent for a server that brings its own Authorization header, or wants no OAuth. */
  readonly authorization: BackendAuthorization | undefined
}

/** The SDK's transports over the same route, and the headers of the last response that refused something. */
export function fetchOver({ pool, authorization, config }: Route): {
  fetch: FetchLike
  lastRefusal: () => HeaderFields
} {
  let refusal: HeaderFields = {}
  const send = async (url: string | URL, init: RequestInit | undefined, headers: Headers) => {
    // undici's own fetch and the global one differ in type only. A redirect could lead our headers anywhere: it is an error.
    const options = { ...init, headers, redirect: 'manual', dispatcher: pool } as unknown as UndiciInit
    const response = (await undiciFetch(url, options)) as unknown as Response
    if (!response.ok) refusal = Object.fromEntries(response.headers)
    const challenge = response.headers.get('www-authenticate') ?? undefined
    if (authorization && isRefusal(response.status, challenge)) {
      await response.body?.cancel()
      throw new Unauthorized(response.status, challenge, statusFailure(response.status, refusal, config))
    }
    return bounded(response)
  }
  return {
    lastRefusal: () => refusal,
    fetch(url, init) {
      if (!authorization) return send(url, init, new Headers(init?.headers))
      return withAuthorization(authorization, added => {
        const headers = new Headers(init?.headers)
        for (const [name, value] of Object.entries(added)) headers.set(name, value)
        return send(url, init, headers)
      })
    },
  }
}

type UndiciInit = Parameters<typeof undiciFetch>[1]

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
export interface HttpTarget extends Route {
  readonly origin: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
}

export function toHttpTarget(route: Route): HttpTarget {
  const { origin, pathname, search } = new URL(route.config.url)
  const content = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' }
  return { ...route, origin, path: `${pathname}${search}`, headers: { ...ownHeaders(route.config), ...content } }
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

/**
 * The direct lane: one pooled POST, the answer as JSON or as a stream of events (Streamable HTTP, "Sending Messages to the
 * Server"). Rejects with BackendRefusal, SessionLost, Unreachable, ConnectionBroken, the clock's error, or a GatewayError.
 */
export function callOverHttp(target: HttpTarget, call: HttpCall): Promise<RawResult> {
  const { pool, origin, path, config, authorization } = target
  const body = JSON.stringify(call.request)
  const send = (added: Readonly<Record<string, string>>): Promise<RawResult> =>
    new Promise((resolve, reject) => {
      const answer = new HttpAnswer(config, call, resolve, reject)
      const headers = { ...target.headers, ...call.headers, ...added }
      if (call.resumeAfter === undefined) pool.dispatch({ origin, path, method: 'POST', headers, body }, answer)
      else pool.dispatch({ origin, path, method: 'GET', headers: asResumption(headers, call.resumeAfter) }, answer)
    })
  if (authorization) return withAuthorization(authorization, send, needed => call.clock.wait(needed))
  return send({}).catch(error => {
    throw error instanceof Unauthorized ? error.failure : error
  })
}

const asResumption = (
  { 'content-type': _, ...headers }: Readonly<Record<string, string>>,
  eventId: string,
): Record<string, string> => ({ ...headers, accept: 'text/event-stream', 'last-event-id': eventId })
