import { once } from 'node:events'
import { createServer } from 'node:net'
import { fetch } from 'undici'
import { readIssuer, readPort, readResource } from '../../config/front-door.js'
import { type IdentityConfig, type IssuerConfig, NO_IDENTITY } from '../../config/identity-config.js'
import type { Env } from '../../config/variables.js'
import { messageOf } from '../../errors/gateway-error.js'
import { isLoopbackHost } from '../../http/guards.js'
import { allIssuers } from '../../identity/authentication.js'
import { fetchKeys } from '../../identity/issuer-keys.js'
import { openIssuerMetadata } from '../../identity/issuer-metadata.js'
import type { Section } from './section.js'
import type { SealedState } from './state.js'

// As identity/embedded-issuer.ts calls it.
const ENTRY = 'embedded-issuer'
const HEALTH_MS = 2_000

interface Wanted {
  readonly env: Env
  readonly state: SealedState
  readonly identity: IdentityConfig | undefined
}

/** What `gateway serve` needs: the keys of those who issue its tokens, its public URL, and a port. */
export async function examineIssuer(section: Section, { env, state, identity = NO_IDENTITY }: Wanted): Promise<void> {
  let issuers: readonly IssuerConfig[] = []
  await attempt(section, 'OAUTH_GATEWAY_URL', async () => {
    issuers = allIssuers(readIssuer(env), identity)
  })
  await Promise.all(issuers.map(issuer => examineKeys(section, issuer)))
  if (state.damaged.includes(ENTRY)) {
    section.failed(
      'signing key',
      'is damaged',
      'restore credentials.json, or let a new key be made and issue tokens anew',
    )
  } else if (state.problem) section.skipped('signing key', 'credentials.json cannot be read')
  else if (state.entries.has(ENTRY)) section.ok('signing key', 'of the embedded issuer, kept with the credentials')
  else section.ok('signing key', 'none yet: made by the first "gateway serve" or "gateway token issue"')
  await attempt(section, 'MCP_RESOURCE_URI', async () => {
    const resource = readResource(env.MCP_RESOURCE_URI)
    section.ok(
      'MCP_RESOURCE_URI',
      resource ? `${resource.origin}${resource.pathname}` : 'is not set: tokens are for this machine',
    )
  })
  await attempt(section, 'address', () => examineAddress(section, env, issuers.length > 0))
}

async function examineKeys(section: Section, config: IssuerConfig): Promise<void> {
  try {
    await fetchKeys(config, openIssuerMetadata(config))
    section.ok('keys', `of ${config.issuer} can be had`)
  } catch (error) {
    const advice =
      'check OAUTH_GATEWAY_URL and OAUTH_JWKS_URI, or issuer and jwksUri in the rules file; until then tokens get 503'
    section.failed('keys', `of ${config.issuer}: ${messageOf(error)}`, advice)
  }
}

async function attempt(section: Section, check: string, examine: () => Promise<void>): Promise<void> {
  await examine().catch(error => section.failed(check, messageOf(error), 'correct or unset the variable'))
}

async function examineAddress(section: Section, env: Env, hasIssuer: boolean): Promise<void> {
  const host = env.MCP_SERVER_HOST || '127.0.0.1'
  const port = readPort(env.MCP_SERVER_PORT)
  const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
  if (!isLoopbackHost(host) && !hasIssuer) {
    section.warning(
      'reach',
      `${host} is beyond this machine`,
      '"gateway serve" refuses that with the embedded issuer alone: use 127.0.0.1 behind a reverse proxy',
    )
  }
  const obstacle = port === 0 ? undefined : await whyNotFree(host, port)
  if (obstacle === undefined) return section.ok('address', `${address} is free`)
  if (obstacle === 'EADDRINUSE' && (await isGateway(address)))
    return section.ok('address', `${address}: a gateway runs there already`)
  if (obstacle === 'EADDRINUSE') {
    const advice = 'end what runs there, or choose another port with MCP_SERVER_PORT or --port'
    return section.warning('address', `${address} is in use by something else`, advice)
  }
  section.failed('address', `${address}: ${obstacle}`, 'check MCP_SERVER_HOST and MCP_SERVER_PORT')
}

async function whyNotFree(host: string, port: number): Promise<string | undefined> {
  const server = createServer()
  try {
    server.listen(port, host.replace(/^\[|\]$/g, ''))
    await once(server, 'listening')
    return undefined
  } catch (error) {
    return error instanceof Error && 'code' in error ? String(error.code) : messageOf(error)
  } finally {
    server.close()
  }
}

async function isGateway(address: string): Promise<boolean> {
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(), HEALTH_MS)
  try {
    const response = await fetch(`http://${address}/health`, { signal: limit.signal, redirect: 'manual' })
    return response.status === 200 && (await response.text()) === 'OK'
  } catch {
    return false
  } finally {
    clearTimeout(timer)
  }
}
