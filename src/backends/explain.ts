import { GatewayError } from '../errors/gateway-error.js'
import { BackendRefusal, ConnectionBroken, SessionLost, Unreachable } from './call.js'

export interface ExplainContext {
  readonly server: string
  /** When the next connect is tried (milliseconds since the epoch), if the failure is one of connecting. */
  readonly retryAt?: number | undefined
  /** Takes known secrets out of what a backend wrote. */
  readonly redact: (text: string) => string
}

/** Whatever went wrong with a backend, as an error that names the server and says what can be done about it. */
export function explain(error: unknown, { server, retryAt, redact }: ExplainContext): GatewayError {
  if (error instanceof BackendRefusal) {
    const details = {
      server,
      backend_code: error.code,
      ...(error.data === undefined ? {} : { backend_data: error.data }),
    }
    return new GatewayError('BACKEND_ERROR', `the server "${server}" refused: ${error.message}`, {
      cause: error,
      details,
    })
  }
  if (error instanceof ConnectionBroken) {
    const message = `the connection to "${server}" broke after the call was sent (${error.message}); whether it was carried out is unknown, so it was not repeated`
    return new GatewayError('OUTCOME_UNKNOWN', message, {
      cause: error,
      details: { server, ...words(error.stderr, redact) },
    })
  }
  const retry = retryAt === undefined ? {} : { retry_at: new Date(retryAt).toISOString() }
  if (error instanceof Unreachable || error instanceof SessionLost) {
    return new GatewayError('SERVER_UNAVAILABLE', `the server "${server}": ${error.message}`, {
      cause: error,
      details: { server, ...retry },
    })
  }
  if (!(error instanceof GatewayError)) return new GatewayError('INTERNAL', 'Internal error', { cause: error })
  if ('server' in error.details) return error
  const { stderr, ...rest } = error.details
  const details = { ...rest, server, ...(Array.isArray(stderr) && words(stderr, redact)) }
  if (error.code === 'AUTH_REQUIRED') {
    const command = `gateway login ${/^[\w.-]+$/.test(server) ? server : JSON.stringify(server)}`
    const message = `the server "${server}" wants a login: run ${command}`
    return new GatewayError(error.code, message, { cause: error, details: { ...details, command } })
  }
  return new GatewayError(error.code, `the server "${server}": ${error.message}`, {
    cause: error,
    details: { ...details, ...retry },
  })
}

const words = (stderr: readonly unknown[], redact: (text: string) => string) =>
  stderr.length > 0 ? { stderr: stderr.map(line => redact(String(line))) } : {}
