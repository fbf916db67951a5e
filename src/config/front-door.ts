import { GatewayError } from '../errors/gateway-error.js'

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
