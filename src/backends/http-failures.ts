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

/** Response headers by their names in lower case. */
export type HeaderFields = Readonly<Record<string, string | string[] | undefined>>

/** What a request that got no response means: not reached, broken on the way, or answered with something that is not MCP. */
export function sendFailure(error: unknown): Error {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  const reason = messageOf(error) || code
  if (NEVER_SENT.has(code) || /CERT|TLS|SSL/.test(code))
    return new Unreachable(`cannot connect: ${reason}`, { cause: error })
  if (code !== '') return new ConnectionBroken(`the connection broke: ${reason}`, { cause: error })
  return new GatewayError(
    'SERVER_UNAVAILABLE',
    `the server does not answer with MCP: ${reason.replace(/\s+/g, ' ').slice(0, 200)}`,
    {
      cause: error,
    },
  )
}

/** What an HTTP status without a JSON-RPC error in its body means. */
export function statusFailure(status: number, headers: HeaderFields, config: ServerConfig): Error {
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
    case 301:
    case 302:
    case 303:
    case 307:
    case 308:
      return new GatewayError(
        'SERVER_UNAVAILABLE',
        `the server redirects (HTTP ${status}) to ${String(headers.location ?? 'nowhere').slice(0, 200)}: write the final URL into the servers file`,
      )
    case 404:
      return new SessionLost('the server answered HTTP 404: wrong path, or a session it has forgotten')
    case 429: {
      const wait = retryAfterMs(headers['retry-after'])
      const details = wait === undefined ? {} : { retry_after_ms: wait }
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

/** `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3), in milliseconds from now. */
function retryAfterMs(value: string | string[] | undefined): number | undefined {
  const text = String(value ?? '')
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const at = Date.parse(text)
  return Number.isNaN(at) ? undefined : Math.max(0, at - Date.now())
}
