import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { IssuerConfig } from '../config/identity-config.js'
import type { JsonObject } from '../json.js'
import { fetchFromIssuer } from './issuer-fetch.js'
import { IssuerUnavailableError } from './token-errors.js'

const MAX_REMEMBERED = 10_000
const ACTIVE_MS = 60_000
// What is not active now will not become it; this only keeps one bad token from being asked about all the time.
const INACTIVE_MS = 10_000

export interface Introspection {
  /** What the issuer says about a token (RFC 7662); undefined for one that is not active. Rejects with IssuerUnavailableError. */
  ask(token: string): Promise<JsonObject | undefined>
  /** Whether that can be said without asking. */
  knows(token: string): boolean
}

type Endpoint = NonNullable<IssuerConfig['introspection']>

/** Asks once about each token, and again after a minute at the latest: so long may a revoked one go on. */
export function openIntrospection(
  endpoint: Endpoint,
  { onError = () => {}, now = Date.now }: { onError?: (error: Error) => void; now?: () => number } = {},
): Introspection {
  const answers = new LRUCache<string, Promise<JsonObject | undefined>>({
    max: MAX_REMEMBERED,
    perf: { now },
    ttlResolution: 0,
  })
  const keyOf = (token: string) => hash('sha256', token, 'base64')
  return {
    knows: token => answers.has(keyOf(token)),
    ask(token) {
      const key = keyOf(token)
      const known = answers.get(key)
      if (known) return known
      const asking = introspect(endpoint, token)
      answers.set(key, asking) // for all who bring it at the same time
      asking.then(
        claims => answers.set(key, asking, { ttl: Math.max(1, claims ? untilExpiry(claims, now()) : INACTIVE_MS) }),
        error => {
          answers.delete(key)
          onError(error)
        },
      )
      return asking
    },
  }
}

const untilExpiry = ({ exp }: JsonObject, nowMs: number): number =>
  typeof exp === 'number' ? Math.min(ACTIVE_MS, exp * 1000 - nowMs) : ACTIVE_MS

async function introspect({ endpoint, clientId, clientSecret }: Endpoint, token: string) {
  const claims = await fetchFromIssuer(endpoint, {
    headers: {
      authorization: `Basic ${Buffer.from(`${formEncoded(clientId)}:${formEncoded(clientSecret)}`).toString('base64')}`,
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: new URLSearchParams({ token, token_type_hint: 'access_token' }).toString(),
  })
  if (typeof claims?.active !== 'boolean')
    throw new IssuerUnavailableError(`${endpoint} does not say whether a token is active`)
  return claims.active ? claims : undefined
}

/** RFC 6749, section 2.3.1: encoded before they are put together, since either may hold a colon. */
const formEncoded = (text: string): string => new URLSearchParams({ x: text }).toString().slice('x='.length)
