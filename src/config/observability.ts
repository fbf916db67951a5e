import { GatewayError } from '../errors/gateway-error.js'
import type { Env } from './variables.js'

/** `GATEWAY_AUDIT_MAX_BYTES`, if it is set. Throws CONFIG_INVALID. */
export function readAuditMaxBytes(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const bytes = Number(text)
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes
  const message = `GATEWAY_AUDIT_MAX_BYTES is "${text}", expected a number of bytes`
  throw new GatewayError('CONFIG_INVALID', message)
}

/** `GATEWAY_METRICS_PORT`, if it is set; 0 takes any free port. Throws CONFIG_INVALID. */
export function readMetricsPort(text: string | undefined): number | undefined {
  if (text === undefined || text === '') return undefined
  const port = Number(text)
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port
  throw new GatewayError('CONFIG_INVALID', `GATEWAY_METRICS_PORT is "${text}", expected a port from 0 to 65535`)
}

/** Where traces go (OpenTelemetry's own variables); undefined when nowhere. Throws CONFIG_INVALID. */
export function readTracesUrl(env: Env): string | undefined {
  if (env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || env.OTEL_TRACES_EXPORTER === 'none') return undefined
  const own = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
  const base = env.OTEL_EXPORTER_OTLP_ENDPOINT
  const url = own || (base && `${base.replace(/\/+$/, '')}/v1/traces`)
  if (!url) return undefined
  if (URL.canParse(url) && /^https?:\/\//.test(url)) return url
  const variable = own ? 'OTEL_EXPORTER_OTLP_TRACES_ENDPOINT' : 'OTEL_EXPORTER_OTLP_ENDPOINT'
  throw new GatewayError(
    'CONFIG_INVALID',
    `${variable} is "${own || base}", expected a URL such as http://127.0.0.1:4318`,
  )
}
