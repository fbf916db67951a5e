/**
 * Every way in which the gateway says no. The names are part of the contract: agents and scripts compare them.
 *
 * - `jsonrpc`: error code when the failure has to travel as a JSON-RPC error (JSON-RPC 2.0, section 5.1)
 * - `http`: status when it ends an HTTP request before any MCP message was understood
 * - `exit`: exit status of the command line (sysexits.h where it has one)
 * - `expose`: whether the message may leave the process; if not, callers read a fixed text and the log has the cause
 */
const ERRORS = {
  DENIED_BY_POLICY: { jsonrpc: -32602, http: 403, exit: 1, expose: true },
  INVALID_AGENT_ID: { jsonrpc: -32602, http: 403, exit: 1, expose: true },
  NO_FALLBACK_CONFIGURED: { jsonrpc: -32602, http: 403, exit: 1, expose: true },
  FALLBACK_AGENT_NOT_IN_RULES: { jsonrpc: -32602, http: 403, exit: 1, expose: true },
  TOOL_NOT_FOUND: { jsonrpc: -32602, http: 404, exit: 1, expose: true },
  INVALID_ARGUMENTS: { jsonrpc: -32602, http: 400, exit: 1, expose: true },
  SERVER_UNAVAILABLE: { jsonrpc: -32603, http: 502, exit: 69, expose: true },
  // A login that was tried and did not work; agents read AUTH_REQUIRED.
  LOGIN_FAILED: { jsonrpc: -32603, http: 502, exit: 1, expose: true },
  AUTH_REQUIRED: { jsonrpc: -32603, http: 502, exit: 77, expose: true },
  TIMEOUT: { jsonrpc: -32603, http: 504, exit: 75, expose: true },
  RATE_LIMITED: { jsonrpc: -32603, http: 429, exit: 75, expose: true },
  BACKEND_ERROR: { jsonrpc: -32603, http: 502, exit: 1, expose: true },
  OUTCOME_UNKNOWN: { jsonrpc: -32603, http: 502, exit: 1, expose: true },
  SHUTTING_DOWN: { jsonrpc: -32603, http: 503, exit: 75, expose: true },
  CONFIG_INVALID: { jsonrpc: -32603, http: 500, exit: 78, expose: true },
  INTERNAL: { jsonrpc: -32603, http: 500, exit: 1, expose: false },
} as const satisfies Record<string, ErrorFaces>

export interface ErrorFaces {
  readonly jsonrpc: number
  readonly http: 400 | 403 | 404 | 429 | 500 | 502 | 503 | 504
  readonly exit: number
  readonly expose: boolean
}

export type GatewayErrorCode = keyof typeof ERRORS

export const errorCodes = Object.keys(ERRORS) as readonly GatewayErrorCode[]

export const facesOf = (code: GatewayErrorCode): ErrorFaces => ERRORS[code]

/** What a caller can act on, beside the message: `nearest`, `retry_at`, `command`, `schema`, … in snake case, as sent. */
export type ErrorDetails = Readonly<Record<string, unknown>>

export class GatewayError extends Error {
  override readonly name = 'GatewayError'
  readonly code: GatewayErrorCode
  readonly details: ErrorDetails
  /** Whether callers may read the message. */
  readonly isPublic: boolean

  constructor(
    code: GatewayErrorCode,
    message: string,
    options: { cause?: unknown; details?: ErrorDetails; isPublic?: boolean } = {},
  ) {
    super(message, { cause: options.cause })
    this.code = code
    this.details = options.details ?? {}
    this.isPublic = options.isPublic ?? ERRORS[code].expose
  }
}

/** The one normalizer: whatever was thrown becomes a GatewayError, a stranger becomes `INTERNAL` with its cause kept. */
export function toGatewayError(thrown: unknown): GatewayError {
  if (thrown instanceof GatewayError) return thrown
  return new GatewayError('INTERNAL', 'Internal error', { cause: thrown })
}

/** The text of an error; for anything thrown that is not an Error, its string form. */
export const messageOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : String(thrown))
