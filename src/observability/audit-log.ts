import { chmodSync } from 'node:fs'
import { pino } from 'pino'
import type { Redactor } from './redactor.js'

/** One tool call, whatever became of it. Never contains argument values. */
export interface AuditEvent {
  readonly time: string
  readonly principal: string
  readonly agent: string | undefined
  /** The gateway's own tool that was called. */
  readonly operation: string
  /** The server and the tool behind it: what was meant, not the wrapper. */
  readonly server: string | undefined
  readonly tool: string | undefined
  readonly decision: 'allow' | 'deny' | undefined
  readonly rule: string | undefined
  /** `OK`, `TOOL_ERROR` when the tool itself reported a failure, or the code of the gateway's error. */
  readonly code: string
  readonly latency_ms: number
}

export interface AuditLog {
  write(event: AuditEvent): void
  /** Flushes what is still in memory. */
  close(): Promise<void>
}

export interface AuditLogOptions {
  readonly file: string
  readonly redactor: Redactor
  readonly onError: (error: Error) => void
}

/** Appends JSON lines without waiting for the disk: lines queue up behind the write that is under way. */
export function openAuditLog({ file, redactor, onError }: AuditLogOptions): AuditLog {
  const destination = pino.destination({ dest: file, append: true, mkdir: true, sync: false, mode: 0o600 })
  let failing = false
  destination.on('error', error => {
    // Once per outage, or a full disk would fill the log as well.
    if (!failing) onError(error)
    failing = true
  })
  destination.on('drain', () => {
    failing = false
  })
  destination.once('ready', () => restrict(file))
  return {
    write: event => void destination.write(`${redactor.redact(JSON.stringify(event))}\n`),
    close: () =>
      new Promise(resolve => {
        destination.once('close', () => resolve())
        destination.once('error', () => resolve())
        destination.end()
      }),
  }
}

/** A file from before may be open to others. */
function restrict(file: string): void {
  try {
    chmodSync(file, 0o600)
  } catch {
    // Not our file: whoever owns it decides who reads it.
  }
}
