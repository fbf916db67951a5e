import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { cors } from 'hono/cors'
import { createMiddleware } from 'hono/factory'

/** Requests come with Node's own, whose headers are cheaper to read than the web's. */
interface OverNode {
  readonly Bindings: HttpBindings
}

export const MAX_BODY_BYTES = 4 * 1024 * 1024

const LOOPBACK = new Set(['127.0.0.1', 'localhost', '[::1]'])
const LOCAL_ADDRESS = /^(?:::ffff:)?127\.|^::1$/
const READING = new Set(['GET', 'HEAD', 'OPTIONS'])

export interface GuardOptions {
  /** The gateway's public URL; its host and origin are welcome. */
  readonly resource: URL
  /** Bound to a loopback address: then every loopback name and origin is this machine. */
  readonly isLoopback: boolean
  /** `GATEWAY_ALLOWED_HOSTS`: names without a port. */
  readonly allowedHosts: readonly string[]
  /** `CORS_ORIGINS`. */
  readonly allowedOrigins: readonly string[]
}

export const isLoopbackHost = (host: string): boolean =>
  LOOPBACK.has(host) || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)

/**
 * Refuses requests that a foreign web page could have made this machine send: an unknown Host (DNS rebinding) or an Origin that
 * was not allowed (Streamable HTTP, "Security"). Runs before everything else, on every route.
 */
export function guardOrigin({ resource, isLoopback, allowedHosts, allowedOrigins }: GuardOptions) {
  const hosts = new Set([resource.hostname, ...allowedHosts.map(host => host.toLowerCase())])
  const origins = new Set([resource.origin, ...allowedOrigins])
  // No name that leads here from elsewhere: a page that was rebound brings its own.
  const isOwnHost = (host: string, from: string | undefined) =>
    hosts.has(host) || (isLoopbackHost(host) && (isLoopback || LOCAL_ADDRESS.test(from ?? '')))
  const isAllowedOrigin = (origin: string) =>
    origins.has(origin) ||
    (isLoopback && /^https?:\/\//.test(origin) && isLoopbackHost(hostnameOf(origin.replace(/^https?:\/\//, ''))))
  // What a gateway with a public URL says of itself (RFC 9728, RFC 8414) is for everybody; a local one is nobody else's business.
  const isPublic = !isLoopbackHost(resource.hostname)
  const isForAll = (method: string, path: string) => isPublic && READING.has(method) && path.startsWith('/.well-known/')

  return createMiddleware<OverNode>(async (c, next) => {
    const host = hostnameOf(c.env.incoming.headers.host ?? '')
    if (!isOwnHost(host, c.env.incoming.socket.remoteAddress))
      return c.json(
        {
          error: 'forbidden_host',
          error_description: 'this host name is not one of the gateway (see GATEWAY_ALLOWED_HOSTS)',
        },
        403,
      )
    const { origin } = c.env.incoming.headers
    if (origin !== undefined && !isAllowedOrigin(origin) && !isForAll(c.req.method, c.req.path)) {
      return c.json(
        {
          error: 'forbidden_origin',
          error_description: 'pages of this origin may not use the gateway (see CORS_ORIGINS)',
        },
        403,
      )
    }
    return next()
  })
}

/** `example.com:8080` and `[::1]:8080` without the port, in lower case. */
const hostnameOf = (host: string): string => (/^(\[[^\]]*\]|[^:]*)(?::\d+)?$/.exec(host)?.[1] ?? '').toLowerCase()

const browserAccess = cors({
  origin: origin => origin, // guardOrigin has refused the others
  allowMethods: ['GET', 'POST', 'DELETE', 'OPTIONS'],
  exposeHeaders: ['WWW-Authenticate', 'Mcp-Session-Id', 'Mcp-Protocol-Version', 'Retry-After'],
  maxAge: 600,
})

/** CORS for pages of allowed origins; requests without an Origin, which are nearly all, pass untouched. */
export const allowBrowsers = createMiddleware<OverNode>((c, next) =>
  c.env.incoming.headers.origin === undefined ? next() : browserAccess(c, next),
)

const tooLarge = (c: Context) =>
  c.json(
    {
      jsonrpc: '2.0',
      id: null,
      error: { code: -32600, message: `the request is larger than ${MAX_BODY_BYTES} bytes` },
    },
    413,
  )

const limitStream = bodyLimit({ maxSize: MAX_BODY_BYTES, onError: tooLarge })

/** A declared length is enforced by the HTTP parser, so it is enough to look at it; other bodies are counted as they come. */
export const limitBody = createMiddleware<OverNode>(async (c, next) => {
  const { 'content-length': length, 'transfer-encoding': encoding } = c.env.incoming.headers
  if (length === undefined || encoding !== undefined) return limitStream(c, next)
  return Number(length) > MAX_BODY_BYTES ? tooLarge(c) : next()
})
