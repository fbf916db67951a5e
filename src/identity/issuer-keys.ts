import {
  createLocalJWKSet,
  errors,
  type FlattenedJWSInput,
  type JSONWebKeySet,
  type JWSHeaderParameters,
  type JWTVerifyGetKey,
} from 'jose'
import { LRUCache } from 'lru-cache'
import type { IssuerConfig } from '../config/identity-config.js'
import { messageOf } from '../errors/gateway-error.js'
import { fetchFromIssuer } from './issuer-fetch.js'
import type { IssuerMetadata } from './issuer-metadata.js'
import { IssuerUnavailableError } from './token-errors.js'

const FRESH_MS = 10 * 60_000
/** An issuer that is away for so long may have had a reason to withdraw its keys. */
const USABLE_MS = 24 * 60 * 60_000
const MINUTE_MS = 60_000
const MAX_VAIN_FETCHES = 2
// One that has never answered is asked again soon, but not by every caller.
const RETRY_MS = 2_000
const MAX_UNKNOWN = 1_000
const UNKNOWN_MS = 30_000

export interface IssuerKeysOptions {
  readonly config: IssuerConfig
  readonly metadata: IssuerMetadata
  /** Told of every fetch that failed. */
  readonly onError?: (error: IssuerUnavailableError) => void
  readonly now?: () => number
}

interface Fetched {
  readonly at: number
}

/**
 * The keys of an issuer, fetched when the first token wants one. A token signed with a key nobody knows fetches them again, since they
 * may have been rotated; but callers choose what their tokens say, so not more than twice a minute in vain.
 * Throws IssuerUnavailableError while it cannot be known whether a token is good.
 */
export function openIssuerKeys(options: IssuerKeysOptions): JWTVerifyGetKey {
  const { config, metadata, onError = () => {}, now = Date.now } = options
  const unknown = new LRUCache<string, true>({ max: MAX_UNKNOWN, ttl: UNKNOWN_MS, perf: { now }, ttlResolution: 0 })
  /** The fetches of the last minute that did not find what they were for, each once however many waited for it. */
  const vain = new Set<Fetched>()
  let held: (Fetched & { readonly find: ReturnType<typeof createLocalJWKSet> }) | undefined
  let failed: (Fetched & { readonly error: IssuerUnavailableError }) | undefined
  let fetching: Promise<void> | undefined

  /** One for all who want it at the same time. */
  const refresh = (): Promise<void> => {
    fetching ??= fetchKeys(config, metadata)
      .then(
        find => {
          held = { find, at: now() }
          failed = undefined
        },
        error => {
          failed = { error: asUnavailable(error), at: now() }
          onError(failed.error)
          throw failed.error
        },
      )
      .finally(() => {
        fetching = undefined
      })
    return fetching
  }

  /** The keys that are held; without any they are fetched. */
  async function current() {
    const age = held ? now() - held.at : Number.POSITIVE_INFINITY
    if (held && age < USABLE_MS) {
      // The calls of this moment do not wait for it; while the issuer is away, what is known stays good.
      if (age > FRESH_MS && !isTooSoon()) void refresh().catch(() => {})
      return held
    }
    if (failed && isTooSoon()) throw failed.error
    await refresh()
    return held
  }

  const isTooSoon = () => failed !== undefined && now() - failed.at < RETRY_MS

  /** Whether to look for a key that is not among those held. */
  function mayLook(name: string): boolean {
    for (const fetched of vain) if (now() - fetched.at >= MINUTE_MS) vain.delete(fetched)
    return !unknown.has(name) && (fetching !== undefined || vain.size < MAX_VAIN_FETCHES)
  }

  /** Looks for a key that is not among those held; one look is one fetch, however many wait for it. */
  async function look(header: JWSHeaderParameters, token: FlattenedJWSInput) {
    await refresh().catch(error => {
      if (failed) vain.add(failed)
      throw error
    })
    const found = await held?.find(header, token).catch(orNoMatch)
    if (held && !found) vain.add(held)
    return found
  }

  return async (header, token) => {
    const before = held
    const keys = await current()
    const known = await keys?.find(header, token).catch(orNoMatch)
    if (known) return known
    const name = `${header.alg} ${header.kid}`.slice(0, 200)
    if (keys && keys !== before) {
      vain.add(keys) // they have just been fetched for it
      unknown.set(name, true)
    }
    // A fetch that is under way may have begun before the key was there.
    for (let looks = fetching ? 2 : 1; looks > 0 && mayLook(name); looks--) {
      const found = await look(header, token)
      if (found) return found
      if (looks === 1) unknown.set(name, true)
    }
    // The last look was in vain for another reason: the key may be there.
    if (failed) throw failed.error
    throw new errors.JWKSNoMatchingKey()
  }
}

function orNoMatch(error: unknown): undefined {
  if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
}

/** The keys as they are now. Rejects with IssuerUnavailableError. */
export async function fetchKeys({ issuer, url = issuer, jwksUri }: IssuerConfig, metadata: IssuerMetadata) {
  const named = jwksUri ?? (await namedIn(metadata))
  const target = named ?? `${url.replace(/\/+$/, '')}/.well-known/jwks.json`
  if (!URL.canParse(target)) throw new IssuerUnavailableError(`the issuer ${issuer} is no URL: set its jwksUri`)
  const keys = await fetchFromIssuer(target)
  if (!keys) throw new IssuerUnavailableError(`there are no keys of ${issuer} at ${target}`)
  try {
    return createLocalJWKSet(keys as unknown as JSONWebKeySet) // which checks that it is one
  } catch (error) {
    throw new IssuerUnavailableError(`${target} is no key set: ${messageOf(error)}`, { cause: error })
  }
}

/** The issuer's metadata may be the only part of it that is away. */
async function namedIn(metadata: IssuerMetadata): Promise<string | undefined> {
  const document = await metadata.read('oauth-authorization-server').catch(() => undefined)
  const uri = document?.jwks_uri
  return typeof uri === 'string' && URL.canParse(uri) && /^https?:/.test(uri) ? uri : undefined
}

const asUnavailable = (error: unknown): IssuerUnavailableError =>
  error instanceof IssuerUnavailableError ? error : new IssuerUnavailableError(messageOf(error), { cause: error })
