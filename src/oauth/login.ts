import { type HttpServerConfig, hasOwnAuthorization, type ServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { authorize, createAuthorizationRequest, refusalText } from './authorization.js'
import { openCallbackListener } from './callback-listener.js'
import type { BearerChallenge } from './challenge.js'
import type { OAuthClient } from './client.js'
import { toClientAuth } from './client-authentication.js'
import { authorizeDevice, DEVICE_GRANT } from './device.js'
import { type Discovered, discover, guardedFetchFor, oauthOf } from './discovery.js'
import type { GuardedFetch } from './guarded-fetch.js'
import { grantedScopes, type LoginRecord, loginEntry, readLogin, toCredential } from './login-record.js'
import { probe } from './probe.js'
import { quoted } from './quoted.js'
import {
  configuredClient,
  keepRegistration,
  type Registration,
  readRegistration,
  register,
  registeredClient,
} from './registration.js'
import { selectScopes, toScopes, unionOf } from './scopes.js'
import { requireS256 } from './server-metadata.js'
import { countStepUps, wantedByStepUps } from './step-up.js'
import { exchangeClientCredentials, type TokenEndpoint } from './token-endpoint.js'
import { type Grant, TokenRefusal } from './token-response.js'
import type { UserAgent } from './user-agent.js'

const TIME_LIMIT_MS = 5 * 60_000

export interface LoginOptions {
  readonly store: CredentialStore
  /** Who logs in; not needed for a machine's login. */
  readonly userAgent?: UserAgent | undefined
  /** With a code on another device (RFC 8628). */
  readonly device?: boolean | undefined
  /** How long the person may take. */
  readonly timeLimitMs?: number | undefined
  /** Gives up. */
  readonly signal?: AbortSignal | undefined
  /** No person has asked for this login. */
  readonly isUnasked?: boolean | undefined
  /** The challenge that made the login necessary; default: the server is asked for one. */
  readonly challenge?: BearerChallenge | undefined
}

/**
 * Logs in to a server and keeps the login: discovery, client, authorization, tokens. Resolves undefined when the server wants no
 * login. Throws LOGIN_FAILED (refused, with what to do), AUTH_REQUIRED (nobody is there to log in), SERVER_UNAVAILABLE (try later),
 * CONFIG_INVALID.
 */
export async function login(config: HttpServerConfig, options: LoginOptions): Promise<LoginRecord | undefined> {
  const { store } = options
  const fetch = guardedFetchFor(config)
  const earlier = await readLogin(store, config)
  const probed = options.challenge ? { wantsLogin: true, challenge: options.challenge } : await probe(config)
  const required = probed.wantsLogin || oauthOf(config).grant === 'client_credentials' || earlier !== undefined
  const discovered = await discover(config, probed.challenge, { fetch, knownIssuer: earlier?.server.issuer, required })
  if (!discovered) return undefined
  refuseOtherIssuer(config, discovered, earlier)
  const attempt: Attempt = {
    config,
    options,
    discovered,
    earlier,
    fetch,
    scopes: scopesFor(config, probed, discovered, earlier),
  }
  return obtain(attempt).catch(error => {
    if (!(error instanceof TokenRefusal)) throw error
    const { issuer } = discovered.server
    throw new GatewayError('LOGIN_FAILED', `${issuer} refused: ${refusalText(error)}${adviceFor(error, config)}`)
  })
}

/** The server as one that can be logged in to. Throws LOGIN_FAILED that says why it cannot. */
export function requireOAuth(config: ServerConfig): HttpServerConfig {
  const refuse = (why: string): GatewayError => new GatewayError('LOGIN_FAILED', `the server "${config.name}" ${why}`)
  const [problem] = config.misconfigured
  if (problem) throw refuse(`is misconfigured: ${problem.path}: ${problem.message}`)
  if (config.transport === 'stdio') throw refuse('is a local process: it takes its credentials from "env"')
  if (hasOwnAuthorization(config))
    throw refuse('has an Authorization header of its own in the servers file: remove it to log in instead')
  if (config.oauth === false) throw refuse('has "oauth": false in the servers file: remove it to log in')
  return config
}

interface Attempt {
  readonly config: HttpServerConfig
  readonly options: LoginOptions
  readonly discovered: Discovered
  readonly earlier: LoginRecord | undefined
  readonly fetch: GuardedFetch
  readonly scopes: readonly string[]
}

async function obtain(attempt: Attempt): Promise<LoginRecord> {
  const { config, options } = attempt
  const settings = oauthOf(config)
  if (settings.grant === 'client_credentials') return obtainForMachine(attempt)
  const { userAgent } = options
  if (!userAgent) throw new GatewayError('AUTH_REQUIRED', 'a person has to log in')
  const limitMs = options.timeLimitMs ?? TIME_LIMIT_MS
  const limit = new AbortController()
  const timer = setTimeout(() => {
    const seconds = Math.round(limitMs / 1000)
    limit.abort(new GatewayError('LOGIN_FAILED', `nobody finished the login within ${seconds} seconds: start it again`))
  }, limitMs)
  const signal = AbortSignal.any([limit.signal, ...(options.signal ? [options.signal] : [])])
  try {
    return await (options.device ? obtainByDevice : obtainByBrowser)(attempt, { userAgent, signal })
  } finally {
    clearTimeout(timer)
  }
}

interface Person {
  readonly userAgent: UserAgent
  readonly signal: AbortSignal
}

async function obtainByBrowser(attempt: Attempt, person: Person): Promise<LoginRecord> {
  const { config, discovered, scopes, options } = attempt
  requireS256(discovered.server)
  const known = await readRegistration(options.store, discovered.server.issuer, undefined)
  const listener = await openCallbackListener(oauthOf(config), portOf(known))
  try {
    const { redirectUri } = listener
    return await withClient(attempt, redirectUri, async (client, mayBeForgotten) => {
      const endpoint = toEndpoint(attempt, client)
      // A secret that is missing is better noticed before the person has logged in.
      await toClientAuth(client, endpoint.settings, endpoint.server)
      const request = await createAuthorizationRequest(endpoint, { redirectUri, scopes })
      if (mayBeForgotten) {
        // Asked with a state that nobody waits for.
        const trial = await createAuthorizationRequest(endpoint, { redirectUri, scopes })
        if (await isForgotten(trial.url, attempt.fetch)) return 'forgotten'
      }
      const keep = (grant: Grant) => keepLogin(attempt, 'authorization_code', client, grant)
      return authorize(endpoint, request, { listener, keep, ...person })
    })
  } finally {
    listener.close()
  }
}

async function obtainByDevice(attempt: Attempt, person: Person): Promise<LoginRecord> {
  return withClient(attempt, undefined, async client => {
    const grant = await authorizeDevice(toEndpoint(attempt, client), attempt.scopes, person)
    return keepLogin(attempt, 'device_code', client, grant)
  })
}

async function obtainForMachine(attempt: Attempt): Promise<LoginRecord> {
  const { config, discovered, scopes } = attempt
  const client = configuredClient(config, discovered.server)
  if (!client || client.authMethod === 'none') {
    throw new GatewayError(
      'CONFIG_INVALID',
      `the server "${config.name}": "grant": "client_credentials" needs "clientId" with "clientSecret" or "privateKeyFile"`,
    )
  }
  const grant = await exchangeClientCredentials(toEndpoint(attempt, client), scopes)
  return keepLogin(attempt, 'client_credentials', client, grant)
}

/**
 * Runs the flow with the client that applies: configured, or the registration kept for this issuer, or a new one. A registration
 * the server has forgotten is renewed once.
 */
async function withClient(
  attempt: Attempt,
  redirectUri: string | undefined,
  flow: (client: OAuthClient, mayBeForgotten: boolean) => Promise<LoginRecord | 'forgotten'>,
): Promise<LoginRecord> {
  const { config, discovered, options, earlier } = attempt
  const { server } = discovered
  const configured = configuredClient(config, server)
  const kept = configured ? undefined : await readRegistration(options.store, server.issuer, redirectUri)
  if (kept && options.isUnasked && !kept.usedBy.includes(config.name)) {
    // A consent given for one server must not silently become one for another that names the same authorization server.
    throw new GatewayError(
      'AUTH_REQUIRED',
      `${server.issuer} is known from another server: a person has to ask for this login`,
    )
  }
  if (configured || kept) {
    // A client whose token has just been taken is known.
    const mayBeForgotten = !configured && (earlier?.stepUps.length ?? 0) === 0
    const client = configured ?? (kept && registeredClient(kept))
    const outcome = client && (await flow(client, mayBeForgotten).catch(error => forgottenOrThrow(error, configured)))
    if (outcome && outcome !== 'forgotten') {
      if (kept && !kept.usedBy.includes(config.name))
        await keepRegistration(options.store, server.issuer, usedBy(kept, config))
      return outcome
    }
  }
  const grantTypes = [
    'authorization_code',
    'refresh_token',
    ...(server.device_authorization_endpoint === undefined ? [] : [DEVICE_GRANT]),
  ]
  const redirectUris = [redirectUri ?? 'http://127.0.0.1/callback']
  const registration = await register({
    server,
    settings: oauthOf(config),
    redirectUris,
    grantTypes,
    fetch: attempt.fetch,
  })
  await keepRegistration(options.store, server.issuer, usedBy(registration, config))
  const outcome = await flow(registeredClient(registration), false)
  if (outcome !== 'forgotten') return outcome
  throw new GatewayError('LOGIN_FAILED', `${server.issuer} does not know the client it has just registered`)
}

const usedBy = (registration: Registration, { name }: HttpServerConfig): Registration => ({
  ...registration,
  usedBy: [...registration.usedBy, name],
})

function forgottenOrThrow(error: unknown, configured: OAuthClient | undefined): 'forgotten' {
  const codes = ['invalid_client', 'unauthorized_client']
  if (!configured && error instanceof TokenRefusal && codes.includes(error.code)) return 'forgotten'
  throw error
}

/**
 * Servers clean up registrations, and then show an error page to the person, where no program sees it. So it is asked for first:
 * these two are the statuses of such a page; a page for known clients is a login, or a redirect to one.
 */
async function isForgotten(url: string, fetch: GuardedFetch): Promise<boolean> {
  const { status } = await fetch(url, { headers: { accept: 'text/html' }, followRedirects: false }).catch(() => ({
    status: 0,
  }))
  return status === 400 || status === 401
}

const portOf = (registration: Registration | undefined): number | undefined => {
  const uri = registration?.redirectUris[0]
  return uri !== undefined && URL.canParse(uri) ? Number(new URL(uri).port) || undefined : undefined
}

const toEndpoint = ({ config, discovered, fetch }: Attempt, client: OAuthClient): TokenEndpoint => ({
  server: discovered.server,
  resource: discovered.resource,
  settings: oauthOf(config),
  client,
  fetch,
})

function scopesFor(
  config: HttpServerConfig,
  { challenge }: { challenge: BearerChallenge },
  { server, scopesSupported }: Discovered,
  earlier: LoginRecord | undefined,
): readonly string[] {
  const stepUp = earlier ? wantedByStepUps(earlier) : []
  const { grant, scopes } = oauthOf(config)
  return selectScopes({
    configured: scopes,
    challenged: toScopes(challenge.scope),
    supported: scopesSupported,
    earlier: earlier && stepUp.length > 0 ? unionOf(earlier.requestedScopes, grantedScopes(earlier), stepUp) : [],
    offered: grant === 'client_credentials' ? [] : server.scopes_supported,
  })
}

/** Stores the login; no renewal of an earlier one comes in between. */
async function keepLogin(
  attempt: Attempt,
  grant: LoginRecord['grant'],
  client: OAuthClient,
  granted: Grant,
): Promise<LoginRecord> {
  const { config, options } = attempt
  const record = toRecord(attempt, grant, client, granted)
  const entry = loginEntry(config.name)
  await options.store.exclusively(entry, () => options.store.update(entry, () => toCredential(record, config)))
  return record
}

function toRecord(
  { discovered: { server, resource }, scopes, earlier }: Attempt,
  grant: LoginRecord['grant'],
  client: OAuthClient,
  { tokens, account }: Grant,
): LoginRecord {
  const { issuer, token_endpoint, revocation_endpoint } = server
  const { token_endpoint_auth_signing_alg_values_supported: algorithms } = server
  return {
    grant,
    client,
    server: {
      issuer,
      token_endpoint: String(token_endpoint),
      ...(revocation_endpoint !== undefined && { revocation_endpoint }),
      ...(algorithms !== undefined && { token_endpoint_auth_signing_alg_values_supported: [...algorithms] }),
    },
    ...(resource !== undefined && { resource }),
    requestedScopes: [...scopes],
    ...(account !== undefined && { account }),
    tokens,
    stepUps: earlier?.server.issuer === issuer ? countStepUps(earlier, scopes) : [],
  }
}

/** A secret for one authorization server is not for another that the resource names one day. */
function refuseOtherIssuer(config: HttpServerConfig, { server }: Discovered, earlier: LoginRecord | undefined): void {
  const { clientId, issuer } = oauthOf(config)
  if (clientId === undefined || issuer !== undefined || earlier?.client.clientId !== clientId) return
  if (earlier.server.issuer === server.issuer) return
  throw new GatewayError(
    'LOGIN_FAILED',
    `the server "${config.name}" now names the authorization server ${server.issuer}, and "oauth.clientId" was used at ${earlier.server.issuer}: if the change is right, set "oauth": { "issuer": ${quoted(server.issuer)} } and the client registered there`,
  )
}

function adviceFor({ code }: TokenRefusal, config: HttpServerConfig): string {
  const { clientId } = oauthOf(config)
  if (code !== 'invalid_client' && code !== 'unauthorized_client') return ''
  return clientId === undefined ? '' : ' (check "clientId", "clientSecret" and "tokenEndpointAuthMethod" under "oauth")'
}
