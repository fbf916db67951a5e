import { type Logger, pino } from 'pino'
import { LineWriter } from './line-writer.js'
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

const STDERR = 2
const FLUSH_MS = 500

export interface LoggerOptions {
  readonly level?: string | undefined
  readonly redactor: Redactor
}

export interface Log {
  readonly logger: Logger
  /** Waits, for a moment, for what is not written yet. */
  close(): Promise<void>
}

/** One JSON line an event on stderr; stdout belongs to MCP. Writing does not wait: a host that never reads stderr cannot stall us. */
export function openLog({ level, redactor }: LoggerOptions): Log {
  const nowhereToReport = () => {}
  const writer = new LineWriter(async () => STDERR, nowhereToReport)
  const logger = pino(
    {
      level: LEVELS.find(name => name === level?.toLowerCase()) ?? 'info',
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      redact: { paths: SECRET_FIELDS.flatMap(field => [field, `*.${field}`]), censor: '[redacted]' },
      hooks: { streamWrite: line => redactor.redact(line) },
    },
    writer,
  )
  return { logger, close: () => writer.settle(FLUSH_MS) }
}
