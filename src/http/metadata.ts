/** The gateway as clients see it: everything below one public URL, whatever a reverse proxy makes of it (`MCP_RESOURCE_URI`). */
export interface PublicUrls {
  /** `/mcp`, the whole gateway. */
  readonly resource: URL
  /** What comes before `/mcp` and `/servers/…` in the path, if anything does. */
  readonly prefix: string
  /** The endpoint of one server, a resource of its own. */
  serverResource(name: string): string
}

export function toPublicUrls(resource: URL): PublicUrls {
  const prefix = resource.pathname.slice(0, -'/mcp'.length)
  const base = `${resource.origin}${prefix}`
  return { resource, prefix, serverResource: name => `${base}/servers/${encodeURIComponent(name)}/mcp` }
}

const WELL_KNOWN = /^\/\.well-known\/[a-z-]+(?=\/)/

/**
 * The path of a request as the gateway knows it. A proxy may take the prefix off or leave it, and in well-known URLs it stands
 * after the name (RFC 9728, section 3.1; RFC 8414, section 3) or, for clients that append, before it.
 */
export function withoutPrefix(path: string, prefix: string): string {
  if (prefix === '') return path
  const start = WELL_KNOWN.exec(path)?.[0] ?? ''
  const rest = path.slice(start.length)
  return rest === prefix || rest.startsWith(`${prefix}/`) ? `${start}${rest.slice(prefix.length)}` : path
}

/** Well-known path of a protected resource's metadata: inserted between host and path (RFC 9728, section 3.1). */
export function protectedResourceMetadataUrl(resource: string): string {
  const { origin, pathname } = new URL(resource)
  return `${origin}/.well-known/oauth-protected-resource${pathname === '/' ? '' : pathname}`
}

/** RFC 9728, section 2. */
export function protectedResourceMetadata(
  resource: string,
  authorizationServers: readonly string[],
  scopes: readonly string[],
) {
  return {
    resource,
    authorization_servers: authorizationServers,
    bearer_methods_supported: ['header'],
    scopes_supported: scopes,
    resource_name: 'Agent MCP Gateway',
  }
}
