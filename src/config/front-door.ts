import { GatewayError } from '../errors/gateway-error.js'
import type { IssuerConfig } from './identity-config.js'
import type { Env } from './variables.js'

/** `MCP_SERVER_PORT`; 8080 when it is not set. Throws CONFIG_INVALID. */
export function readPort(text: string | undefined): number {
  const port = text === undefined || text === '' ? 8080 : Number(text)
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port
  throw new GatewayError('CONFIG_INVALID', `MCP_SERVER_PORT is "${text}", expected a port from 0 to 65535`)
}

/** `MCP_RESOURCE_URI`, the gateway's public URL, if it has one. Throws CONFIG_INVALID. */
export function readResource(text: string | undefined): URL | undefined {
  if (text === undefined || text === '') return undefined
  if (URL.canParse(text) && /^https?:\/\//.test(text) && /^[^#?]+\/mcp$/.test(text)) return new URL(text)
  throw new GatewayError(
    'CONFIG_INVALID',
    `MCP_RESOURCE_URI is "${text}", expected the public URL including /mcp, for example https://gateway.example.com/mcp`,
  )
}

/**
 * The issuer that the environment names: `OAUTH_GATEWAY_URL` says where it is, `OAUTH_ISSUER` what its tokens call it, when that is
 * something else. Throws CONFIG_INVALID.
 */
export function readIssuer(env: Env): IssuerConfig | undefined {
  const url = readUrl(env, 'OAUTH_GATEWAY_URL')
  const jwksUri = readUrl(env, 'OAUTH_JWKS_URI')
  const issuer = env.OAUTH_ISSUER || url
  if (issuer !== undefined) return { issuer, url, jwksUri }
  if (jwksUri === undefined) return undefined
  throw new GatewayError(
    'CONFIG_INVALID',
    'OAUTH_JWKS_URI is set, but not whose keys they are: set OAUTH_ISSUER to the "iss" of the tokens',
  )
}

function readUrl(env: Env, name: string): string | undefined {
  const text = env[name]
  if (text === undefined || text === '') return undefined
  if (URL.canParse(text) && /^https?:\/\//.test(text)) return text
  throw new GatewayError('CONFIG_INVALID', `${name} is "${text}", expected an http: or https: URL`)
}

/** `OAUTH_SCOPES`: what clients are told to ask the issuer for. */
export const readScopes = (env: Env): readonly string[] => {
  const scopes = (env.OAUTH_SCOPES ?? '').split(/[\s,]+/).filter(scope => scope !== '')
  return scopes.length > 0 ? scopes : ['mcp']
}
