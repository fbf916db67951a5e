import type { AuthorizationServer } from 'oauth4webapi'
import type { HttpServerConfig, OAuthConfig } from '../config/servers-file.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { BearerChallenge } from './challenge.js'
import { createGuardedFetch, type GuardedFetch } from './guarded-fetch.js'
import { quoted } from './quoted.js'
import { findResourceMetadata } from './resource-metadata.js'
import { defaultEndpoints, findServerMetadata, metadataUrls } from './server-metadata.js'

/** What a login needs to know about the server and its authorization server. */
export interface Discovered {
  readonly server: AuthorizationServer
  /** The `resource` of every request (RFC 8707), exactly as the server identifies itself; undefined when switched off. */
  readonly resource: string | undefined
  /** `scopes_supported` of the protected resource. */
  readonly scopesSupported: readonly string[] | undefined
}

/** The OAuth settings of a server that takes part in OAuth. */
export const oauthOf = ({ oauth }: HttpServerConfig): OAuthConfig => (oauth === false ? {} : oauth)

/** Fetches what the server and its authorization server name, and nothing that they should not reach. */
export function guardedFetchFor(config: HttpServerConfig): GuardedFetch {
  const { issuer } = oauthOf(config)
  return createGuardedFetch(issuer === undefined ? [config.url] : [config.url, issuer])
}

export interface DiscoverOptions {
  readonly fetch: GuardedFetch
  /** Of an earlier login; preferred among several. */
  readonly knownIssuer: string | undefined
  /** False when nothing says that the server wants a login at all: then it must at least have metadata. */
  readonly required: boolean
}

/** From the challenge to the authorization server. Undefined when none is required and none is named. */
export async function discover(
  config: HttpServerConfig,
  challenge: BearerChallenge,
  { fetch, knownIssuer, required }: DiscoverOptions,
): Promise<Discovered | undefined> {
  const settings = oauthOf(config)
  const document = await findResourceMetadata(config, challenge.resourceMetadata, fetch)
  const listed = document?.authorization_servers ?? []
  const resource =
    settings.resource === false ? undefined : (settings.resource ?? document?.resource ?? withoutQuery(config.url))
  const scopesSupported = document?.scopes_supported
  const found = (server: AuthorizationServer): Discovered => ({ server, resource, scopesSupported })

  if (settings.issuer !== undefined) return found(await findConfigured(settings.issuer, config, fetch))
  const [first] = listed
  if (first !== undefined) {
    const issuer = knownIssuer !== undefined && listed.includes(knownIssuer) ? knownIssuer : first
    if (!isPlainIssuer(issuer))
      throw new GatewayError('LOGIN_FAILED', `the server names an authorization server that is none: ${quoted(issuer)}`)
    const server = await findServerMetadata({ issuer }, fetch)
    if (!server) throw nothingFound(issuer, metadataUrls(issuer))
    return found(server)
  }
  if (!required) return undefined
  if (challenge.resourceMetadata !== undefined) {
    const named = quoted(challenge.resourceMetadata)
    throw new GatewayError(
      'LOGIN_FAILED',
      `the server points to its metadata at ${named}, and there is none that can be used`,
    )
  }
  // 2025-03-26: the server is its own authorization server. Its origin is derived, nobody wrote it with or without a slash.
  const { origin } = new URL(config.url)
  const server = await findServerMetadata({ issuer: origin, aliases: [`${origin}/`] }, fetch)
  return found(server ?? defaultEndpoints(origin))
}

/**
 * An issuer is compared as it is written, so it has to be written plainly: no user info, query or fragment (RFC 8414, section 2), no
 * other spelling of its host, and nothing that a message could not show.
 */
function isPlainIssuer(text: string): boolean {
  if (!/^[\x21-\x7e]+$/.test(text) || !URL.canParse(text)) return false
  const { protocol, host, search, hash } = new URL(text)
  return search === '' && hash === '' && text.toLowerCase().startsWith(`${protocol}//${host}`)
}

/**
 * The metadata of a configured issuer: its own. Some have none and leave it to the server itself; what that one says is believed only
 * where there is no secret of the issuer's client that could be given away.
 */
async function findConfigured(
  issuer: string,
  config: HttpServerConfig,
  fetch: GuardedFetch,
): Promise<AuthorizationServer> {
  const { clientSecret, privateKeyFile } = oauthOf(config)
  const { origin } = new URL(config.url)
  const isSecretive = clientSecret !== undefined || privateKeyFile !== undefined
  const urls = [...metadataUrls(issuer), ...(isSecretive ? [] : metadataUrls(origin))]
  const server = await findServerMetadata({ issuer, urls: [...new Set(urls)] }, fetch)
  if (!server) throw nothingFound(issuer, urls)
  return server
}

/** The query is no part of what the server is, and may hold a key. */
function withoutQuery(url: string): string {
  const { search } = new URL(url)
  return search === '' ? url : url.replace(search, '')
}

const nothingFound = (issuer: string, urls: readonly string[]): GatewayError =>
  new GatewayError('LOGIN_FAILED', `no metadata of the authorization server ${issuer} at ${urls.join(', ')}`)
