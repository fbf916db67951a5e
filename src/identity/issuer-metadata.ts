import type { IssuerConfig } from '../config/identity-config.js'
import type { JsonObject } from '../json.js'
import { fetchFromIssuer } from './issuer-fetch.js'
import { IssuerUnavailableError } from './token-errors.js'

const FRESH_MS = 5 * 60_000
// One that is away, or still starting, is asked again soon, but not by every caller.
const RETRY_MS = 2_000

/** The kind of document that is looked for first; the other one does as well. */
export type MetadataKind = 'oauth-authorization-server' | 'openid-configuration'

export interface IssuerMetadata {
  /** The issuer's own document, undefined when it has none. Rejects with IssuerUnavailableError when it cannot be asked. */
  read(kind: MetadataKind): Promise<JsonObject | undefined>
}

interface Remembered {
  readonly document: Promise<JsonObject | undefined>
  readonly until: number
}

/** The metadata of an issuer, fetched when it is first wanted and remembered for a while (RFC 8414, OpenID Connect Discovery). */
export function openIssuerMetadata(config: IssuerConfig, now: () => number = Date.now): IssuerMetadata {
  const remembered = new Map<MetadataKind, Remembered>()
  return {
    read(kind) {
      const known = remembered.get(kind)
      if (known && known.until > now()) return known.document
      const document = findMetadata(config, kind)
      remembered.set(kind, { document, until: Number.POSITIVE_INFINITY })
      const keepFor = (ms: number) => void remembered.set(kind, { document, until: now() + ms })
      document.then(
        found => keepFor(found ? FRESH_MS : RETRY_MS),
        () => keepFor(RETRY_MS),
      )
      return document
    },
  }
}

async function findMetadata({ issuer, url = issuer }: IssuerConfig, kind: MetadataKind) {
  let unavailable: unknown
  for (const candidate of metadataUrls(url, kind)) {
    try {
      const document = await fetchFromIssuer(candidate)
      // RFC 8414, section 3.3: what says to be another issuer's is another issuer's.
      if (document && [issuer, url].includes(String(document.issuer))) return document
    } catch (error) {
      if (!(error instanceof IssuerUnavailableError) || error.isSilent) throw error
      unavailable ??= error
    }
  }
  if (unavailable !== undefined) throw unavailable
  return undefined
}

/** Where the metadata may be, the wanted kind first: inserted before the issuer's path, and appended to it. */
function metadataUrls(issuer: string, kind: MetadataKind): string[] {
  if (!URL.canParse(issuer) || !/^https?:/.test(issuer)) return [] // an issuer may be a mere name
  const { origin, pathname } = new URL(issuer)
  const path = pathname.replace(/\/+$/, '')
  const oauth = ['oauth-authorization-server', 'openid-configuration']
  const kinds = kind === 'openid-configuration' ? oauth.toReversed() : oauth
  return kinds.flatMap(name => {
    const inserted = `${origin}/.well-known/${name}${path}`
    return path === '' ? [inserted] : [inserted, `${origin}${path}/.well-known/${name}`]
  })
}
