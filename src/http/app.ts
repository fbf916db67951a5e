import type { HttpBindings } from '@hono/node-server'
import { createMcpHandler, type McpServerFactory } from '@modelcontextprotocol/server'
import { Hono } from 'hono'
import type { JWK } from 'jose'
import { toHttpStatus, toJsonRpcError } from '../errors/faces.js'
import { toGatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import type { TokenVerifier } from '../identity/token-verifier.js'
import { parseJson } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { type Authenticated, requireBearer, toAuthInfo } from './bearer.js'
import { readDirectCall, toDirectResponse } from './direct-lane.js'
import { allowBrowsers, type GuardOptions, guardOrigin, limitBody } from './guards.js'
import { protectedResourceMetadata, protectedResourceMetadataUrl } from './metadata.js'

/** Asked of every token by name in challenges and metadata. */
const SCOPES = ['mcp']

/** Calls one of the gateway's tools without the SDK. Never rejects. */
export interface ToolLane {
  has(name: string): boolean
  call(name: string, args: unknown, caller: ToolLaneCaller): Promise<Readonly<Record<string, unknown>>>
}

export interface ToolLaneCaller {
  readonly principal: Principal
  readonly era: 'legacy' | 'modern'
  readonly signal?: Cancellation | undefined
  readonly meta?: Readonly<Record<string, unknown>> | undefined
}

export interface HttpAppOptions extends GuardOptions {
  readonly factory: McpServerFactory
  readonly lane: ToolLane
  readonly verifier: TokenVerifier
  readonly jwks: { readonly keys: readonly JWK[] }
  readonly serverInfo: Readonly<Record<string, unknown>>
  readonly isReady: () => boolean
  readonly logger: Logger
}

/** What a request brings along: the sockets of Node's server, and the token once it is verified. */
type Front = Authenticated & { readonly Bindings: HttpBindings }

export interface HttpApp {
  readonly fetch: Hono<Front>['fetch']
  close(): Promise<void>
}

/** The front door over HTTP (DESIGN section 4): guards, then the token, then the message. */
export function createHttpApp(options: HttpAppOptions): HttpApp {
  const { factory, lane, verifier, jwks, serverInfo, resource, isReady, logger } = options
  const mcp = createMcpHandler(factory, {
    onerror: error => logger.debug({ reason: error.message }, 'request refused by the protocol layer'),
  })
  const authenticated = requireBearer({ verifier, metadataUrl: protectedResourceMetadataUrl(resource), scopes: SCOPES })
  const resourceMetadata = protectedResourceMetadata(resource, [resource.origin], SCOPES)
  const issuerMetadata = {
    issuer: resource.origin,
    jwks_uri: `${resource.origin}/.well-known/jwks.json`,
    response_types_supported: [],
    scopes_supported: SCOPES,
  }

  const app = new Hono<Front>()
  app.use(guardOrigin(options), allowBrowsers)

  app.get('/health', c => c.text('OK'))
  app.get('/ready', c => (isReady() ? c.json({ status: 'ready' }) : c.json({ status: 'shutting down' }, 503)))
  for (const path of new Set(['', '/mcp', resource.pathname])) {
    app.get(`/.well-known/oauth-protected-resource${path}`, c => c.json(resourceMetadata, 200, PUBLIC))
  }
  app.get('/.well-known/oauth-authorization-server', c => c.json(issuerMetadata, 200, PUBLIC))
  app.get('/.well-known/openid-configuration', c => c.json(issuerMetadata, 200, PUBLIC))
  app.get('/.well-known/jwks.json', c => c.json(jwks, 200, PUBLIC))

  app.post('/mcp', authenticated, limitBody, async c => {
    const parsed = parseJson(await c.req.text())
    if (parsed === undefined)
      return c.json(
        {
          jsonrpc: '2.0',
          id: null,
          error: { code: -32700, message: 'Parse error: the request body is not valid JSON' },
        },
        400,
      )
    const token = c.get('token')
    const call = readDirectCall(parsed.value, c.env.incoming.headers)
    if (call && lane.has(call.name)) {
      // A client of 2025 that hangs up has not cancelled; one of 2026 has ("Cancellation").
      const signal = call.era === 'modern' ? new HangUp(c.env) : undefined
      const result = await lane.call(call.name, call.args, {
        principal: token.principal,
        era: call.era,
        signal,
        meta: call.meta,
      })
      return new Response(toDirectResponse(call, result, serverInfo), JSON_CONTENT)
    }
    return mcp.fetch(c.req.raw, { authInfo: toAuthInfo(token), parsedBody: parsed.value })
  })
  app.all('/mcp', authenticated, c => mcp.fetch(c.req.raw, { authInfo: toAuthInfo(c.get('token')) }))

  app.notFound(c => c.json({ error: 'not_found', error_description: 'MCP is served under /mcp' }, 404))
  app.onError((thrown, c) => {
    const error = toGatewayError(thrown)
    logger.error({ err: error.cause ?? error, path: c.req.path }, 'request failed')
    return c.json({ jsonrpc: '2.0', id: null, error: toJsonRpcError(error) }, toHttpStatus(error))
  })
  return { fetch: app.fetch, close: () => mcp.close() }
}

/** The parts of an AbortSignal that a call needs. */
type Cancellation = Pick<AbortSignal, 'aborted'> & {
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
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

// A plain Response with plain headers goes to the socket without a web Headers object in between.
const JSON_CONTENT = { headers: { 'content-type': 'application/json' } }
const PUBLIC = { 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'public, max-age=300' }
