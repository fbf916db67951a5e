import { join } from 'node:path'
import type { Tool } from '@modelcontextprotocol/server'
import { Backend } from './backends/backend.js'
import { endPredecessors } from './backends/process-predecessors.js'
import { openProcessRecord } from './backends/process-record.js'
import { type GatewayConfig, loadConfig } from './config/load.js'
import { locateConfigFiles, stateDirectory } from './config/locate.js'
import { readAuditMaxBytes, readMetricsPort, readTracesUrl } from './config/observability.js'
import { formatProblem } from './config/problem.js'
import type { HttpServerConfig, ServerConfig } from './config/servers-file.js'
import type { Env } from './config/variables.js'
import { watchConfig } from './config/watch.js'
import { openCredentialStore } from './credentials/store.js'
import type { CallObserver } from './gateway/audited.js'
import type { Entry } from './gateway/endpoint.js'
import { Front } from './gateway/front.js'
import { Runtime } from './gateway/runtime.js'
import { ServerFactory } from './gateway/server.js'
import { buildSnapshot } from './gateway/snapshot.js'
import { noteOnSpan } from './gateway/spans.js'
import { localPrincipal, type Principal } from './identity/principal.js'
import { BackendLogin } from './oauth/backend-login.js'
import { createUnaskedLogins } from './oauth/unasked-login.js'
import { openAuditLog } from './observability/audit-log.js'
import { type Logger, openLog } from './observability/logger.js'
import { CONFIGURATION, createRedactor } from './observability/redactor.js'
import type { Tracing } from './observability/tracing.js'
import type { HttpFront, HttpOptions, OpenHttpFront } from './start-http.js'
import type { OpenMetrics } from './start-metrics.js'
import { version } from './version.js'

const DRAIN_MS = 5_000

export type { HttpFront, HttpOptions } from './start-http.js'

export interface StartOptions {
  /** `--config` and `--rules`. */
  readonly config?: string | undefined
  readonly rules?: string | undefined
  readonly env?: Env
  readonly cwd?: string
  /** Also offer get_gateway_status (`--debug`, `GATEWAY_DEBUG=true`). */
  readonly debug?: boolean | undefined
  /** Default of `LOG_LEVEL`. */
  readonly logLevel?: string | undefined
  /** True for a process that a person may have started in a terminal: it may open a browser when a server wants a login. */
  readonly mayOpenBrowser?: boolean | undefined
}

export interface Gateway {
  readonly config: GatewayConfig
  readonly runtime: Runtime
  /** Calls one of the small tools as somebody at this machine. Never rejects: every failure is a tool result. */
  readonly tools: { readonly definitions: readonly Tool[]; readonly call: Front['callSmallTool'] }
  readonly logger: Logger
  /** The caller on this machine, over stdio and from the command line. */
  localCaller(agent?: string): Principal
  serveHttp(options?: HttpOptions): Promise<HttpFront>
  /** Serves MCP on stdin and stdout, all servers or one; resolves when stdin ends. */
  serveStdio(options?: { readonly agent?: string | undefined; readonly server?: string | undefined }): Promise<void>
  /** Takes no new calls, finishes those under way, ends every backend. */
  close(): Promise<void>
}

/** Loads both files and wires the rooms together. Connects to nothing: backends start on first use. Throws ConfigError. */
export async function startGateway(options: StartOptions = {}): Promise<Gateway> {
  const { env = process.env, cwd = process.cwd() } = options
  const redactor = createRedactor()
  const log = openLog({ level: env.LOG_LEVEL ?? options.logLevel, redactor })
  const { logger } = log
  const config = await loadConfig(locateConfigFiles({ config: options.config, rules: options.rules, env, cwd }), env)
  const secrets = new Set(config.secrets)
  redactor.learn(CONFIGURATION, config.secrets)
  reportProblems(config, logger)

  const auditFile = env.GATEWAY_AUDIT_LOG || join(stateDirectory(env), 'audit.jsonl')
  const audit = openAuditLog({
    file: auditFile,
    redact: redactor.scopedTo(CONFIGURATION),
    maxBytes: readAuditMaxBytes(env.GATEWAY_AUDIT_MAX_BYTES),
    onError: error => logger.error({ err: error, file: auditFile }, 'the audit log cannot be written'),
  })
  let metrics: OpenMetrics | undefined
  const store = openCredentialStore({ directory: stateDirectory(env), env, warn: message => logger.warn(message) })
  const mayOpenBrowser = options.mayOpenBrowser === true
  const unaskedLogins = createUnaskedLogins({ store, logger, env, mayOpenBrowser })
  const authorize = (server: HttpServerConfig) =>
    new BackendLogin(server, {
      store,
      logger,
      onLoginNeeded: unaskedLogins.start,
      onLoginOffered: unaskedLogins.offer,
      onRenewed: result => metrics?.refreshed(server.name, result),
      learnSecrets: secrets => redactor.learn(server.name, secrets.filter(isPlainSecret)),
    })
  const processes = join(stateDirectory(env), 'processes')
  const processRecord = openProcessRecord(processes, logger)
  const predecessorsEnded = endPredecessors(processes, logger)
  const tracing = await openTracing(env, logger, redactor.redact)
  const createBackend = (server: ServerConfig) => new Backend(server, { env, logger, redactor, authorize, tracing })
  const runtime = new Runtime(buildSnapshot(config, createBackend))
  const watching = watchConfig(config, {
    env,
    onConfig(next) {
      for (const secret of next.secrets) secrets.add(secret) // those of before may still be in what is under way
      redactor.learn(CONFIGURATION, [...secrets])
      reportProblems(next, logger)
      runtime.swap(buildSnapshot(next, createBackend, runtime.current))
      metrics?.reloaded('ok')
      logger.info({ fingerprint: next.fingerprint }, 'configuration reloaded')
    },
    onError(reason) {
      runtime.keepCurrent(reason)
      metrics?.reloaded('failed')
      logger.error({ reason }, 'the new configuration cannot be used: the running one stays')
    },
  })
  const debug = options.debug ?? env.GATEWAY_DEBUG === 'true'
  const auditRequired = env.GATEWAY_AUDIT_REQUIRED === 'true'
  const observers: CallObserver[] = tracing ? [noteOnSpan] : []
  const front = new Front({ runtime, audit, logger, debug, auditRequired, observers, tracing })
  const closers: (() => Promise<void> | void)[] = []
  const localCaller = (agent?: string) =>
    localPrincipal({ pinnedAgent: agent, fallbackAgent: env.GATEWAY_DEFAULT_AGENT })

  return {
    config,
    runtime,
    tools: { definitions: front.smallTools, call: (name, args, caller) => front.callSmallTool(name, args, caller) },
    logger,
    localCaller,

    async serveHttp(http = {}) {
      const { openHttpFront } = await import('./start-http.js')
      const metricsPort = readMetricsPort(env.GATEWAY_METRICS_PORT)
      let opened: OpenHttpFront | undefined
      if (metricsPort !== undefined && !metrics) {
        const { openMetrics } = await import('./start-metrics.js')
        const tools = front.smallTools.map(({ name }) => name)
        const sessions = () => opened?.sessions ?? 0
        metrics = await openMetrics({ port: metricsPort, runtime, audit, logger, sessions, tools })
        observers.push(metrics.observe)
        closers.push(metrics.close)
      }
      const onAuthentication = metrics && ((result: string) => metrics?.verified(result))
      opened = await openHttpFront({ ...http, env, logger, store, runtime, front, audit, onAuthentication })
      closers.push(opened.close)
      return opened
    },

    async serveStdio({ agent, server } = {}) {
      const principal = localCaller(agent)
      const entry: Entry = server === undefined ? {} : { server }
      const refusal = front.refusal(entry, principal)
      if (refusal) throw refusal
      const { openStdioFront, stdinEnded } = await import('./gateway/stdio-front.js')
      const handle = openStdioFront(new ServerFactory(front, () => principal), entry, logger)
      closers.push(() => handle.close())
      await stdinEnded()
    },

    async close() {
      watching.close()
      unaskedLogins.close()
      front.close()
      await runtime.close(DRAIN_MS)
      for (const close of closers.reverse()) await close()
      await Promise.all([processRecord.close(), predecessorsEnded])
      await tracing?.close()
      await audit.close()
      await log.close()
    },
  }
}

/** Only where a collector is configured. */
async function openTracing(env: Env, logger: Logger, redact: (text: string) => string): Promise<Tracing | undefined> {
  const url = readTracesUrl(env)
  if (url === undefined) return undefined
  const otel = await import('./observability/otel.js')
  const onError = (reason: string) => logger.warn({ url: new URL(url).origin, reason }, 'traces cannot be sent')
  const serviceName = env.OTEL_SERVICE_NAME || 'agent-mcp-gateway'
  return otel.openTracing({ url, serviceName, version, redact, onError })
}

function reportProblems({ warnings, servers }: GatewayConfig, logger: Logger): void {
  for (const problem of warnings) logger.warn({ problem: formatProblem(problem) }, 'configuration')
  for (const { name, misconfigured } of servers) {
    for (const problem of misconfigured)
      logger.warn({ server: name, problem: formatProblem(problem) }, 'server is misconfigured')
  }
}

/** Authorization servers choose these: one that is a word, or could break the JSON it is taken out of, is not looked for. */
const isPlainSecret = (secret: string): boolean => secret.length >= 12 && /^[^\s"\\{}]+$/.test(secret)
