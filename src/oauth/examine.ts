import type { AuthorizationServer } from 'oauth4webapi'
import type { HttpServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import type { BearerChallenge } from './challenge.js'
import { toClientAuth } from './client-authentication.js'
import { type Discovered, discover, guardedFetchFor, oauthOf } from './discovery.js'
import type { GuardedFetch } from './guarded-fetch.js'
import { isRenewable, type LoginRecord, loginEntry, readLogin } from './login-record.js'
import { quoted } from './quoted.js'
import { configuredClient, readRegistration } from './registration.js'
import { findResourceMetadata, type ProtectedResource } from './resource-metadata.js'
import { requireS256 } from './server-metadata.js'

/** The way to a login, in the order of `login`. */
export const LOGIN_STEPS = [
  'challenge',
  'resource metadata',
  'authorization server',
  'PKCE',
  'client',
  'stored login',
] as const

export interface LoginStep {
  readonly check: (typeof LOGIN_STEPS)[number]
  readonly status: 'ok' | 'warning' | 'failed' | 'skipped'
  readonly found: string
  readonly advice?: string
}

type Found = Omit<LoginStep, 'check'>

export interface ExamineOptions {
  /** Undefined when the server did not ask for a login now. */
  readonly challenge: BearerChallenge | undefined
  readonly store: CredentialStore
  readonly timeLeftMs: () => number
  /** `gateway login NAME` */
  readonly command: string
}

/**
 * Walks to a login with the code that logs in, one step after the other, and changes nothing. After a step that fails the others
 * are skipped.
 */
export async function examineLogin(config: HttpServerConfig, options: ExamineOptions): Promise<LoginStep[]> {
  const walk: Walk = { config, options, ...recording(guardedFetchFor(config), options.timeLeftMs) }
  const steps: LoginStep[] = []
  for (const check of LOGIN_STEPS) {
    const broken = steps.find(({ status }) => status === 'failed')
    const found: Found = broken
      ? { status: 'skipped', found: `after "${broken.check}" failed` }
      : await STEPS[check](walk).catch(error => failed(error, ADVICE[check]))
    steps.push({ check, ...found })
  }
  return steps
}

const STEPS: Readonly<Record<LoginStep['check'], (walk: Walk) => Promise<Found>>> = {
  challenge: readChallenge,
  'resource metadata': findResource,
  'authorization server': findServer,
  PKCE: checkPkce,
  client: findClient,
  'stored login': findLogin,
}

const ADVICE: Readonly<Record<LoginStep['check'], string>> = {
  challenge: 'tell whoever runs the server',
  'resource metadata':
    'write "url" as the server calls itself; if the other name is right, set "oauth": { "resource": "…" } for this server',
  'authorization server':
    'tell whoever runs it; if the issuer that was found is the right one, set "oauth": { "issuer": "…" } for this server',
  PKCE: 'MCP requires PKCE with S256, and only whoever runs the authorization server can add it',
  client: 'register a client there by hand and set "oauth": { "clientId": "…" } for this server',
  'stored login': 'see "credentials" above',
}

const LATER = 'it may be over soon: try again, and look at the network and proxies between'

function failed(error: unknown, advice: string): Found {
  const isPassing = error instanceof GatewayError && error.code === 'SERVER_UNAVAILABLE'
  return { status: 'failed', found: messageOf(error), advice: isPassing ? LATER : advice }
}

const ok = (found: string): Found => ({ status: 'ok', found })

/** What the steps before have found. */
interface Walk {
  readonly config: HttpServerConfig
  readonly options: ExamineOptions
  readonly fetch: GuardedFetch
  readonly asked: Asked[]
  document?: ProtectedResource | undefined
  discovered?: Discovered
}

interface Asked {
  readonly url: string
  readonly status: number
}

/** Remembers what was asked and what came, so that nothing is asked twice. */
function recording(fetch: GuardedFetch, timeLeftMs: () => number): { fetch: GuardedFetch; asked: Asked[] } {
  const answers = new Map<string, Response>()
  const asked: Asked[] = []
  return {
    asked,
    async fetch(url, init) {
      const known = answers.get(url)
      if (known) return known.clone()
      const response = await fetch(url, { ...init, timeoutMs: Math.max(1, timeLeftMs()) })
      answers.set(url, response)
      asked.push({ url, status: response.status })
      return response.clone()
    },
  }
}

async function readChallenge({ options: { challenge } }: Walk): Promise<Found> {
  if (!challenge) return ok('none: the server answers without a login, and there is one')
  const { resourceMetadata, scope, error } = challenge
  const place =
    resourceMetadata === undefined
      ? 'names no resource_metadata: the well-known places are asked'
      : `names resource_metadata ${quoted(resourceMetadata)}`
  const more = [
    scope === undefined ? [] : `scope ${quoted(scope)}`,
    error === undefined ? [] : `error ${quoted(error)}`,
  ]
  return ok([place, ...more.flat()].join(', '))
}

async function findResource(walk: Walk): Promise<Found> {
  const { config, options, fetch, asked } = walk
  walk.document = await findResourceMetadata(config, options.challenge?.resourceMetadata, fetch)
  const answer = asked.at(-1)
  if (walk.document && answer) {
    const { resource } = walk.document
    return ok(`${answer.url} (${placeOf(answer.url, walk)}), resource ${quoted(resource)} matches`)
  }
  const found = `none: ${listOf(asked)}`
  if (oauthOf(config).issuer !== undefined) return ok(`${found}; not needed with "oauth.issuer"`)
  const advice =
    'tell whoever runs the server: it should have metadata (RFC 9728), and the place it names should lead there'
  if (options.challenge?.resourceMetadata !== undefined) return { status: 'failed', found, advice }
  return { status: 'warning', found: `${found}; the server is taken for its own authorization server`, advice }
}

const listOf = (asked: readonly Asked[]): string => asked.map(({ url, status }) => `${url} HTTP ${status}`).join(', ')

function placeOf(url: string, { config, options }: Walk): string {
  const named = options.challenge?.resourceMetadata
  if (named !== undefined && new URL(named, config.url).href === url) return 'named by the challenge'
  return new URL(url).pathname === '/.well-known/oauth-protected-resource' ? 'at the root' : 'for its path'
}

async function findServer(walk: Walk): Promise<Found> {
  const { config, options, fetch, asked } = walk
  const before = asked.length
  const { challenge = {}, store } = options
  // One that cannot be read is the last step's to tell.
  const earlier = await readLogin(store, config).catch(() => undefined)
  const knownIssuer = earlier?.server.issuer
  const discovered = await discover(config, challenge, { fetch, knownIssuer, required: true })
  if (!discovered) throw new GatewayError('LOGIN_FAILED', 'the server names no authorization server')
  walk.discovered = discovered
  const { issuer } = discovered.server
  const answer = asked.slice(before).findLast(({ status }) => status === 200)
  if (answer) return ok(`${answer.url}, issuer ${quoted(issuer)} matches`)
  return {
    status: 'warning',
    found: `no metadata (${listOf(asked.slice(before))}): the endpoints of 2025-03-26 at ${issuer} are assumed`,
    advice: 'if the login fails, ask whoever runs the server for its issuer and set "oauth": { "issuer": "…" }',
  }
}

const serverOf = ({ discovered }: Walk): AuthorizationServer => {
  if (discovered) return discovered.server
  throw new GatewayError('INTERNAL', 'the authorization server is not known yet')
}

const isMachine = ({ config }: Walk): boolean => oauthOf(config).grant === 'client_credentials'

async function checkPkce(walk: Walk): Promise<Found> {
  if (isMachine(walk)) return ok('not needed: a machine logs in')
  requireS256(serverOf(walk))
  return ok('S256')
}

async function findClient(walk: Walk): Promise<Found> {
  const { config, options } = walk
  const settings = oauthOf(config)
  const server = serverOf(walk)
  const configured = configuredClient(config, server)
  if (configured) {
    await toClientAuth(configured, settings, server) // a secret or a key file that is missing
    const what = configured.source === 'configured' ? 'pre-registered ("oauth.clientId")' : 'by its metadata document'
    return ok(`${what}, ${configured.authMethod}`)
  }
  const note = settings.clientMetadataUrl === undefined ? '' : ' (it does not take "oauth.clientMetadataUrl")'
  const kept = await readRegistration(options.store, server.issuer, undefined).catch(() => undefined)
  if (kept) return ok(`registered there before${note}`)
  if (server.registration_endpoint !== undefined)
    return ok(`registers itself at ${server.registration_endpoint}${note}`)
  const redirectUri = settings.redirectUri ?? `http://127.0.0.1:${settings.callbackPort ?? 8976}/callback`
  return {
    status: 'failed',
    found: `${server.issuer} does not register clients by itself${note}`,
    advice: `register one there (redirect URI ${redirectUri}) and set "oauth": { "clientId": "…" } for this server`,
  }
}

async function findLogin(walk: Walk): Promise<Found> {
  const { config, options } = walk
  const login = await readLogin(options.store, config)
  const advice = `run: ${options.command}`
  if (!login) {
    if (isMachine(walk)) return ok('none yet: the gateway logs in by itself')
    const other = await options.store.read(loginEntry(config.name))
    const found =
      other === undefined ? 'nobody has logged in' : `the login of this name is for ${quoted(other.resource)}`
    return { status: 'failed', found, advice }
  }
  const { issuer } = serverOf(walk)
  if (login.server.issuer !== issuer) {
    const found = `is from ${login.server.issuer}, and the server now names ${issuer}`
    return { status: 'warning', found, advice: `if that change is right, ${advice}` }
  }
  return stateOf(login, advice)
}

function stateOf(login: LoginRecord, advice: string): Found {
  const { tokens } = login
  if (!tokens) return { status: 'failed', found: 'has ended at the authorization server', advice }
  const { expiresAt } = tokens
  const until = expiresAt === undefined ? 'without a known end' : new Date(expiresAt).toISOString().slice(0, 16)
  const isOver = expiresAt !== undefined && expiresAt <= Date.now()
  if (isRenewable(login))
    return ok(isOver ? `ran out at ${until}Z, renewed when it is used` : `until ${until}Z, renewable`)
  if (isOver) return { status: 'failed', found: `ran out at ${until}Z, and there is no refresh token`, advice }
  return ok(`until ${until}Z, not renewable`)
}
