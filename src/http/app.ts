import { type Context, Hono } from 'hono'
import { getPath } from 'hono/utils/url'
import type { JWK } from 'jose'
import { toHttpStatus, toJsonRpcError } from '../errors/faces.js'
import { toGatewayError } from '../errors/gateway-error.js'
import type { Authentication } from '../identity/authentication.js'
import type { MetadataKind } from '../identity/issuer-metadata.js'
import type { TokenVerifier } from '../identity/token-verifier.js'
import type { Logger } from '../observability/logger.js'
import { type DoorWatch, requireBearer } from './bearer.js'
import type { Front } from './front.js'
import { allowBrowsers, type GuardOptions, guardOrigin, limitBody } from './guards.js'
import { createMcpRoutes, type Exchange } from './mcp-routes.js'
import { protectedResourceMetadata, protectedResourceMetadataUrl, toPublicUrls, withoutPrefix } from './metadata.js'

export interface HttpAppOptions extends GuardOptions {
  readonly front: Front
  readonly authentication: Pick<Authentication, 'issuers' | 'verify' | 'judgesAlone' | 'metadata'>
  /** Asked for by name in challenges and metadata. */
  readonly scopes: readonly string[]
  /** Of the embedded issuer. */
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
  const { front, authentication, scopes, jwks, serverInfo, resource, isReady, logger, watch } = options
  const routes = createMcpRoutes({ front, serverInfo, logger, onStranger: watch?.onStranger })
  const { prefix, serverResource } = toPublicUrls(resource)
  const ownIssuer = `${resource.origin}${prefix}`

  const app = new Hono<Exchange>({ getPath: request => withoutPrefix(getPath(request), prefix) })
  app.use(guardOrigin(options), allowBrowsers)

  app.get('/health', c => c.text('OK'))
  app.get('/ready', c => (isReady() ? c.json({ status: 'ready' }) : c.json({ status: 'shutting down' }, 503)))
  const describe = (url: string) => {
    const { issuers } = authentication
    return protectedResourceMetadata(url, issuers.length > 0 ? issuers : [ownIssuer], scopes)
  }
  for (const path of ['', '/mcp']) {
    app.get(`/.well-known/oauth-protected-resource${path}`, c => c.json(describe(resource.href), 200, PUBLIC))
  }
  // For every name: which servers there are is nobody's business who has no token.
  app.get('/.well-known/oauth-protected-resource/servers/:server/mcp', c =>
    c.json(describe(serverResource(c.req.param('server'))), 200, PUBLIC),
  )
  const issuerMetadata = async (c: Context, kind: MetadataKind) => {
    const external = await authentication.metadata(kind)
    if (external) return c.json(external.document, 200, external.isComplete ? PUBLIC : PROVISIONAL)
    const own = {
      issuer: ownIssuer,
      jwks_uri: `${ownIssuer}/.well-known/jwks.json`,
      response_types_supported: [],
      scopes_supported: scopes,
    }
    return c.json(own, 200, PUBLIC)
  }
  for (const kind of ['oauth-authorization-server', 'openid-configuration'] as const) {
    app.get(`/.well-known/${kind}`, c => issuerMetadata(c, kind))
  }
  app.get('/.well-known/jwks.json', c => c.json(jwks, 200, PUBLIC))

  const atMcp = requireBearer({
    verify: authentication.verify,
    judgesAlone: authentication.judgesAlone,
    metadataUrl: protectedResourceMetadataUrl(resource.href),
    scopes,
    watch,
  })
  const atServer = requireBearer(c => {
    const own = serverResource(c.req.param('server') ?? '')
    const verify = (token: string) => authentication.verify(token, own)
    const metadataUrl = protectedResourceMetadataUrl(own)
    return { verify, judgesAlone: authentication.judgesAlone, metadataUrl, scopes, watch }
  })
  app.post('/mcp', atMcp, limitBody, c => routes.post(c, { expose: exposed(c) }))
  app.all('/mcp', atMcp, c => routes.other(c, { expose: exposed(c) }))
  app.post('/servers/:server/mcp', atServer, limitBody, c => routes.post(c, { server: c.req.param('server') }))
  app.all('/servers/:server/mcp', atServer, c => routes.other(c, { server: c.req.param('server') }))

  const forStatus = requireBearer({
    verify: token => options.status.verifier.verify(token),
    metadataUrl: protectedResourceMetadataUrl(resource.href),
    scopes,
    watch,
  })
  app.get('/status', forStatus, c => c.json(options.status.describe()))

  app.notFound(c =>
    c.json({ error: 'not_found', error_description: 'MCP is served under /mcp and /servers/NAME/mcp' }, 404),
  )
  app.onError((thrown, c) => {
    const { incoming } = c.env
    if (incoming.destroyed && !incoming.complete) {
      logger.debug({ path: c.req.path }, 'the client hung up in the middle of its request')
      return c.body(null, 400) // that nobody reads
    }
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

// So that it is asked for again once the issuer answers.
const PROVISIONAL = { 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'no-store' }
const PUBLIC = { 'Access-Control-Allow-Origin': '*', 'Cache-Control': 'public, max-age=300' }
