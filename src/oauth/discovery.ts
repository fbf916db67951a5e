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
  const resource = settings.resource === false ? undefined : (settings.resource ?? document?.resource ?? config.url)
  const scopesSupported = document?.scopes_supported
  const found = (server: AuthorizationServer): Discovered => ({ server, resource, scopesSupported })

  if (settings.issuer !== undefined) return found(await findConfigured(settings.issuer, listed, fetch))
  const [first] = listed
  if (first !== undefined) {
    const issuer = knownIssuer !== undefined && listed.includes(knownIssuer) ? knownIssuer : first
    // It is written into messages, and compared as it is.
    if (!/^[\x21-\x7e]+$/.test(issuer) || !URL.canParse(issuer))
      throw new GatewayError('LOGIN_FAILED', `not an issuer: ${quoted(issuer)}`)
    const server = await findServerMetadata({ issuer }, fetch)
    if (!server) throw nothingFound(issuer, metadataUrls(issuer))
    return found(server)
  }
  if (!required) return undefined
  // 2025-03-26: the server is its own authorization server. Its origin is derived, nobody wrote it with or without a slash.
  const { origin } = new URL(config.url)
  const server = await findServerMetadata({ issuer: origin, aliases: [`${origin}/`] }, fetch)
  return found(server ?? defaultEndpoints(origin))
}

/** A configured issuer is trusted: its own metadata, or what the listed servers say if they call themselves so. */
async function findConfigured(
  issuer: string,
  listed: readonly string[],
  fetch: GuardedFetch,
): Promise<AuthorizationServer> {
  const urls = [issuer, ...listed.filter(other => other !== issuer && URL.canParse(other))].flatMap(metadataUrls)
  const server = await findServerMetadata({ issuer, urls }, fetch)
  if (!server) throw nothingFound(issuer, urls)
  return server
}

const nothingFound = (issuer: string, urls: readonly string[]): GatewayError =>
  new GatewayError('LOGIN_FAILED', `no metadata of the authorization server ${issuer} at ${urls.join(', ')}`)
