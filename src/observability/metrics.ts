import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What is read when somebody asks. */
export interface MetricSources {
  readonly inFlight: () => number
  readonly sessions: () => number
  /** The state of every backend. */
  readonly backendStates: () => readonly string[]
  readonly lastReload: () => Date
  readonly auditDropped: () => number
  readonly auditFailing: () => boolean
}

/** An operation that is over. Every field is one of a few: names that callers make up have to be replaced before. */
export interface MeasuredCall {
  readonly operation: string
  readonly server: string
  readonly code: string
  readonly latencyMs: number
}

export interface Metrics {
  call(call: MeasuredCall): void
  verified(result: string): void
  refreshed(server: string, result: 'ok' | 'failed'): void
  reloaded(result: 'ok' | 'failed'): void
  /** In the text format of Prometheus. */
  text(): Promise<{ readonly body: string; readonly contentType: string }>
}

// From a tool that answers from memory to one that works for minutes.
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
const PREFIX = 'mcp_gateway_'

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const named = <Labels extends string>(name: string, help: string, labelNames: readonly Labels[] = []) => ({
    name: `${PREFIX}${name}`,
    help,
    labelNames,
    registers,
  })
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      ...named(name, help),
      collect() {
        this.set(read())
      },
    })

  const calls = new Counter(
    named('calls_total', 'Operations that are over, by what became of them', ['operation', 'server', 'code']),
  )
  const durations = new Histogram({
    ...named('call_duration_seconds', 'How long operations took', ['operation', 'server']),
    buckets: SECONDS,
  })
  const verifications = new Counter(
    named('token_verifications_total', 'Requests by how their token was found', ['result']),
  )
  const refreshes = new Counter(named('token_refreshes_total', 'Renewals of logins at backends', ['server', 'result']))
  const reloads = new Counter(named('config_reloads_total', 'Changes of the configuration files', ['result']))
  gauge('calls_in_flight', 'Operations under way', sources.inFlight)
  gauge('sessions', 'Sessions of clients of 2025', sources.sessions)
  gauge('config_last_reload_timestamp_seconds', 'When the configuration in effect was loaded', () =>
    Math.round(sources.lastReload().getTime() / 1000),
  )
  gauge('audit_lines_dropped', 'Audit lines that were given up since the start', sources.auditDropped)
  gauge('audit_failing', '1 while the audit log cannot be written', () => Number(sources.auditFailing()))
  new Gauge({
    ...named('backends', 'Backends by state', ['state']),
    collect() {
      this.reset()
      for (const state of sources.backendStates()) this.inc({ state })
    },
  })

  // The labels of a call are looked up once, and not put together again for each.
  const series = new Map<string, { readonly counted: Counter.Internal; readonly timed: Histogram.Internal<string> }>()
  return {
    call({ operation, server, code, latencyMs }) {
      const key = `${operation}\n${server}\n${code}`
      let known = series.get(key)
      if (!known) {
        known = { counted: calls.labels({ operation, server, code }), timed: durations.labels({ operation, server }) }
        series.set(key, known)
      }
      known.counted.inc()
      known.timed.observe(latencyMs / 1000)
    },
    verified: result => verifications.inc({ result }),
    refreshed: (server, result) => refreshes.inc({ server, result }),
    reloaded: result => reloads.inc({ result }),
    text: async () => ({ body: await registry.metrics(), contentType: registry.contentType }),
  }
}
