import type { AuthorizationServer } from 'oauth4webapi'
import { z } from 'zod'
import type { HttpServerConfig } from '../config/servers-file.js'
import type { Credential, CredentialStore } from '../credentials/store.js'
import { OAuthClient } from './client.js'
import { Tokens } from './tokens.js'

/** Everything that a refresh in a process yet to be started needs, as one record, bound to issuer and server URL. */
const LoginRecord = z.object({
  grant: z.enum(['authorization_code', 'device_code', 'client_credentials']),
  client: OAuthClient,
  /** Metadata of the authorization server, as far as later requests need it. */
  server: z.object({
    issuer: z.string(),
    token_endpoint: z.string(),
    revocation_endpoint: z.string().optional(),
    token_endpoint_auth_signing_alg_values_supported: z.array(z.string()).optional(),
  }),
  /** `resource` of every request (RFC 8707). */
  resource: z.string().optional(),
  requestedScopes: z.array(z.string()),
  account: z.string().optional(),
  /** Absent once the authorization server has said that the grant is over. */
  tokens: Tokens.optional(),
  /** What 403 answers wanted since, and how often it was asked for. */
  stepUps: z.array(z.object({ scopes: z.array(z.string()), attempts: z.number(), at: z.number() })).default([]),
})

export type LoginRecord = Readonly<z.infer<typeof LoginRecord>>

const PREFIX = 'login/'

export const loginEntry = (server: string): string => `${PREFIX}${server}`

/** The server that an entry of the store is the login of. */
export const serverOf = (entry: string): string | undefined =>
  entry.startsWith(PREFIX) ? entry.slice(PREFIX.length) : undefined

/** The login of a server. One that was made for another URL under the same name is none: its tokens are not for this one. */
export async function readLogin(store: CredentialStore, config: HttpServerConfig): Promise<LoginRecord | undefined> {
  return parseLogin(await store.read(loginEntry(config.name)), config)
}

export function parseLogin(stored: Credential | undefined, config: HttpServerConfig): LoginRecord | undefined {
  const login = parseRecord(stored)
  return login && stored?.resource === boundTo(config) && isOfClient(login, config) ? login : undefined
}

/** What an entry holds, if it is a login at all. */
export function parseRecord(stored: Credential | undefined): LoginRecord | undefined {
  const { data } = LoginRecord.safeParse(stored?.value)
  return data && stored?.issuer === data.server.issuer ? data : undefined
}

/** Where its tokens may go: the URL without its query, in which some servers take a key. */
function boundTo({ url }: HttpServerConfig): string {
  const { origin, pathname } = new URL(url)
  return `${origin}${pathname}`
}

/** The secret in the servers file is for the client and the issuer in the servers file, not for what a login remembers. */
function isOfClient({ client, server }: LoginRecord, { oauth }: HttpServerConfig): boolean {
  if (client.source !== 'configured') return true
  return oauth !== false && oauth.clientId === client.clientId && (oauth.issuer ?? server.issuer) === server.issuer
}

/** The authorization server, as far as it is kept. To zod an optional member may also be there and undefined. */
export const toServer = ({ server }: LoginRecord): AuthorizationServer => ({ ...server }) as AuthorizationServer

export const toCredential = (record: LoginRecord, config: HttpServerConfig): Credential => ({
  issuer: record.server.issuer,
  resource: boundTo(config),
  value: record,
})

/** True when the tokens can be renewed without a person. */
export const isRenewable = ({ grant, tokens }: LoginRecord): boolean =>
  grant === 'client_credentials' || tokens?.refreshToken !== undefined

/** The scopes that the tokens are good for, as far as the server told. */
export const grantedScopes = ({ tokens, requestedScopes }: LoginRecord): readonly string[] =>
  tokens?.scope?.split(' ').filter(scope => scope !== '') ?? requestedScopes

/** A login for people and scripts: everything but the secrets. */
export interface LoginSummary {
  readonly server: string
  readonly issuer: string
  readonly resource: string
  readonly state: 'logged in' | 'login needed' | 'unreadable'
  readonly expires_at?: string
  readonly account?: string
  readonly scopes?: readonly string[]
}

/** All logins that are kept, sorted by server. */
export async function listLogins(store: CredentialStore): Promise<LoginSummary[]> {
  const entries = (await store.list()).filter(({ name }) => serverOf(name) !== undefined)
  return Promise.all(
    entries.map(async ({ name, issuer, resource }) => {
      const login = parseRecord(await store.read(name))
      return { server: serverOf(name) ?? '', issuer, resource, ...summaryOf(login) }
    }),
  )
}

function summaryOf(login: LoginRecord | undefined): Pick<LoginSummary, 'state' | 'expires_at' | 'account' | 'scopes'> {
  if (!login) return { state: 'unreadable' }
  const { tokens, account } = login
  return {
    state:
      tokens && (isRenewable(login) || (tokens.expiresAt ?? Number.POSITIVE_INFINITY) > Date.now())
        ? 'logged in'
        : 'login needed',
    ...(tokens?.expiresAt !== undefined && { expires_at: new Date(tokens.expiresAt).toISOString() }),
    ...(account !== undefined && { account }),
    scopes: grantedScopes(login),
  }
}
