import { z } from 'zod'
import type { HttpServerConfig } from '../config/servers-file.js'
import { GatewayError } from '../errors/gateway-error.js'
import { parseJson } from '../json.js'
import type { GuardedFetch } from './guarded-fetch.js'
import { quoted } from './quoted.js'

const ProtectedResource = z.looseObject({
  resource: z.string(),
  authorization_servers: z.array(z.string().min(1)).optional(),
  scopes_supported: z.array(z.string()).optional().catch(undefined),
})

/** What a protected resource says about itself (RFC 9728, section 2). */
export type ProtectedResource = Readonly<z.infer<typeof ProtectedResource>>

/**
 * The metadata of the server as a protected resource: where its challenge points, else at the well-known URL of its path, else
 * at the root one. Undefined when there is none. Throws LOGIN_FAILED when it describes another resource.
 */
export async function findResourceMetadata(
  config: HttpServerConfig,
  challenged: string | undefined,
  fetch: GuardedFetch,
): Promise<ProtectedResource | undefined> {
  const server = new URL(config.url)
  const root = new URL('/.well-known/oauth-protected-resource', server)
  const named = challenged === undefined ? undefined : resolve(challenged, server)
  const inserted = new URL(`${root.pathname}${server.pathname === '/' ? '' : server.pathname}${server.search}`, server)
  const places = [...new Set([named, inserted.href, root.href])].filter(place => place !== undefined)
  for (const place of places) {
    const document = await readDocument(place, fetch)
    if (!document) continue
    // The root document describes the origin; a server may also use it for the one endpoint it has.
    const described = place === root.href ? [server.href, `${server.origin}/`] : [server.href]
    checkResource(document, place, { config, described })
    return document
  }
  return undefined
}

function resolve(location: string, server: URL): string {
  if (URL.canParse(location, server.href)) return new URL(location, server).href
  throw new GatewayError('LOGIN_FAILED', `resource_metadata is not a URL: ${quoted(location)}`)
}

async function readDocument(url: string, fetch: GuardedFetch): Promise<ProtectedResource | undefined> {
  const response = await fetch(url)
  if (response.status >= 500) {
    throw new GatewayError('SERVER_UNAVAILABLE', `${url} answered HTTP ${response.status}`)
  }
  if (response.status !== 200) return undefined
  const parsed = ProtectedResource.safeParse(parseJson(await response.text())?.value)
  return parsed.data
}

/** RFC 9728, section 3.3: metadata of another resource must not be used. */
function checkResource(
  { resource }: ProtectedResource,
  place: string,
  { config, described }: { config: HttpServerConfig; described: readonly string[] },
): void {
  const { oauth } = config
  const configured = oauth === false ? undefined : oauth.resource
  const expected = typeof configured === 'string' ? [new URL(configured).href] : described
  // It goes out as it is written, so it has to be written plainly.
  const named = /^[\x21-\x7e]+$/.test(resource) && URL.canParse(resource) ? new URL(resource) : undefined
  if (named && expected.includes(named.href)) return
  // Never advised for another origin: a token for that one is just what a hostile server would like to be sent.
  const advice =
    named?.origin === new URL(config.url).origin
      ? `: if it is right, set "oauth": { "resource": ${quoted(resource)} } for this server`
      : ''
  throw new GatewayError(
    'LOGIN_FAILED',
    `${place} describes the resource ${quoted(resource)}, expected ${quoted(configured || config.url)}${advice}`,
  )
}
