import { type Logger, pino } from 'pino'
import type { Redactor } from './redactor.js'

export type { Logger }

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const

// Never logged at any level, wherever they turn up in an object.
const SECRET_FIELDS = [
  'authorization',
  'Authorization',
  'token',
  'access_token',
  'refresh_token',
  'client_secret',
  'headers',
  'args',
  'arguments',
  'env',
]

export interface LoggerOptions {
  readonly level?: string | undefined
  readonly redactor: Redactor
}

/** One JSON line an event on stderr; stdout belongs to MCP. Writing does not wait: a host that never reads stderr cannot stall us. */
export function createLogger({ level, redactor }: LoggerOptions): Logger {
  const chosen = LEVELS.find(name => name === level?.toLowerCase()) ?? 'info'
  return pino(
    {
      level: chosen,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      redact: { paths: SECRET_FIELDS.flatMap(field => [field, `*.${field}`]), censor: '[redacted]' },
      hooks: { streamWrite: line => redactor.redact(line) },
    },
    pino.destination({ dest: 2, sync: false }),
  )
}
