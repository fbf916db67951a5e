import { randomUUID } from 'node:crypto'
import { createLocalJWKSet } from 'jose'
import { readIssuer, readPort, readResource, readScopes } from './config/front-door.js'
import { type IssuerConfig, NO_IDENTITY } from './config/identity-config.js'
import { stateDirectory } from './config/locate.js'
import { announceRunning } from './config/running.js'
import type { Env } from './config/variables.js'
import type { CredentialStore } from './credentials/store.js'
import { GatewayError } from './errors/gateway-error.js'
import type { Front } from './gateway/front.js'
import { describeGateway } from './gateway/get-gateway-status.js'
import type { Runtime } from './gateway/runtime.js'
import { ServerFactory, serverInfo } from './gateway/server.js'
import { createHttpApp } from './http/app.js'
import { type DoorWatch, principalIn } from './http/bearer.js'
import { createFailedLoginLog, logStranger } from './http/failed-logins.js'
import { FloodGuard } from './http/flood.js'
import { isLoopbackHost } from './http/guards.js'
import { listen } from './http/listen.js'
import { openApiKeys } from './identity/api-keys.js'
import { type Authentication, allIssuers, createAuthentication } from './identity/authentication.js'
import { openEmbeddedIssuer, statusAudience } from './identity/embedded-issuer.js'
import { createTokenVerifier } from './identity/token-verifier.js'
import type { AuditLog } from './observability/audit-log.js'
import type { Logger } from './observability/logger.js'
import { version } from './version.js'

export interface HttpOptions {
  /** Default: `MCP_SERVER_HOST`, else 127.0.0.1. */
  readonly host?: string | undefined
  /** Default: `MCP_SERVER_PORT`, else 8080; 0 takes any free port. */
  readonly port?: number | undefined
}

export interface HttpFront {
  /** Where MCP is served, as clients have to write it. */
  readonly url: string
  /** The external issuers that tokens come from; without any it is the embedded one. */
  readonly issuers: readonly string[]
  /** A token of the embedded issuer for this front. */
  issueToken(agent: string, ttlSeconds: number): Promise<string>
}

export interface HttpFrontOptions extends HttpOptions {
  readonly env: Env
  readonly logger: Logger
  readonly store: CredentialStore
  readonly runtime: Runtime
  readonly front: Front
  readonly audit: AuditLog
  /** Hears how each request was let in, or why it was not. */
  readonly onAuthentication?: ((result: string) => void) | undefined
}

export interface OpenHttpFront extends HttpFront {
  /** Sessions of clients of 2025. */
  readonly sessions: number
  close(): Promise<void>
}

/** The part of the composition root that only `serve` needs: issuer, verifier, HTTP. */
export async function openHttpFront({
  env,
  logger,
  store,
  runtime,
  front: mcp,
  audit,
  onAuthentication,
  ...options
}: HttpFrontOptions): Promise<OpenHttpFront> {
  const host = options.host ?? (env.MCP_SERVER_HOST || '127.0.0.1')
  const wantedPort = options.port ?? readPort(env.MCP_SERVER_PORT)
  const publicResource = readResource(env.MCP_RESOURCE_URI)
  const identity = () => runtime.current.config.rules.identity
  const issuers = allIssuers(readIssuer(env), identity() ?? NO_IDENTITY)
  refuseOpenDoor(host, publicResource, issuers)

  const issuer = await openEmbeddedIssuer(store)
  const instance = `urn:agent-mcp-gateway:instance:${randomUUID()}`
  const logFailure = createFailedLoginLog(audit)
  const watch: DoorWatch = {
    flood: new FloodGuard(),
    onFailure(failure) {
      onAuthentication?.(failure.code.toLowerCase())
      return logFailure(failure)
    },
    onAccepted: onAuthentication && (() => onAuthentication('ok')),
    onStranger: principal => logStranger(audit, principal),
  }
  let authentication: Authentication | undefined
  const front = await listen(host, wantedPort, port => {
    const resource = publicResource ?? new URL(`http://${bracketed(host)}:${port}/mcp`)
    authentication = createAuthentication({
      resource: resource.href,
      isLocal: publicResource === undefined,
      embedded: issuer,
      instance,
      apiKeys: openApiKeys(store),
      issuer: readIssuer(env),
      audience: env.OAUTH_AUDIENCE || undefined,
      logger,
    })
    authentication.configure(identity())
    const factory = new ServerFactory(mcp, ({ authInfo }) => principalIn(authInfo))
    return createHttpApp({
      resource,
      authentication,
      scopes: readScopes(env),
      logger,
      serverInfo,
      watch,
      jwks: issuer.jwks,
      front: {
        refusal: (entry, principal) => mcp.refusal(entry, principal),
        onSwap: listener => mcp.onSwap(listener),
        callPlainly: (entry, call, caller) => mcp.callPlainly(entry, call, caller),
        lackingScopes: (entry, call, caller) => mcp.lackingScopes(entry, call, caller),
        headerProblem: (entry, call, header, caller) => mcp.headerProblem(entry, call, header, caller),
        watch: (entry, caller, filter, onChange) => mcp.watch(entry, caller, filter, onChange),
        createServer: (entry, context) => factory.create(entry, context),
        createDeclaringServer: (entry, context, patienceMs) => factory.createDeclaring(entry, context, patienceMs),
      },
      isLoopback: isLoopbackHost(host),
      allowedHosts: list(env.GATEWAY_ALLOWED_HOSTS),
      // As browsers write them.
      allowedOrigins: list(env.CORS_ORIGINS).map(origin => origin.replace(/\/+$/, '')),
      isReady: () => !runtime.isDraining,
      status: {
        verifier: createTokenVerifier({
          issuers: [
            {
              issuer: issuer.issuer,
              algorithms: issuer.algorithms,
              audiences: [statusAudience(instance)],
              keys: createLocalJWKSet(issuer.jwks),
            },
          ],
        }),
        describe: () => ({ pid: process.pid, version, ...describeGateway(runtime) }),
      },
    })
  })
  const stopWatching = runtime.onSwap(() => authentication?.configure(identity()))
  const url = publicResource?.href ?? `http://${bracketed(host)}:${front.port}/mcp`
  const withdraw = await announceRunning(stateDirectory(env), {
    pid: process.pid,
    url: `http://${loopbackOf(host)}:${front.port}/mcp`,
    audience: instance,
    publicUrl: url,
    ...runtime.current.config.files,
    version,
    startedAt: new Date().toISOString(),
  })
  logger.info({ url, listening: `${bracketed(host)}:${front.port}` }, 'serving MCP over HTTP')
  return {
    url,
    issuers: issuers.map(({ issuer }) => issuer),
    issueToken: (agent, ttlSeconds) => issuer.issue({ agent, ttlSeconds, audience: url }),
    get sessions() {
      return front.app.sessions
    },
    async close() {
      stopWatching()
      await withdraw()
      await front.app.close()
      front.close()
    },
  }
}

/** Beyond loopback, tokens come from an issuer that others can trust too, and the gateway has a name they are made out to. */
function refuseOpenDoor(host: string, publicResource: URL | undefined, issuers: readonly IssuerConfig[]): void {
  if (isLoopbackHost(host) || (publicResource && issuers.length > 0)) return
  const missing = [
    ...(publicResource ? [] : ['MCP_RESOURCE_URI (the public URL including /mcp)']),
    ...(issuers.length > 0 ? [] : ['an external issuer (OAUTH_GATEWAY_URL, or identity.issuers in the rules file)']),
  ]
  throw new GatewayError(
    'CONFIG_INVALID',
    `refusing to listen on ${host}, beyond this machine, without ${missing.join(' and ')}: use --host 127.0.0.1 behind a reverse proxy`,
  )
}

const list = (text: string | undefined): string[] =>
  (text ?? '')
    .split(',')
    .map(entry => entry.trim())
    .filter(entry => entry !== '')

/** An address of this machine that reaches a server listening on this host. */
const loopbackOf = (host: string): string =>
  host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : bracketed(host)

const bracketed = (host: string): string => (host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)
