import type { IncomingHttpHeaders } from 'node:http'
import type { HttpBindings } from '@hono/node-server'
import { createMcpHandler, isLegacyRequest } from '@modelcontextprotocol/server'
import type { Context } from 'hono'
import { LRUCache } from 'lru-cache'
import { toHttpStatus, toJsonRpcError } from '../errors/faces.js'
import type { Principal } from '../identity/principal.js'
import { isJsonObject, isTooDeep, type JsonObject, parseJson } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { traceFieldsIn } from '../observability/trace-context.js'
import { type Authenticated, insufficientScope, toAuthInfo } from './bearer.js'
import { type DirectCall, readDirectCall, statusOf, toDirectResponse } from './direct-lane.js'
import type { Cancellation, Entry, Front, LackingScopes } from './front.js'
import { Sessions } from './sessions.js'
import { withEnds } from './streams.js'
import { Subscriptions } from './subscriptions.js'

/** What a request brings along: the sockets of Node's server, and the token once it is verified. */
export type Exchange = Authenticated

export interface McpRoutesOptions {
  readonly front: Front
  readonly serverInfo: JsonObject
  readonly logger: Logger
  /** Hears of somebody who names the session of somebody else. */
  readonly onStranger?: ((principal: Principal) => void) | undefined
}

export interface McpRoutes {
  post(c: Context<Exchange>, entry: Entry): Promise<Response>
  /** GET and DELETE, and what is neither. */
  other(c: Context<Exchange>, entry: Entry): Promise<Response>
  /** Sessions of clients of 2025. */
  readonly sessions: number
  close(): Promise<void>
}

const HEADER_MISMATCH = -32020
/** What a client says about itself is kept as long as its session. */
const MAX_INITIALIZE = 64 * 1024
/** Messages at once (2025-03-26). */
const MAX_BATCH = 100
const LOG_LEVEL = 'io.modelcontextprotocol/logLevel'
// Handlers are small; one for each door that is in use.
const MAX_DOORS = 1_000

/** Streamable HTTP, both eras on one URL (DESIGN section 4), behind any door. */
export function createMcpRoutes({ front, serverInfo, logger, onStranger }: McpRoutesOptions): McpRoutes {
  const sessions = new Sessions({ front, logger, onStranger })
  const subscriptions = new Subscriptions(front, logger)
  const handlers = new LRUCache<string, ReturnType<typeof createMcpHandler>>({ max: MAX_DOORS })

  /** `streams`: from the start, so that a long silence is no idle connection to whoever is in between. */
  function handlerFor(entry: Entry, streams = false) {
    const key = JSON.stringify([entry, streams])
    const known = handlers.get(key)
    if (known) return known
    const created = createMcpHandler(context => front.createServer(entry, context), {
      responseMode: streams ? 'sse' : 'auto',
      onerror: error => logger.debug({ reason: error.message }, 'request refused by the protocol layer'),
    })
    handlers.set(key, created)
    return created
  }

  async function callPlainly(c: Context<Exchange>, entry: Entry, call: DirectCall): Promise<Response> {
    // A client of 2025 that hangs up has not cancelled; one of 2026 has ("Cancellation").
    const signal = call.era === 'modern' ? new HangUp(c.env) : undefined
    const { principal } = c.get('token')
    const { headers } = c.env.incoming
    const transportTrace = headers.traceparent === undefined ? undefined : traceFieldsIn(name => headers[name])
    const { era, meta } = call
    const outcome = await front.callPlainly(entry, call, { principal, era, signal, meta, transportTrace })
    return new Response(toDirectResponse(call, outcome, serverInfo), { status: statusOf(outcome), ...JSON_CONTENT })
  }

  return {
    async post(c, entry) {
      const text = await c.req.text()
      const parsed = parseJson(text)
      if (parsed === undefined) return c.json(isTooDeep(text) ? tooDeep : notJson, 400)
      if (Array.isArray(parsed.value)) {
        if (parsed.value.length > MAX_BATCH) return c.json(tooMany, 400)
        if (parsed.value.some(isInitialize)) return c.json(inBatch, 400)
      }
      const token = c.get('token')
      const refusal = front.refusal(entry, token.principal)
      if (refusal) return refused(refusal, idOf(parsed.value))
      const lacking = await lackingScopes(parsed.value, call =>
        front.lackingScopes(entry, call, { principal: token.principal, era: 'modern' }),
      )
      if (lacking) return insufficientScope(c.get('challenge'), lacking)
      const { headers } = c.env.incoming
      const body = isJsonObject(parsed.value) ? parsed.value : undefined
      if (body?.method === 'tools/call' && headers['mcp-method'] !== undefined) {
        const problem = await wrongHeaders(body, headers, (call, header) =>
          front.headerProblem(entry, call, header, { principal: token.principal, era: 'modern' }),
        )
        if (problem !== undefined) return c.json(mismatch(problem, idOf(body)), 400)
      }
      if (body?.method === 'initialize' && text.length > MAX_INITIALIZE) return c.json(tooLong(idOf(body)), 413)
      const call = readDirectCall(parsed.value, headers)
      if (call) return callPlainly(c, entry, call)

      const request = c.req.raw
      const asked = { request, entry, token, recheck: c.get('recheck'), parsedBody: parsed.value }
      const session = headers['mcp-session-id']?.toString()
      if (session !== undefined || body?.method === 'initialize') {
        if (await isLegacyRequest(request, parsed.value))
          return session === undefined ? sessions.begin(asked) : sessions.answer(session, asked)
      }
      if (body?.method === 'subscriptions/listen' && !(await isLegacyRequest(request, body)))
        return subscriptions.listen({ ...asked, parsedBody: body })
      const options = { authInfo: toAuthInfo(token), parsedBody: parsed.value }
      const response = await handlerFor(entry, wantsNews(body)).fetch(request, options)
      const isStream = response.headers.get('content-type')?.startsWith('text/event-stream')
      return isStream ? withEnds(response, { onEnd: () => {} }) : response
    },

    async other(c, entry) {
      const token = c.get('token')
      const refusal = front.refusal(entry, token.principal)
      if (refusal) return refused(refusal, null)
      const session = c.req.header('mcp-session-id')
      const request = c.req.raw
      if (session !== undefined) return sessions.answer(session, { request, entry, token, recheck: c.get('recheck') })
      return handlerFor(entry).fetch(request, { authInfo: toAuthInfo(token) })
    },

    get sessions() {
      return sessions.size
    },

    async close() {
      await Promise.allSettled([sessions.close(), subscriptions.close()])
      await Promise.allSettled([...handlers.values()].map(handler => handler.close()))
    },
  }
}

/** Asked before anything of an answer is sent, and for all calls of a batch at once. */
function lackingScopes(
  body: unknown,
  ask: (call: { name: string; args: unknown }) => Promise<LackingScopes | undefined> | undefined,
): Promise<LackingScopes | undefined> | undefined {
  const asked = (Array.isArray(body) ? body : [body]).flatMap((message: unknown) => {
    const { method, params } = isJsonObject(message) ? message : {}
    if (method !== 'tools/call' || !isJsonObject(params) || typeof params.name !== 'string') return []
    return ask({ name: params.name, args: params.arguments }) ?? []
  })
  return asked.length === 0 ? undefined : Promise.all(asked).then(together)
}

function together(all: readonly (LackingScopes | undefined)[]): LackingScopes | undefined {
  const lacking = all.filter(each => each !== undefined)
  if (lacking.length < 2) return lacking[0]
  return {
    required: [...new Set(lacking.flatMap(({ required }) => required))],
    missing: [...new Set(lacking.flatMap(({ missing }) => missing))],
  }
}

/** Headers that repeat parameters, which the SDK checks only where it has the tools itself. */
async function wrongHeaders(
  { params }: JsonObject,
  headers: IncomingHttpHeaders,
  check: (
    call: { name: string; args: JsonObject },
    header: (name: string) => string | undefined,
  ) => Promise<string | undefined>,
): Promise<string | undefined> {
  if (!isJsonObject(params) || typeof params.name !== 'string') return undefined
  const args = isJsonObject(params.arguments) ? params.arguments : {}
  return check({ name: params.name, args }, name => headers[name]?.toString())
}

/** True for a request that something may be said about before its answer. */
function wantsNews(body: JsonObject | undefined): boolean {
  const { _meta: meta } = isJsonObject(body?.params) ? body.params : {}
  return isJsonObject(meta) && ('progressToken' in meta || LOG_LEVEL in meta)
}

const isInitialize = (message: unknown): boolean => isJsonObject(message) && message.method === 'initialize'

const idOf = (body: unknown): unknown => (isJsonObject(body) ? (body.id ?? null) : null)

const mismatch = (problem: string, id: unknown) => ({
  jsonrpc: '2.0',
  id,
  error: { code: HEADER_MISMATCH, message: `Bad Request: the request headers and body disagree: ${problem}` },
})

const tooLong = (id: unknown) => ({
  jsonrpc: '2.0',
  id,
  error: { code: -32600, message: `Invalid Request: an initialize has at most ${MAX_INITIALIZE} characters` },
})

/** A server that is not there and one that the caller may not use are the same to it. */
function refused(error: Parameters<typeof toJsonRpcError>[0], id: unknown): Response {
  const status = error.code === 'DENIED_BY_POLICY' ? 404 : toHttpStatus(error)
  return Response.json({ jsonrpc: '2.0', id, error: toJsonRpcError(error) }, { status })
}

/** The client hanging up, straight from the socket: the request's own signal would cost an AbortController a call. */
class HangUp implements Cancellation {
  readonly #outgoing: HttpBindings['outgoing']

  constructor({ outgoing }: HttpBindings) {
    this.#outgoing = outgoing
  }

  get aborted(): boolean {
    return this.#outgoing.destroyed
  }

  addEventListener(_type: 'abort', listener: () => void): void {
    this.#outgoing.once('close', listener)
  }

  removeEventListener(_type: 'abort', listener: () => void): void {
    this.#outgoing.off('close', listener)
  }
}

const notJson = {
  jsonrpc: '2.0',
  id: null,
  error: { code: -32700, message: 'Parse error: the request body is not valid JSON' },
} as const

const tooMany = {
  jsonrpc: '2.0',
  id: null,
  error: { code: -32600, message: `Invalid Request: a batch has at most ${MAX_BATCH} messages` },
} as const

// 2025-03-26, "Initialization".
const inBatch = {
  jsonrpc: '2.0',
  id: null,
  error: { code: -32600, message: 'Invalid Request: an initialize is no part of a batch' },
} as const

const tooDeep = {
  jsonrpc: '2.0',
  id: null,
  error: { code: -32600, message: 'Invalid Request: the request body is nested more than 1000 levels deep' },
} as const

// A plain Response with plain headers goes to the socket without a web Headers object in between.
const JSON_CONTENT = { headers: { 'content-type': 'application/json' } }
