import { hasOwnAuthorization, type ServerConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { ConnectionBroken, SessionLost, Unreachable } from './call.js'

// Failures before a byte of the request was on the wire: the call did not happen.
const NEVER_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
])

/** What a request that got no response means: not reached, or broken on the way with an unknown outcome. */
export function sendFailure(error: unknown): Error {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const reason = messageOf(error) || code
  if (NEVER_SENT.has(code) || /CERT|TLS|SSL/.test(code))
    return new Unreachable(`cannot connect: ${reason}`, { cause: error })
  return new ConnectionBroken(`the connection broke: ${reason}`, { cause: error })
}

/** What an HTTP status without a JSON-RPC error in its body means. */
export function statusFailure(status: number, headers: Readonly<Record<string, unknown>>, config: ServerConfig): Error {
  switch (status) {
    case 401:
      if (hasOwnAuthorization(config)) {
        return new GatewayError(
          'SERVER_UNAVAILABLE',
          'the server rejected the configured Authorization header (HTTP 401): check it in the servers file',
        )
      }
      if (config.transport !== 'stdio' && config.oauth === false) {
        return new GatewayError(
          'SERVER_UNAVAILABLE',
          'the server wants a login (HTTP 401), and "oauth" is false for it in the servers file',
        )
      }
      return new GatewayError('AUTH_REQUIRED', 'the server wants a login (HTTP 401)')
    case 404:
      return new SessionLost('the server answered HTTP 404: wrong path, or a session it has forgotten')
    case 429: {
      const retryAfter = Number(headers['retry-after'] ?? Number.NaN)
      const details = Number.isFinite(retryAfter) ? { retry_after_ms: retryAfter * 1000 } : {}
      return new GatewayError('RATE_LIMITED', 'the server limits the rate of requests (HTTP 429)', { details })
    }
    case 502:
    case 503:
    case 504:
      return new GatewayError('SERVER_UNAVAILABLE', `the server answered HTTP ${status}`)
    default:
      return new GatewayError('BACKEND_ERROR', `the server answered HTTP ${status}`, { details: { status } })
  }
}
