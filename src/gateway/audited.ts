import { type CallToolResult, ProtocolError } from '@modelcontextprotocol/server'
import { toToolResult } from '../errors/faces.js'
import { GatewayError, type GatewayErrorCode, toGatewayError } from '../errors/gateway-error.js'
import { type AuditLog, whoOf } from '../observability/audit-log.js'
import type { Logger } from '../observability/logger.js'
import type { GatewayCall } from './tool.js'

/** Runs an operation, and writes its audit line. */
export interface Audited {
  /** What has no tool result to fail with: rejects with a GatewayError, or the ProtocolError it was refused with. */
  run<T>(operation: string, call: GatewayCall, run: () => Promise<T>): Promise<T>
  /** A call that ends before it has begun. */
  refused(operation: string, call: GatewayCall, code: GatewayErrorCode): void
  /** A tool call: every failure is a tool result that a model can read, unless `asRefusal` makes an error of it. */
  tool(
    operation: string,
    call: GatewayCall,
    run: () => Promise<CallToolResult>,
    asRefusal?: (error: GatewayError) => Error | undefined,
  ): Promise<CallToolResult>
}

/** Hears of every operation once it is over. */
export type CallObserver = (call: GatewayCall, outcome: Outcome) => void

export interface Outcome {
  readonly operation: string
  /** As in the audit log. */
  readonly code: string
  readonly latencyMs: number
}

export interface AuditedOptions {
  readonly audit: AuditLog
  readonly logger: Logger
  /** Nothing is done that would leave no line (`GATEWAY_AUDIT_REQUIRED`; the rules file may say so too). */
  readonly auditRequired?: boolean | undefined
  /** May grow: the door that has one brings it along. */
  readonly observers?: readonly CallObserver[] | undefined
}

// As much of a name as `execute_tool` takes: a caller may make up longer ones.
const MAX_NAME_LENGTH = 512

/** The one place where an operation is admitted, timed, audited and its failure turned into words. */
export function createAudited({ audit, logger, auditRequired = false, observers = [] }: AuditedOptions): Audited {
  /** One operation, from its admission to its line. */
  function begin(operation: string, call: GatewayCall) {
    const started = performance.now()
    const { limits, config } = call.snapshot
    const needsLine = auditRequired || config.rules.auditRequired === true
    let isOwed = false
    return {
      async admitted<T>(run: () => Promise<T>): Promise<T> {
        if (needsLine && audit.failure) throw unaudited(audit.failure)
        isOwed = needsLine
        if (!limits) return run()
        try {
          await call.admit()
          return await run()
        } finally {
          call.end()
        }
      },
      write(code: string): void {
        const latencyMs = performance.now() - started
        const event = {
          time: new Date().toISOString(),
          ...whoOf(call.caller.principal),
          agent: call.agent ?? null,
          operation,
          server: call.server ?? null,
          tool: clipped(call.tool) ?? null,
          decision: call.decision?.decision ?? null,
          rule: call.decision?.rule ?? null,
          code,
          ...(call.confirmation && { confirmation: call.confirmation }),
          latency_ms: Math.round(latencyMs * 100) / 100,
        }
        audit.write(event, isOwed)
        for (const observe of observers) observe(call, { operation, code, latencyMs })
      },
    }
  }

  function understand(thrown: unknown, operation: string, call: GatewayCall): GatewayError {
    const error = toGatewayError(thrown)
    if (error.code === 'INTERNAL')
      logger.error({ err: error.cause ?? error, operation, server: call.server }, 'call failed')
    return error
  }

  return {
    async run(operation, call, run) {
      const { admitted, write } = begin(operation, call)
      try {
        const result = await admitted(run)
        write('OK')
        return result
      } catch (thrown) {
        if (thrown instanceof ProtocolError) {
          write('INVALID_ARGUMENTS')
          throw thrown
        }
        const error = understand(thrown, operation, call)
        write(error.code)
        throw error
      }
    },
    refused: (operation, call, code) => begin(operation, call).write(code),
    async tool(operation, call, run, asRefusal) {
      const { admitted, write } = begin(operation, call)
      try {
        const result = await admitted(run)
        write(codeOf(result))
        return result
      } catch (thrown) {
        const error = understand(thrown, operation, call)
        write(error.code)
        const refusal = asRefusal?.(error)
        if (refusal) throw refusal
        return toToolResult(error) as CallToolResult
      }
    },
  }
}

const unaudited = (cause: Error): GatewayError =>
  new GatewayError('INTERNAL', 'the audit log cannot be written, and nothing is done without it (auditRequired)', {
    cause,
    isPublic: true,
  })

const clipped = (name: string | undefined): string | undefined =>
  name !== undefined && name.length > MAX_NAME_LENGTH ? `${name.slice(0, MAX_NAME_LENGTH)}…` : name

const codeOf = ({ isError, resultType }: CallToolResult): string => {
  if (resultType === 'input_required') return 'INPUT_REQUIRED'
  return isError === true ? 'TOOL_ERROR' : 'OK'
}
