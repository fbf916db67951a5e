import { GatewayError } from '../errors/gateway-error.js'

// A line has to fit in many times.
const MIN_AUDIT_BYTES = 64 * 1024

/** `GATEWAY_AUDIT_MAX_BYTES`, if it is set. Throws CONFIG_INVALID. */
export function readAuditMaxBytes(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const bytes = Number(text)
  if (Number.isSafeInteger(bytes) && bytes >= MIN_AUDIT_BYTES) return bytes
  const message = `GATEWAY_AUDIT_MAX_BYTES is "${text}", expected a number of bytes, ${MIN_AUDIT_BYTES} or more`
  throw new GatewayError('CONFIG_INVALID', message)
}

/** `GATEWAY_METRICS_PORT`, if it is set; 0 takes any free port. Throws CONFIG_INVALID. */
export function readMetricsPort(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const port = Number(text)
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port
  throw new GatewayError('CONFIG_INVALID', `GATEWAY_METRICS_PORT is "${text}", expected a port from 0 to 65535`)
}
