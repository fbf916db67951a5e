import type { HttpServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { messageOf } from '../errors/gateway-error.js'
import { guardedFetchFor, oauthOf } from './discovery.js'
import { type LoginRecord, loginEntry, readLogin, toServer } from './login-record.js'
import { vouchedServer } from './server-metadata.js'
import { revoke } from './token-endpoint.js'

export interface LogoutResult {
  readonly wasLoggedIn: boolean
  /** Why the tokens are not known to be revoked at the authorization server; undefined when they are. */
  readonly notRevoked?: string | undefined
}

/**
 * Revokes the tokens of a server (RFC 7009) and deletes them, in this order and under the lock of refreshes: none comes in between.
 * They are deleted whether or not the revocation works. The registration of the client stays.
 * @param keepAtServer delete only: the login goes on elsewhere
 */
export async function logout(
  config: HttpServerConfig,
  store: CredentialStore,
  { keepAtServer = false }: { readonly keepAtServer?: boolean } = {},
): Promise<LogoutResult> {
  const entry = loginEntry(config.name)
  return store.exclusively(entry, async () => {
    const login = await readLogin(store, config)
    const notRevoked = login?.tokens && !keepAtServer ? await revokeTokens(config, login) : undefined
    const stored = (await store.list()).some(({ name }) => name === entry)
    if (stored) await store.update(entry, () => undefined)
    return { wasLoggedIn: login !== undefined, notRevoked }
  })
}

/** Undefined when all are revoked. The refresh token first: it could bring new access tokens. */
async function revokeTokens(config: HttpServerConfig, login: LoginRecord): Promise<string | undefined> {
  const { issuer, revocation_endpoint } = login.server
  if (revocation_endpoint === undefined) return `${issuer} has no revocation endpoint`
  const fetch = guardedFetchFor(config)
  try {
    const server = await vouchedServer(toServer(login), login.client, fetch)
    const endpoint = { server, client: login.client, settings: oauthOf(config), resource: login.resource, fetch }
    const tokens = [login.tokens?.refreshToken, login.tokens?.accessToken].filter(token => token !== undefined)
    let isRevoked = true
    for (const token of tokens) isRevoked = (await revoke(endpoint, token)) && isRevoked
    return isRevoked ? undefined : `${issuer} refused to revoke a token`
  } catch (error) {
    return messageOf(error)
  }
}
