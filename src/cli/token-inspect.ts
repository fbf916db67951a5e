import { text } from 'node:stream/consumers'
import { readIssuer, readPort, readResource } from '../config/front-door.js'
import { NO_IDENTITY } from '../config/identity-config.js'
import { type GatewayConfig, loadConfig } from '../config/load.js'
import { locateConfigFiles, stateDirectory } from '../config/locate.js'
import { findRunning } from '../config/running.js'
import type { Env } from '../config/variables.js'
import { openCredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { toPublicUrls } from '../http/metadata.js'
import { API_KEY_PREFIX, type ApiKeys, openApiKeys } from '../identity/api-keys.js'
import { createAuthentication } from '../identity/authentication.js'
import { openEmbeddedIssuer } from '../identity/embedded-issuer.js'
import {
  type Check,
  checkPrincipal,
  type InspectOptions,
  inspectByAsking,
  inspectJwt,
  isJwt,
} from '../identity/inspect-token.js'
import { InvalidTokenError } from '../identity/token-errors.js'
import { openLog } from '../observability/logger.js'
import { createRedactor } from '../observability/redactor.js'
import { type AccessRules, compileRules } from '../rules/compile.js'
import type { ConfigFlags } from './config-flags.js'
import { oneLine, print, printJson } from './output.js'

export interface InspectFlags extends ConfigFlags {
  readonly server?: string
  readonly introspect?: boolean
  readonly json?: boolean
}

/** One line for each check. The token goes nowhere, unless the issuer is to be asked about it. */
export async function inspectToken(given: string | undefined, flags: InspectFlags): Promise<number> {
  const { env } = process
  const token = (given === undefined || given === '-' ? await text(process.stdin) : given)
    .trim()
    .replace(/^Bearer(?: +|$)/i, '')
  if (token === '')
    throw new GatewayError('INVALID_ARGUMENTS', 'there is no token: give it as an argument, or on stdin')
  const warn = (message: string) => void process.stderr.write(`${message}\n`)
  const store = openCredentialStore({ directory: stateDirectory(env), env, warn })
  const config = await findConfig(flags)
  const rules = config && compileRules(config.rules, config.servers)
  const apiKeys = openApiKeys(store)
  const checks = token.startsWith(API_KEY_PREFIX)
    ? await inspectApiKey(token, apiKeys, rules)
    : await inspect(token, flags, await optionsOf({ env, config, store, apiKeys, rules, server: flags.server }))
  const isGood = checks.every(({ ok }) => ok)
  if (flags.json) printJson({ ok: isGood, checks })
  else show(checks)
  return isGood ? 0 : 1
}

/** Without files there is still the environment; files that were named have to be there. */
async function findConfig({ config, rules }: ConfigFlags): Promise<GatewayConfig | undefined> {
  const load = async () =>
    loadConfig(locateConfigFiles({ config, rules, env: process.env, cwd: process.cwd() }), process.env)
  return load().catch(error => {
    if (config !== undefined || rules !== undefined) throw error
    return undefined
  })
}

interface Scene {
  readonly env: Env
  readonly config: GatewayConfig | undefined
  readonly store: ReturnType<typeof openCredentialStore>
  readonly apiKeys: ApiKeys
  readonly rules: AccessRules | undefined
  readonly server: string | undefined
}

/** What the gateway would expect that runs, or would run, with this configuration. */
async function optionsOf({ env, config, store, apiKeys, rules, server }: Scene): Promise<InspectOptions> {
  const host = env.MCP_SERVER_HOST || '127.0.0.1'
  const publicResource = readResource(env.MCP_RESOURCE_URI)
  const running = (await findRunning(stateDirectory(env))).find(({ rules: file }) => file === config?.files.rules)
  const resource = publicResource?.href ?? running?.publicUrl ?? `http://${host}:${readPort(env.MCP_SERVER_PORT)}/mcp`
  const { logger } = openLog({ level: 'silent', redactor: createRedactor() })
  const authentication = createAuthentication({
    resource,
    isLocal: publicResource === undefined,
    embedded: await openEmbeddedIssuer(store),
    instance: running?.audience ?? resource,
    apiKeys,
    issuer: readIssuer(env),
    audience: env.OAUTH_AUDIENCE || undefined,
    logger,
  })
  const identity = config?.rules.identity ?? NO_IDENTITY
  authentication.configure(identity)
  const door = server === undefined ? undefined : toPublicUrls(new URL(resource)).serverResource(server)
  return {
    issuers: authentication.trusted.filter(({ isInternal }) => !isInternal),
    clockToleranceSeconds: identity.clockToleranceSeconds,
    door,
    rules,
  }
}

async function inspect(
  token: string,
  { introspect }: InspectFlags,
  options: InspectOptions,
): Promise<readonly Check[]> {
  if (isJwt(token)) return inspectJwt(token, options)
  const mayAsk = options.issuers.some(issuer => issuer.introspection !== undefined)
  if (introspect && mayAsk) return inspectByAsking(token, options)
  const change = mayAsk
    ? 'add --introspect to send it to its issuer and ask'
    : 'have the issuer make JWTs, or set "introspection" for it under identity.issuers in the rules'
  return [{ check: 'format', ok: false, got: 'an opaque token', wanted: 'a JWT', change }]
}

async function inspectApiKey(key: string, keys: ApiKeys, rules: AccessRules | undefined): Promise<readonly Check[]> {
  const wanted = 'an active key of this gateway'
  try {
    const { principal } = await keys.verify(key)
    return [{ check: 'key', ok: true, got: principal.id, wanted }, checkPrincipal(principal, rules)]
  } catch (error) {
    if (!(error instanceof InvalidTokenError)) throw error
    const change = 'see "gateway key list", or make a new one: gateway key create'
    return [{ check: 'key', ok: false, got: error.description, wanted, change }]
  }
}

function show(checks: readonly Check[]): void {
  for (const { check, ok, got, wanted, change } of checks) {
    const found = `got ${oneLine(got, 300)}, wanted ${oneLine(wanted, 300)}`
    print(
      `${ok ? 'ok  ' : 'FAIL'}  ${check.padEnd(9)}  ${found}${change === undefined ? '' : `: ${oneLine(change, 600)}`}`,
    )
  }
}
