import type { OAuthConfig, ServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { messageOf } from '../errors/gateway-error.js'
import { oauthOf } from './discovery.js'
import { createGuardedFetch, type GuardedFetch } from './guarded-fetch.js'
import { type LoginRecord, loginEntry, parseRecord, toServer } from './login-record.js'
import { vouchedServer } from './server-metadata.js'
import { revoke } from './token-endpoint.js'

export interface LogoutResult {
  readonly wasLoggedIn: boolean
  /** Why the tokens are not known to be revoked at the authorization server; undefined when they are. */
  readonly notRevoked?: string | undefined
}

export interface LogoutOptions {
  readonly store: CredentialStore
  /** The server's entry, if it still has one: a secret of the servers file is needed to revoke. */
  readonly config: ServerConfig | undefined
  /** Delete only: the login goes on elsewhere. */
  readonly keepAtServer?: boolean
}

/**
 * Revokes the tokens of a login where they came from (RFC 7009) and deletes them, in this order and under the lock of renewals: none
 * comes in between. They are deleted whether or not the revocation works, and whatever the servers file says by now. The
 * registration of the client stays.
 */
export async function logout(
  name: string,
  { store, config, keepAtServer = false }: LogoutOptions,
): Promise<LogoutResult> {
  const entry = loginEntry(name)
  return store.exclusively(entry, async () => {
    if (!(await store.list()).some(({ name: stored }) => stored === entry)) return { wasLoggedIn: false }
    const stored = await store.read(entry)
    const login = parseRecord(stored)
    const settings = config && config.transport !== 'stdio' ? oauthOf(config) : {}
    const urls = [stored?.resource, settings.issuer].filter(url => url !== undefined && URL.canParse(url))
    const fetch = createGuardedFetch(urls.filter(url => url !== undefined))
    const notRevoked = login?.tokens && !keepAtServer ? await revokeTokens(login, settings, fetch) : undefined
    await store.update(entry, () => undefined)
    return { wasLoggedIn: true, notRevoked }
  })
}

/** Undefined when all are revoked. The refresh token first: it could bring new access tokens. */
async function revokeTokens(
  login: LoginRecord,
  settings: OAuthConfig,
  fetch: GuardedFetch,
): Promise<string | undefined> {
  const { issuer, revocation_endpoint } = login.server
  if (revocation_endpoint === undefined) return `${issuer} has no revocation endpoint`
  try {
    // The secret in the servers file is for the client in the servers file.
    const own = login.client.source !== 'configured' || settings.clientId === login.client.clientId ? settings : {}
    const server = await vouchedServer(toServer(login), login.client, fetch)
    const endpoint = { server, client: login.client, settings: own, resource: login.resource, fetch }
    const tokens = [login.tokens?.refreshToken, login.tokens?.accessToken].filter(token => token !== undefined)
    let isRevoked = true
    for (const token of tokens) isRevoked = (await revoke(endpoint, token)) && isRevoked
    return isRevoked ? undefined : `${issuer} refused to revoke a token`
  } catch (error) {
    return messageOf(error)
  }
}
