import { type CallToolResult, ProtocolError } from '@modelcontextprotocol/server'
import { toToolResult } from '../errors/faces.js'
import { GatewayError, type GatewayErrorCode, toGatewayError } from '../errors/gateway-error.js'
import type { AuditLog } from '../observability/audit-log.js'
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

/** The one place where an operation is admitted, timed, audited and its failure turned into words. */
export function createAudited({ audit, logger, auditRequired = false, observers = [] }: AuditedOptions): Audited {
  function write(operation: string, call: GatewayCall, code: string, started: number): void {
    const latencyMs = performance.now() - started
    audit.write({
      time: new Date().toISOString(),
      principal: call.caller.principal.id,
      agent: call.agent ?? null,
      operation,
      server: call.server ?? null,
      tool: call.tool ?? null,
      decision: call.decision?.decision ?? null,
      rule: call.decision?.rule ?? null,
      code,
      ...(call.confirmation && { confirmation: call.confirmation }),
      latency_ms: Math.round(latencyMs * 100) / 100,
    })
    for (const observe of observers) observe(call, { operation, code, latencyMs })
  }

  async function admitted<T>(call: GatewayCall, run: () => Promise<T>): Promise<T> {
    const { limits, config } = call.snapshot
    if (audit.failure && (auditRequired || config.rules.auditRequired)) throw unaudited(audit.failure)
    if (!limits) return run()
    try {
      await call.admit()
      return await run()
    } finally {
      call.end()
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
      const started = performance.now()
      try {
        const result = await admitted(call, run)
        write(operation, call, 'OK', started)
        return result
      } catch (thrown) {
        if (thrown instanceof ProtocolError) {
          write(operation, call, 'INVALID_ARGUMENTS', started)
          throw thrown
        }
        const error = understand(thrown, operation, call)
        write(operation, call, error.code, started)
        throw error
      }
    },
    refused: (operation, call, code) => write(operation, call, code, performance.now()),
    async tool(operation, call, run, asRefusal) {
      const started = performance.now()
      try {
        const result = await admitted(call, run)
        write(operation, call, codeOf(result), started)
        return result
      } catch (thrown) {
        const error = understand(thrown, operation, call)
        write(operation, call, error.code, started)
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

const codeOf = ({ isError, resultType }: CallToolResult): string => {
  if (resultType === 'input_required') return 'INPUT_REQUIRED'
  return isError === true ? 'TOOL_ERROR' : 'OK'
}
