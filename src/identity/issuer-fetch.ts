import { messageOf } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject, parseJson } from '../json.js'
import { version } from '../version.js'
import { IssuerUnavailableError } from './token-errors.js'

const MAX_BODY_BYTES = 1024 * 1024
const TIMEOUT_MS = 5_000

export interface IssuerRequest {
  readonly headers?: Readonly<Record<string, string>>
  /** Makes it a POST. */
  readonly body?: string
}

/**
 * Asks an endpoint of an issuer, which an administrator chose, for a JSON object: undefined when it has none there (404 and its like).
 * Nothing that callers send decides where this goes. Rejects with IssuerUnavailableError; through the proxies of the environment.
 */
export async function fetchFromIssuer(url: string, request: IssuerRequest = {}): Promise<JsonObject | undefined> {
  // Loaded when there is an issuer to ask: most gateways are their own.
  const [{ fetch }, { openDispatcher }] = await Promise.all([import('undici'), import('../config/proxy.js')])
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(), TIMEOUT_MS)
  const dispatcher = openDispatcher(url, {})
  try {
    const response = await fetch(url, {
      method: request.body === undefined ? 'GET' : 'POST',
      headers: { accept: 'application/json', 'user-agent': `agent-mcp-gateway/${version}`, ...request.headers },
      body: request.body ?? null,
      redirect: 'manual', // secrets and trust go to the address that was configured, or nowhere
      signal: limit.signal,
      dispatcher,
    })
    if ([404, 405, 410].includes(response.status)) return undefined
    if (response.status !== 200) throw new IssuerUnavailableError(`${url} answered HTTP ${response.status}`)
    const value = parseJson(await readBounded(response.body, url))?.value
    if (!isJsonObject(value)) throw new IssuerUnavailableError(`${url} answered with something that is no JSON object`)
    return value
  } catch (error) {
    if (error instanceof IssuerUnavailableError) throw error
    const reason = limit.signal.aborted ? 'no answer in time' : reasonOf(error)
    throw new IssuerUnavailableError(`cannot reach ${url}: ${reason}`, { cause: error, isSilent: true })
  } finally {
    clearTimeout(timer)
    void dispatcher.destroy()
  }
}

async function readBounded(body: AsyncIterable<Uint8Array> | null, url: string): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of body ?? []) {
    size += chunk.length
    if (size > MAX_BODY_BYTES) throw new IssuerUnavailableError(`${url} answers with more than ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** `fetch failed` says nothing; its cause does. */
const reasonOf = (error: unknown): string =>
  messageOf(error instanceof Error && error.cause instanceof Error ? error.cause : error) || 'no connection'
