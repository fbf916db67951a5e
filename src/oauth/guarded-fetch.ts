import { lookup as resolveName } from 'node:dns'
import type { LookupFunction } from 'node:net'
import { fetch as undiciFetch } from 'undici'
import { openDispatcher } from '../config/proxy.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { version } from '../version.js'
import { isAddress, isLoopbackHost, rangeOf } from './addresses.js'
import { quoted } from './quoted.js'

const MAX_BODY_BYTES = 1024 * 1024
const MAX_REDIRECTS = 3
const DEFAULT_TIMEOUT_MS = 10_000
const USER_AGENT = `agent-mcp-gateway/${version}`

/** Fetches a URL that somebody else named. Rejects with LOGIN_FAILED (refused) or SERVER_UNAVAILABLE (not to be had now). */
export type GuardedFetch = (url: string, init?: GuardedInit) => Promise<Response>

export interface GuardedInit {
  readonly method?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
  readonly body?: string | undefined
  readonly timeoutMs?: number | undefined
  /** False: a redirect is the answer. Default: those of a GET are followed within the origin. */
  readonly followRedirects?: boolean | undefined
}

/**
 * The one way in which URLs that a server names are fetched: `https:` only (`http:` to loopback and to what the user
 * configured), addresses checked after resolving and connected to as checked, redirects only within an origin, 1 MiB, 10 s.
 * @param trustedUrls what the user configured: these origins are reached wherever they are, and a loopback one among them opens
 * loopback to the URLs it names, because a server under development has its authorization server on another local port.
 */
export function createGuardedFetch(trustedUrls: readonly string[]): GuardedFetch {
  const trusted = trustedUrls.map(url => new URL(url))
  const origins = new Set(trusted.map(({ origin }) => origin))
  const guard: Guard = { origins, loopback: trusted.some(({ hostname }) => isLoopbackHost(hostname)) }
  return async (url, init = {}) => {
    // Not AbortSignal.timeout() within AbortSignal.any(): Node 20 lets the garbage collector take that away before it fires.
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), init.timeoutMs ?? DEFAULT_TIMEOUT_MS)
    try {
      return await follow(checkUrl(url, guard), { ...init, signal: limit.signal }, guard)
    } finally {
      clearTimeout(timer)
    }
  }
}

async function follow(url: URL, init: GuardedInit & { signal: AbortSignal }, guard: Guard): Promise<Response> {
  let target = url
  for (let hops = 0; ; hops++) {
    const response = await fetchOnce(target, init, guard)
    const next = init.followRedirects === false ? undefined : redirectWithin(target, response, init.method)
    if (!next || hops === MAX_REDIRECTS) return response
    target = next
  }
}

interface Guard {
  readonly origins: ReadonlySet<string>
  readonly loopback: boolean
}

/** The URL, if it may be fetched at all; its addresses are checked when they are known. */
function checkUrl(text: string, guard: Guard): URL {
  if (!URL.canParse(text)) throw refused(text, 'it is not a URL')
  const url = new URL(text)
  if (url.username !== '' || url.password !== '') throw refused(text, 'it contains a user or password')
  if (guard.origins.has(url.origin)) return url
  const isLoopback = isLoopbackHost(url.hostname)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback)) throw refused(text, 'it is not https:')
  const address = url.hostname.replace(/^\[|\]$/g, '')
  if (isAddress(address)) {
    const isPlain = text.toLowerCase().startsWith(`${url.protocol}//${url.hostname}`)
    if (!isPlain) throw refused(text, `it hides the address ${address} in another spelling`)
    if (!mayReach(address, { isLoopback, guard })) throw notPublic(text, address)
  } else if (isLoopback && !guard.loopback) throw notPublic(text, url.hostname)
  return url
}

function mayReach(address: string, { isLoopback, guard }: { isLoopback: boolean; guard: Guard }): boolean {
  const range = rangeOf(address)
  return range === 'unicast' || (range === 'loopback' && isLoopback && guard.loopback)
}

async function fetchOnce(url: URL, init: GuardedInit & { signal: AbortSignal }, guard: Guard): Promise<Response> {
  // Behind a proxy names are resolved there; what can be checked here is the address that is written in a URL.
  const agent = openDispatcher(url, { connect: { lookup: checkedLookup(url, guard) } })
  try {
    const response = await undiciFetch(url, {
      method: init.method ?? 'GET',
      headers: { accept: 'application/json', 'user-agent': USER_AGENT, ...init.headers },
      body: init.body ?? null,
      redirect: 'manual',
      signal: init.signal,
      dispatcher: agent,
    })
    const body = await readBounded(response.body, url)
    const hasBody = ![101, 204, 205, 304].includes(response.status)
    return new Response(hasBody ? body : null, {
      status: response.status,
      headers: Object.fromEntries(response.headers),
    })
  } catch (error) {
    throw toGatewayError(error, url, init.signal)
  } finally {
    // Nothing is worth keeping: discovery happens once in a while, and every URL is another host.
    void agent.destroy()
  }
}

/** Resolves, checks every address, and hands on what was checked: a second answer of the DNS would come too late. */
function checkedLookup(url: URL, guard: Guard): LookupFunction {
  const isLoopback = isLoopbackHost(url.hostname)
  return (hostname, options, callback) =>
    resolveName(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, [])
      const forbidden = guard.origins.has(url.origin)
        ? undefined
        : addresses.find(({ address }) => !mayReach(address, { isLoopback, guard }))
      if (forbidden) return callback(notPublic(url.href, forbidden.address), [])
      const [first] = addresses
      if (options.all || !first) return callback(null, addresses)
      callback(null, first.address, first.family)
    })
}

async function readBounded(body: AsyncIterable<Uint8Array> | null, url: URL): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body ?? []) {
    size += chunk.length
    if (size > MAX_BODY_BYTES) throw refused(url.href, `it answers with more than ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** Where a redirect of a GET leads, if it stays within the origin; others are answers like any other. */
function redirectWithin(url: URL, response: Response, method = 'GET'): URL | undefined {
  const location = response.headers.get('location')
  if (method !== 'GET' || location === null || ![301, 302, 303, 307, 308].includes(response.status)) return undefined
  const target = URL.canParse(location, url.href) ? new URL(location, url) : undefined
  return target?.origin === url.origin ? target : undefined
}

function toGatewayError(error: unknown, url: URL, signal: AbortSignal): GatewayError {
  const cause = rootCause(error)
  if (cause instanceof GatewayError) return cause
  const reason = signal.aborted ? 'no answer in time' : messageOf(cause) || 'no connection'
  return new GatewayError('SERVER_UNAVAILABLE', `cannot reach ${url.origin}: ${reason}`, { cause: error })
}

/** `fetch failed` says nothing; the error at the end of its chain does. */
const rootCause = (error: unknown): unknown =>
  !(error instanceof GatewayError) && error instanceof Error && error.cause instanceof Error
    ? rootCause(error.cause)
    : error

const refused = (url: string, why: string): GatewayError =>
  new GatewayError('LOGIN_FAILED', `refusing to fetch ${quoted(url)}: ${why}`)

const notPublic = (url: string, address: string): GatewayError =>
  refused(
    url,
    `${address} is not a public address (if the authorization server is really there, set "oauth": { "issuer": "…" } for this server)`,
  )
