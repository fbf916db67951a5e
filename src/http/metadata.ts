/** Well-known path of a protected resource's metadata: inserted between host and path (RFC 9728, section 3.1). */
export function protectedResourceMetadataUrl(resource: URL): string {
  const path = resource.pathname === '/' ? '' : resource.pathname
  return `${resource.origin}/.well-known/oauth-protected-resource${path}`
}

/** RFC 9728, section 2. */
export function protectedResourceMetadata(
  resource: URL,
  authorizationServers: readonly string[],
  scopes: readonly string[],
) {
  return {
    resource: resource.href,
    authorization_servers: authorizationServers,
    bearer_methods_supported: ['header'],
    scopes_supported: scopes,
    resource_name: 'Agent MCP Gateway',
  }
}
