import { facesOf, type GatewayError } from './gateway-error.js'

/** A tool result that a model can read and correct itself by (DESIGN section 3). */
export interface ErrorToolResult {
  readonly [key: string]: unknown
  readonly isError: true
  readonly content: [{ readonly type: 'text'; readonly text: string }]
  readonly structuredContent: { readonly error: { readonly code: string; readonly message: string } }
}

export const publicMessage = (error: GatewayError): string =>
  error.isPublic ? error.message : 'Internal error: the gateway log has the cause'

export function toToolResult(error: GatewayError): ErrorToolResult {
  const { code: _code, message: _message, ...details } = error.isPublic ? error.details : {}
  const structuredContent = { error: { code: error.code, message: publicMessage(error), ...details } }
  return { isError: true, content: [{ type: 'text', text: JSON.stringify(structuredContent) }], structuredContent }
}

/** The `error` member of a JSON-RPC response; the stable code travels in `data.code`. */
export function toJsonRpcError(error: GatewayError): { code: number; message: string; data: { code: string } } {
  return { code: facesOf(error.code).jsonrpc, message: publicMessage(error), data: { code: error.code } }
}

export const toHttpStatus = (error: GatewayError) => facesOf(error.code).http

export const toExitStatus = (error: GatewayError): number => facesOf(error.code).exit
