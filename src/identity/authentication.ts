import { createLocalJWKSet } from 'jose'
import {
  ASYMMETRIC_ALGORITHMS,
  type IdentityConfig,
  type IssuerConfig,
  NO_IDENTITY,
} from '../config/identity-config.js'
import type { JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { API_KEY_PREFIX, type ApiKeys } from './api-keys.js'
import { type EmbeddedIssuer, LOCAL_AUDIENCE } from './embedded-issuer.js'
import { openIntrospection } from './introspection.js'
import { openIssuerKeys } from './issuer-keys.js'
import { type MetadataKind, openIssuerMetadata } from './issuer-metadata.js'
import { createTokenVerifier, type TokenVerifier, type TrustedIssuer, type VerifiedToken } from './token-verifier.js'

export interface AuthenticationOptions {
  /** The gateway's URL, including /mcp. */
  readonly resource: string
  /** False: the gateway has a public URL, and tokens are made out to that. */
  readonly isLocal: boolean
  readonly embedded: EmbeddedIssuer
  /** Audience of this one process, for this user's own commands. */
  readonly instance: string
  readonly apiKeys: ApiKeys
  /** The issuer that the environment names, and the audience of tokens where no issuer has another (`OAUTH_AUDIENCE`). */
  readonly issuer?: IssuerConfig | undefined
  readonly audience?: string | undefined
  readonly logger: Logger
}

/** Who may come in: the one place that knows every kind of credential. */
export interface Authentication {
  /** The external issuers, the first of them first; without any it is the embedded one. */
  readonly issuers: readonly string[]
  /** All that are trusted, with what is expected of their tokens. */
  readonly trusted: readonly TrustedIssuer[]
  /** Takes the rules' `identity` into effect, at start and at every reload. Nothing that was verified before counts any longer. */
  configure(identity: IdentityConfig | undefined): void
  verify: (credential: string, door?: string) => Promise<VerifiedToken>
  /** Whether that can be said without asking anybody about this very credential. */
  judgesAlone: (credential: string) => boolean
  /** The metadata of the first external issuer, or the little that is known without it. */
  metadata(kind: MetadataKind): Promise<{ readonly document: JsonObject; readonly isComplete: boolean } | undefined>
}

/** What is kept of an issuer across reloads: its keys, and what it said about tokens. */
type Connection = Pick<TrustedIssuer, 'keys' | 'introspection'> & { metadata: ReturnType<typeof openIssuerMetadata> }

export function createAuthentication(options: AuthenticationOptions): Authentication {
  const { apiKeys, logger } = options
  let connections = new Map<string, Connection>()
  let configs: readonly IssuerConfig[] = []
  let trusted: readonly TrustedIssuer[] = []
  let verifier: TokenVerifier = createTokenVerifier({ issuers: [] })

  return {
    get issuers() {
      return configs.map(({ issuer }) => issuer)
    },

    get trusted() {
      return trusted
    },

    configure(identity = NO_IDENTITY) {
      configs = allIssuers(options.issuer, identity)
      const connected = configs.map(
        config => [config, connections.get(keyOf(config)) ?? connect(config, logger)] as const,
      )
      connections = new Map(connected.map(([config, connection]) => [keyOf(config), connection]))
      const external = connected.map(([config, connection]) => trust(config, connection, identity, options))
      trusted = [...external, ...trustEmbedded(external.length > 0, identity, options)]
      verifier = createTokenVerifier({ issuers: trusted, clockToleranceSeconds: identity.clockToleranceSeconds })
    },

    verify: (credential, door) =>
      credential.startsWith(API_KEY_PREFIX) ? apiKeys.verify(credential) : verifier.verify(credential, door),

    judgesAlone: credential => credential.startsWith(API_KEY_PREFIX) || verifier.judgesAlone(credential),

    async metadata(kind) {
      const [first] = configs
      if (!first) return undefined
      const connection = connections.get(keyOf(first))
      const document = await connection?.metadata.read(kind).catch(() => undefined)
      return document ? { document, isComplete: true } : { document: minimalMetadata(first), isComplete: false }
    },
  }
}

/** The same for configurations that ask the same addresses. */
const keyOf = ({ issuer, url, jwksUri, introspection }: IssuerConfig): string =>
  JSON.stringify([issuer, url, jwksUri, introspection])

/** What the rules say about an issuer goes before what the environment says about the same one. */
export const allIssuers = (issuer: IssuerConfig | undefined, { issuers }: IdentityConfig): readonly IssuerConfig[] => {
  if (!issuer) return issuers
  const { issuer: name, ...located } = issuer
  const same = issuers.find(other => other.issuer === name)
  return [{ ...located, ...same, issuer: name }, ...issuers.filter(other => other !== same)]
}

function connect(config: IssuerConfig, logger: Logger): Connection {
  const metadata = openIssuerMetadata(config)
  const warn = (text: string) => (error: Error) => logger.warn({ issuer: config.issuer, reason: error.message }, text)
  return {
    metadata,
    keys: openIssuerKeys({ config, metadata, onError: warn('the keys of the issuer are not to be had') }),
    introspection:
      config.introspection &&
      openIntrospection(config.introspection, { onError: warn('the issuer cannot be asked about a token') }),
  }
}

function trust(
  config: IssuerConfig,
  { keys, introspection }: Pick<TrustedIssuer, 'keys' | 'introspection'>,
  { agents, roles }: IdentityConfig,
  { resource, audience }: Pick<AuthenticationOptions, 'resource' | 'audience'>,
): TrustedIssuer {
  return {
    issuer: config.issuer,
    audiences: [config.audience ?? audience ?? resource],
    algorithms: config.algorithms ?? ASYMMETRIC_ALGORITHMS,
    keys,
    introspection,
    claims: { agents, roles, names: config },
  }
}

/**
 * The embedded issuer stands in while there is no other. With others it still lets in `gateway connect`, which proves with the key
 * that it is this user on this machine; that opens nothing to what `gateway token issue` prints.
 */
function trustEmbedded(
  isReplaced: boolean,
  { agents, roles }: IdentityConfig,
  { embedded, instance, resource, isLocal }: AuthenticationOptions,
): TrustedIssuer[] {
  const { issuer, algorithms, jwks } = embedded
  const audiences: [string, ...string[]] = isReplaced
    ? [instance]
    : [resource, instance, ...(isLocal ? [LOCAL_AUDIENCE] : [])]
  const claims = { agents, roles, names: {} }
  return [{ issuer, algorithms, audiences, keys: createLocalJWKSet(jwks), claims, isInternal: isReplaced }]
}

/** RFC 8414, section 2: what clients can do nothing without. */
const minimalMetadata = ({ issuer, url = issuer, jwksUri }: IssuerConfig): JsonObject => ({
  issuer,
  jwks_uri: jwksUri ?? `${url.replace(/\/+$/, '')}/.well-known/jwks.json`,
  response_types_supported: ['code'],
})
