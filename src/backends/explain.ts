import { type ErrorDetails, GatewayError, type GatewayErrorCode } from '../errors/gateway-error.js'
import { BackendRefusal, ConnectionBroken, SessionLost, Unreachable } from './call.js'

export interface ExplainContext {
  readonly server: string
  /** When the next connect is tried (milliseconds since the epoch), if the failure is one of connecting. */
  readonly retryAt?: number | undefined
  /** Takes known secrets out of what a backend said. */
  readonly redact: (text: string) => string
}

const STDERR_LINE_LENGTH = 500

/** Whatever went wrong with a backend, as an error that names the server and says what can be done about it. */
export function explain(error: unknown, { server, retryAt, redact }: ExplainContext): GatewayError {
  if (error instanceof GatewayError && 'server' in error.details) return error

  // Servers repeat what they were told, keys included.
  const toError = (code: GatewayErrorCode, message: string, { stderr, ...details }: ErrorDetails = {}) => {
    const lines = Array.isArray(stderr) ? stderr.map(line => redact(String(line)).slice(0, STDERR_LINE_LENGTH)) : []
    const all = { ...(redactAll(details, redact) as ErrorDetails), server, ...(lines.length > 0 && { stderr: lines }) }
    return new GatewayError(code, redact(message), { cause: error, details: all })
  }
  const retry = retryAt === undefined ? {} : { retry_at: new Date(retryAt).toISOString() }

  if (error instanceof BackendRefusal) {
    const data = error.data === undefined ? {} : { backend_data: redactAll(error.data, redact) }
    return new GatewayError('BACKEND_ERROR', redact(`the server "${server}" refused: ${error.message}`), {
      cause: new BackendRefusal(error.code, redact(error.message), data.backend_data),
      details: { backend_code: error.code, ...data, server },
    })
  }
  if (error instanceof ConnectionBroken) {
    const message = `the connection to "${server}" broke after the call was sent (${error.message}); whether it was carried out is unknown, so it was not repeated`
    return toError('OUTCOME_UNKNOWN', message, { stderr: error.stderr })
  }
  if (error instanceof Unreachable || error instanceof SessionLost) {
    return toError('SERVER_UNAVAILABLE', `the server "${server}": ${error.message}`, retry)
  }
  if (!(error instanceof GatewayError)) return new GatewayError('INTERNAL', 'Internal error', { cause: error })
  if (error.code === 'AUTH_REQUIRED') {
    const command = `gateway login ${/^[\w.-]+$/.test(server) ? server : JSON.stringify(server)}`
    return toError(error.code, `the server "${server}": ${error.message}; log in with: ${command}`, {
      ...error.details,
      command,
    })
  }
  return toError(error.code, `the server "${server}": ${error.message}`, { ...error.details, ...retry })
}

/** Every string in a value from JSON; never the text of the JSON, which a secret with a quote in it would break. */
function redactAll(value: unknown, redact: (text: string) => string): unknown {
  if (typeof value === 'string') return redact(value)
  if (Array.isArray(value)) return value.map(item => redactAll(item, redact))
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [redact(key), redactAll(item, redact)]))
}
