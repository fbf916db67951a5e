import { readIssuer, readPort, readResource } from '../config/front-door.js'
import { NO_IDENTITY } from '../config/identity-config.js'
import { loadConfig } from '../config/load.js'
import { locateConfigFiles, stateDirectory } from '../config/locate.js'
import { openCredentialStore } from '../credentials/store.js'
import { allIssuers } from '../identity/authentication.js'
import { LOCAL_AUDIENCE, openEmbeddedIssuer } from '../identity/embedded-issuer.js'
import { compileRules, entriesFor } from '../rules/compile.js'
import { print } from './output.js'

export interface TokenFlags {
  readonly agent: string
  readonly ttl: number
  readonly scope: string
}

/** Prints the token alone on stdout, so that `TOKEN=$(gateway token issue --agent NAME)` works. */
export async function issueToken({ agent, ttl, scope }: TokenFlags): Promise<number> {
  const { env } = process
  const warn = (message: string) => void process.stderr.write(`${message}\n`)
  const config = await warnAboutUnknownAgent(agent, warn)
  const external = allIssuers(readIssuer(env), config?.rules.identity ?? NO_IDENTITY)
  if (external.length > 0) {
    const names = external.map(({ issuer }) => issuer).join(' and ')
    warn(`warning: tokens come from ${names} here, and the gateway will refuse this one`)
  }
  const issuer = await openEmbeddedIssuer(openCredentialStore({ directory: stateDirectory(env), env, warn }))
  // Without a public URL the gateway's address depends on where it happens to listen.
  const local = [`http://${env.MCP_SERVER_HOST || '127.0.0.1'}:${readPort(env.MCP_SERVER_PORT)}/mcp`, LOCAL_AUDIENCE]
  const audience = readResource(env.MCP_RESOURCE_URI)?.href ?? local
  print(await issuer.issue({ agent, audience, ttlSeconds: ttl, scope }))
  return 0
}

/** A credential for an agent that the rules do not know is legal, they may change; most likely it is a slip. */
export async function warnAboutUnknownAgent(agent: string, warn: (message: string) => void) {
  const config = await Promise.resolve()
    .then(() => loadConfig(locateConfigFiles({ env: process.env, cwd: process.cwd() }), process.env))
    .catch(() => undefined)
  if (config && entriesFor(compileRules(config.rules, config.servers), agent).length === 0) {
    warn(`warning: ${config.files.rules} has no agent "${agent}", calls as it will be refused`)
  }
  return config
}
