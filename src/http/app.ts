import { type Context, Hono } from 'hono'
import type { JWK } from 'jose'
import { toHttpStatus, toJsonRpcError } from '../errors/faces.js'
import { toGatewayError } from '../errors/gateway-error.js'
import type { TokenVerifier } from '../identity/token-verifier.js'
import type { Logger } from '../observability/logger.js'
import { type DoorWatch, requireBearer } from './bearer.js'
import type { Front } from './front.js'
import { allowBrowsers, type GuardOptions, guardOrigin, limitBody } from './guards.js'
import { createMcpRoutes, type Exchange } from './mcp-routes.js'
import { protectedResourceMetadata, protectedResourceMetadataUrl } from './metadata.js'

/** Asked of every token by name in challenges and metadata. */
const SCOPES = ['mcp']

export interface HttpAppOptions extends GuardOptions {
  readonly front: Front
  /** For `/mcp`, and for the endpoint of one server. */
  readonly verifierFor: (server: string | undefined) => TokenVerifier
  readonly jwks: { readonly keys: readonly JWK[] }
  readonly serverInfo: Readonly<Record<string, unknown>>
  readonly isReady: () => boolean
  /** How the gateway is, for `gateway status`; only with a token for that. */
  readonly status: { readonly verifier: TokenVerifier; readonly describe: () => object }
  readonly logger: Logger
  readonly watch?: DoorWatch | undefined
}

export interface HttpApp {
  readonly fetch: Hono<Exchange>['fetch']
  readonly sessions: number
  close(): Promise<void>
}

/** The front door over HTTP (DESIGN section 4): guards, then the token, then the message. */
export function createHttpApp(options: HttpAppOptions): HttpApp {
  const { front, verifierFor, jwks, serverInfo, resource, isReady, logger, watch } = options
  const routes = createMcpRoutes({ front, serverInfo, logger })
  const serverResource = (name: string) => new URL(`/servers/${encodeURIComponent(name)}/mcp`, resource)
  const issuerMetadata = {
    issuer: resource.origin,
    jwks_uri: `${resource.origin}/.well-known/jwks.json`,
    response_types_supported: [],
    scopes_supported: SCOPES,
  }

  const app = new Hono<Exchange>()
  app.use(guardOrigin(options), allowBrowsers)

  app.get('/health', c => c.text('OK'))
  app.get('/ready', c => (isReady() ? c.json({ status: 'ready' }) : c.json({ status: 'shutting down' }, 503)))
  const metadata = protectedResourceMetadata(resource, [resource.origin], SCOPES)
  for (const path of new Set(['', '/mcp', resource.pathname])) {
    app.get(`/.well-known/oauth-protected-resource${path}`, c => c.json(metadata, 200, PUBLIC))
  }
  // For every name: which servers there are is nobody's business who has no token.
  app.get('/.well-known/oauth-protected-resource/servers/:server/mcp', c => {
    const own = protectedResourceMetadata(serverResource(c.req.param('server')), [resource.origin], SCOPES)
    return c.json(own, 200, PUBLIC)
  })
  app.get('/.well-known/oauth-authorization-server', c => c.json(issuerMetadata, 200, PUBLIC))
  app.get('/.well-known/openid-configuration', c => c.json(issuerMetadata, 200, PUBLIC))
  app.get('/.well-known/jwks.json', c => c.json(jwks, 200, PUBLIC))

  const atMcp = requireBearer({
    verifier: () => verifierFor(undefined),
    metadataUrl: protectedResourceMetadataUrl(resource),
    scopes: SCOPES,
    watch,
  })
  const atServer = requireBearer(c => {
    const server = c.req.param('server') ?? ''
    const metadataUrl = protectedResourceMetadataUrl(serverResource(server))
    return { verifier: () => verifierFor(server), metadataUrl, scopes: SCOPES, watch }
  })
  app.post('/mcp', atMcp, limitBody, c => routes.post(c, { expose: exposed(c) }))
  app.all('/mcp', atMcp, c => routes.other(c, { expose: exposed(c) }))
  app.post('/servers/:server/mcp', atServer, limitBody, c => routes.post(c, { server: c.req.param('server') }))
  app.all('/servers/:server/mcp', atServer, c => routes.other(c, { server: c.req.param('server') }))

  const forStatus = requireBearer({
    verifier: () => options.status.verifier,
    metadataUrl: protectedResourceMetadataUrl(resource),
    scopes: SCOPES,
    watch,
  })
  app.get('/status', forStatus, c => c.json(options.status.describe()))

  app.notFound(c =>
    c.json({ error: 'not_found', error_description: 'MCP is served under /mcp and /servers/NAME/mcp' }, 404),
  )
  app.onError((thrown, c) => {
    const error = toGatewayError(thrown)
    logger.error({ err: error.cause ?? error, path: c.req.path }, 'request failed')
    return c.json({ jsonrpc: '2.0', id: null, error: toJsonRpcError(error) }, toHttpStatus(error))
  })
  return {
    fetch: app.fetch,
    get sessions() {
      return routes.sessions
    },
    close: () => routes.close(),
  }
}

/** `/mcp?expose=direct`, for clients whose rules nobody wants to touch. */
const exposed = (c: Context): 'direct' | undefined => (c.req.query('expose') === 'direct' ? 'direct' : undefined)

const PUBLIC = { 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'public, max-age=300' }
