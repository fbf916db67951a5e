import type { CallObserver } from './gateway/audited.js'
import type { Runtime } from './gateway/runtime.js'
import { serveMetrics } from './http/metrics.js'
import type { AuditLog } from './observability/audit-log.js'
import type { Logger } from './observability/logger.js'
import { createMetrics, type Metrics } from './observability/metrics.js'

export interface MetricsOptions {
  readonly port: number
  readonly runtime: Runtime
  readonly audit: AuditLog
  readonly logger: Logger
  readonly sessions: () => number
  /** What the gateway's own tools are called. */
  readonly tools: readonly string[]
}

export interface OpenMetrics extends Metrics {
  readonly observe: CallObserver
  close(): void
}

const METHODS = ['tools/call', 'prompts/get', 'resources/read', 'read_result']

/** The part of the composition root that only a gateway with `GATEWAY_METRICS_PORT` needs. */
export async function openMetrics({ port, runtime, audit, logger, ...options }: MetricsOptions): Promise<OpenMetrics> {
  const metrics = createMetrics({
    inFlight: () => runtime.inFlight,
    sessions: options.sessions,
    backendStates: () => [...runtime.current.backends.values()].map(backend => backend.status().state),
    lastReload: () => runtime.reload.lastReload,
    auditDropped: () => audit.dropped ?? 0,
    auditFailing: () => audit.failure !== undefined,
  })
  const endpoint = await serveMetrics(port, metrics)
  logger.info({ url: endpoint.url }, 'serving metrics')
  const operations = new Set([...METHODS, ...options.tools])
  return {
    ...metrics,
    close: endpoint.close,
    observe({ server, snapshot }, { operation, code, latencyMs }) {
      metrics.call({
        // Both may be anything that a caller has thought of.
        operation: operations.has(operation) ? operation : 'other',
        server: server === undefined ? '' : snapshot.backends.has(server) ? server : 'other',
        code,
        latencyMs,
      })
    },
  }
}
