import { ProtocolError, SdkError, SdkErrorCode, SdkHttpError, UnauthorizedError } from '@modelcontextprotocol/client'
import type { ServerConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { BackendRefusal, ConnectionBroken, SessionLost, Unreachable } from './call.js'
import { type HeaderFields, sendFailure, statusFailure } from './http-failures.js'

/**
 * What a failure of the SDK's client means in the gateway's own words, and the HTTP status it had, if any. `headers` are those of
 * the refusing response, which the SDK keeps to itself.
 */
export function fromSdkError(
  error: unknown,
  config: ServerConfig,
  headers: HeaderFields = {},
): { error: Error; status?: number } {
  if (
    error instanceof GatewayError ||
    error instanceof BackendRefusal ||
    error instanceof SessionLost ||
    error instanceof ConnectionBroken ||
    error instanceof Unreachable
  )
    return { error }
  if (error instanceof UnauthorizedError) return { error: statusFailure(401, headers, config), status: 401 }
  if (error instanceof SdkHttpError)
    return { error: statusFailure(error.status, headers, config), status: error.status }
  if (error instanceof ProtocolError) return { error: new BackendRefusal(error.code, error.message, error.data) }
  // A probe that failed on the way says why in its cause.
  if (error instanceof SdkError && error.code === SdkErrorCode.EraNegotiationFailed && error.cause instanceof Error) {
    return fromSdkError(error.cause, config, headers)
  }
  if (error instanceof SdkError) return { error: fromLocalError(error) }
  const status = error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : undefined // SseError
  if (status !== undefined && status >= 400) return { error: statusFailure(status, headers, config), status }
  return { error: sendFailure(rootCause(error)) }
}

function fromLocalError(error: SdkError): Error {
  switch (error.code) {
    case SdkErrorCode.ConnectionClosed:
    case SdkErrorCode.NotConnected:
    case SdkErrorCode.SendFailed:
      return new ConnectionBroken(error.message, { cause: error })
    case SdkErrorCode.RequestTimeout:
      return new GatewayError('SERVER_UNAVAILABLE', 'the server did not answer in time', { cause: error })
    case SdkErrorCode.InvalidResult:
    case SdkErrorCode.UnsupportedResultType:
      return new GatewayError(
        'BACKEND_ERROR',
        `the answer is not valid MCP: ${messageOf(error).replace(/\s+/g, ' ').slice(0, 300)}`,
        {
          cause: error,
        },
      )
    default:
      return new GatewayError('SERVER_UNAVAILABLE', messageOf(error).replace(/\s+/g, ' ').slice(0, 300), {
        cause: error,
      })
  }
}

/** `fetch failed` and its like say nothing; the system's error at the end of the chain does. */
function rootCause(error: unknown): unknown {
  return error instanceof Error && error.cause instanceof Error ? rootCause(error.cause) : error
}
