import type { HttpServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { refusalText } from './authorization.js'
import { guardedFetchFor, oauthOf } from './discovery.js'
import { type LoginRecord, loginEntry, parseLogin, toCredential, toServer } from './login-record.js'
import { vouchedServer } from './server-metadata.js'
import { exchangeClientCredentials, exchangeRefreshToken, type TokenEndpoint } from './token-endpoint.js'
import { TokenRefusal } from './token-response.js'
import type { Tokens } from './tokens.js'

/** An access token to be renewed: refused by the server, or about to end. */
export interface Stale {
  readonly token: string
  readonly wasRefused: boolean
}

/**
 * Renews the tokens of a login, one process at a time: whoever waited for the lock uses what the winner wrote. Resolves with the
 * login as it is now; without tokens when the authorization server has ended the grant. Rejects with a GatewayError, and has then
 * changed nothing, when it could not be had to say either.
 */
export function renew(
  config: HttpServerConfig,
  stale: Stale,
  store: CredentialStore,
): Promise<LoginRecord | undefined> {
  const entry = loginEntry(config.name)
  return store.exclusively(entry, async assertHeld => {
    const login = parseLogin(await store.read(entry), config)
    if (!login?.tokens || login.tokens.accessToken !== stale.token) return login
    assertHeld()
    const tokens = await requestTokens(config, login, { old: login.tokens, ...stale })
    // The one thing that must not be lost now is the new refresh token, whatever became of the lock; but a newer login wins.
    const written = await store.update(entry, current => {
      const stored = parseLogin(current, config)
      return stored?.tokens?.accessToken === stale.token ? toCredential({ ...stored, tokens }, config) : current
    })
    return parseLogin(written, config)
  })
}

/** New tokens, or what is left of the old ones when the grant is over. */
async function requestTokens(
  config: HttpServerConfig,
  login: LoginRecord,
  { old, wasRefused }: { readonly old: Tokens; readonly wasRefused: boolean },
): Promise<Tokens | undefined> {
  const fetch = guardedFetchFor(config)
  try {
    const endpoint: TokenEndpoint = {
      server: await vouchedServer(toServer(login), login.client, fetch),
      client: login.client,
      settings: oauthOf(config),
      resource: login.resource,
      fetch,
    }
    const { tokens } =
      login.grant === 'client_credentials'
        ? await exchangeClientCredentials(endpoint, login.requestedScopes)
        : await exchangeRefreshToken(endpoint, old.refreshToken ?? '')
    return {
      ...(old.refreshToken !== undefined && { refreshToken: old.refreshToken }),
      ...(old.scope !== undefined && { scope: old.scope }),
      ...tokens,
    }
  } catch (error) {
    if (error instanceof TokenRefusal && endsGrant(error, login)) return wasRefused ? undefined : remainderOf(old)
    throw notNow(error, login)
  }
}

/** Nothing is lost: the stored login stays as it is, and the next call tries again. */
function notNow(error: unknown, { server }: LoginRecord): Error {
  if (error instanceof GatewayError && error.code === 'CONFIG_INVALID') return error
  const reason = error instanceof TokenRefusal ? refusalText(error) : messageOf(error)
  const details = error instanceof GatewayError ? error.details : {}
  return new GatewayError('SERVER_UNAVAILABLE', `the login at ${server.issuer} could not be renewed now: ${reason}`, {
    cause: error,
    details: { ...details, login: 'kept' },
  })
}

/** A client of the servers file that is refused has a wrong secret there, which says nothing about the grant. */
const endsGrant = ({ code }: TokenRefusal, { client, grant }: LoginRecord): boolean =>
  (code === 'invalid_grant' && grant !== 'client_credentials') ||
  (client.source === 'registered' && (code === 'invalid_client' || code === 'unauthorized_client'))

/** An access token that still has time left is good for that time. */
function remainderOf({ refreshToken: _, ...rest }: Tokens): Tokens | undefined {
  return rest.expiresAt !== undefined && rest.expiresAt > Date.now() ? rest : undefined
}
