import { open } from 'node:fs'
import { chmod, mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { promisify } from 'node:util'
import { LineWriter } from './line-writer.js'

const openDescriptor = promisify(open)

/** One tool call, whatever became of it. Never contains argument values. */
export interface AuditEvent {
  readonly time: string
  readonly principal: string
  readonly agent: string | null
  /** The gateway's own tool that was called. */
  readonly operation: string
  /** The server and the tool behind it: what was meant, not the wrapper. */
  readonly server: string | null
  readonly tool: string | null
  readonly decision: 'allow' | 'deny' | 'ask' | null
  readonly rule: string | null
  /** `OK`, `TOOL_ERROR` when the tool itself reported a failure, or the code of the gateway's error. */
  readonly code: string
  /** Where the rules want a person to be asked: what came of it. */
  readonly confirmation?: 'asked' | 'accepted' | 'declined' | 'cancelled' | 'impossible'
  readonly latency_ms: number
}

export interface AuditLog {
  write(event: AuditEvent): void
  /** Waits, for a moment, for what is still in memory. */
  close(): Promise<void>
}

export interface AuditLogOptions {
  readonly file: string
  readonly redact: (text: string) => string
  /** Called once per outage. */
  readonly onError: (error: Error) => void
}

const FLUSH_MS = 2_000
const OWNER_ONLY = 0o600

/** Appends JSON lines to a file that only its owner may read. A call never waits for the disk, and never fails for it. */
export function openAuditLog({ file, redact, onError }: AuditLogOptions): AuditLog {
  const writer = new LineWriter(() => openFile(file), onError)
  writer.write('') // so that a file that cannot be written is known at the start
  return {
    write: event => writer.write(`${redact(JSON.stringify(event))}\n`),
    close: () => writer.settle(FLUSH_MS),
  }
}

/** The descriptor lives as long as the process. A file from before may be open to others, so its mode is set as well. */
async function openFile(file: string): Promise<number> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  const fd = await openDescriptor(file, 'a', OWNER_ONLY)
  await chmod(file, OWNER_ONLY).catch(() => {}) // not our file: whoever owns it decides who reads it
  return fd
}
