import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { fetch } from 'undici'
import type { HttpServerConfig } from '../../config/servers-file.js'
import { messageOf } from '../../errors/gateway-error.js'
import { firstRequest } from '../../oauth/probe.js'
import type { Section } from './section.js'

/** How long one server may keep the doctor waiting. */
export interface Limit {
  readonly signal: AbortSignal
  readonly timeLeftMs: () => number
  stop(): void
}

export function openLimit(ms: number): Limit {
  const since = performance.now()
  const limit = new AbortController()
  const timer = setTimeout(() => limit.abort(new Error(`no answer within ${ms / 1000} s`)), ms)
  return {
    signal: limit.signal,
    timeLeftMs: () => Math.max(0, ms - (performance.now() - since)),
    stop: () => clearTimeout(timer),
  }
}

export interface HttpAnswer {
  readonly status: number
  readonly challenge: string | undefined
  readonly contentType: string
  readonly location: string | undefined
}

/** Name, connection and certificate, one after the other; true when the server can be talked to. */
export async function reach(section: Section, { url }: HttpServerConfig, limit: Limit): Promise<boolean> {
  const { hostname, protocol, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  if (!(await resolveName(section, host, limit))) return false
  const isTls = protocol === 'https:'
  const target = { host, port: Number(port || (isTls ? 443 : 80)) }
  const where = `${hostname}:${target.port}`
  const socket = isTls
    ? connectTls({ ...target, ALPNProtocols: ['http/1.1'], ...(isIP(host) === 0 && { servername: host }) })
    : connectTcp(target)
  try {
    await once(socket, isTls ? 'secureConnect' : 'connect', { signal: limit.signal })
    section.ok('connection', `${where}, ${isTls ? certificateOf(socket as TLSSocket) : 'without TLS'}`)
    return true
  } catch (error) {
    const { found, advice } = explain(limit.signal.aborted ? limit.signal.reason : error, where)
    section.failed('connection', found, advice)
    return false
  } finally {
    discard(socket)
  }
}

async function resolveName(section: Section, host: string, { signal }: Limit): Promise<boolean> {
  if (isIP(host) !== 0) {
    section.ok('DNS', `${host} is an address`)
    return true
  }
  try {
    const addresses = await Promise.race([lookup(host, { all: true }), aborted(signal)])
    section.ok('DNS', `${host} is ${addresses.map(({ address }) => address).join(', ')}`)
    return true
  } catch (error) {
    const found = `${host} has no address: ${codeOf(error) || messageOf(error)}`
    section.failed('DNS', found, 'check the host name in "url"; for one of your own network, whether the VPN is up')
    return false
  }
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }))

function discard(socket: Socket): void {
  socket.on('error', () => {}) // of no interest any more
  socket.destroy()
}

function certificateOf(socket: TLSSocket): string {
  const { issuer, valid_to: end } = socket.getPeerCertificate()
  const { O: organization, CN: name } = issuer ?? {}
  return `${socket.getProtocol()}, certificate by ${organization ?? name ?? 'nobody named'} until ${end}`
}

const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '')

const OWN_AUTHORITY =
  'if you trust it, save the certificate of its authority as PEM and start the gateway with NODE_EXTRA_CA_CERTS=FILE (set in the client, too)'
const BETWEEN = 'look at firewall, VPN and proxy between, and whether the server runs'

const WORDS: Readonly<Record<string, readonly [found: string, advice: string]>> = {
  ECONNREFUSED: ['nothing listens there', 'start the server, or correct host and port in "url"'],
  ECONNRESET: ['the connection was cut', BETWEEN],
  EHOSTUNREACH: ['there is no way to that address', BETWEEN],
  ENETUNREACH: ['there is no way to that network', BETWEEN],
  ETIMEDOUT: ['no answer', BETWEEN],
  DEPTH_ZERO_SELF_SIGNED_CERT: ['its certificate is signed by itself, and nobody here knows it', OWN_AUTHORITY],
  SELF_SIGNED_CERT_IN_CHAIN: [
    'its certificate is from an authority nobody here knows (a company proxy?)',
    OWN_AUTHORITY,
  ],
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: [
    'its certificate cannot be verified: the authority is unknown here, or the server leaves out a certificate between',
    OWN_AUTHORITY,
  ],
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: ['its certificate is from an authority nobody here knows', OWN_AUTHORITY],
  CERT_HAS_EXPIRED: [
    'its certificate has run out',
    'have it renewed; if it has not, the clock of this machine is wrong',
  ],
  CERT_NOT_YET_VALID: ['its certificate is not valid yet', 'check the clock of this machine'],
  ERR_TLS_CERT_ALTNAME_INVALID: ['its certificate is for another name', 'write the name of the certificate into "url"'],
  EPROTO: ['it does not speak TLS', 'write http: if that is meant, or correct the port'],
  ERR_SSL_WRONG_VERSION_NUMBER: ['it does not speak TLS', 'write http: if that is meant, or correct the port'],
}

function explain(error: unknown, where: string): { readonly found: string; readonly advice: string } {
  const code = codeOf(error)
  const [found, advice] = WORDS[code] ?? [messageOf(error), BETWEEN]
  return { found: `${where}: ${found}${code in WORDS ? ` (${code})` : ''}`, advice }
}

/**
 * Asks what the gateway itself asks first, with the configured headers and without a login. Rejects when there is no answer.
 */
export async function askOnce({ url, transport, headers }: HttpServerConfig, { signal }: Limit): Promise<HttpAnswer> {
  const response = await fetch(url, { ...firstRequest(transport, headers), signal })
  await response.body?.cancel().catch(() => {})
  const header = (name: string) => response.headers.get(name) ?? undefined
  return {
    status: response.status,
    challenge: header('www-authenticate'),
    contentType: header('content-type')?.split(';')[0] ?? '',
    location: header('location'),
  }
}
