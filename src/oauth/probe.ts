import { fetch } from 'undici'
import type { HttpServerConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { type BearerChallenge, parseChallenge } from './challenge.js'

const TIMEOUT_MS = 15_000
const PROTOCOL_VERSION = '2026-07-28'

export interface Probe {
  /** True when the server wants a login for what anybody would ask first. */
  readonly wantsLogin: boolean
  readonly challenge: BearerChallenge
}

/**
 * Asks the server what the gateway itself asks first, without credentials to hear its challenge, or with a token to hear whether it
 * takes it. Throws SERVER_UNAVAILABLE.
 */
export async function probe(config: HttpServerConfig, token?: string): Promise<Probe> {
  const { name, url, transport } = config
  const headers = { ...config.headers, ...(token !== undefined && { authorization: `Bearer ${token}` }) }
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  const response = await fetch(url, { ...firstRequest(transport, headers), signal }).catch(error => {
    const reason = messageOf(error.cause ?? error)
    throw new GatewayError('SERVER_UNAVAILABLE', `the server "${name}" cannot be reached: ${reason}`, { cause: error })
  })
  await response.body?.cancel().catch(() => {})
  const challenge = await parseChallenge(response.headers.get('www-authenticate') ?? undefined)
  return { wantsLogin: response.status === 401, challenge }
}

/** What the gateway itself asks first, the way the transport wants it; redirects are answers. */
export const firstRequest = (transport: HttpServerConfig['transport'], headers: Readonly<Record<string, string>>) => ({
  redirect: 'manual' as const,
  ...(transport === 'sse' ? { headers: { ...headers, accept: 'text/event-stream' } } : discoverRequest(headers)),
})

const discoverRequest = (headers: Readonly<Record<string, string>>) => ({
  method: 'POST',
  headers: {
    ...headers,
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
    'mcp-protocol-version': PROTOCOL_VERSION,
    'mcp-method': 'server/discover',
  },
  body: JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method: 'server/discover',
    params: {
      _meta: {
        'io.modelcontextprotocol/protocolVersion': PROTOCOL_VERSION,
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  }),
})
