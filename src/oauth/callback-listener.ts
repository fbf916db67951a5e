import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { OAuthConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { isLoopbackHost } from './addresses.js'
import { callbackPage, PAGE_HEADERS } from './callback-page.js'

const DEFAULT_PORT = 8976
const DEFAULT_PATH = '/callback'
const LAST_PAGE_MS = 1_000
const MAX_CONNECTIONS = 64

/** The authorization response, as the browser brought it. The browser waits until `finish` says how the login ended. */
export interface CallbackAnswer {
  readonly parameters: URLSearchParams
  finish(title: string, text: string): void
}

/** Waits on loopback for the browser to come back (RFC 8252, section 7.3). */
export interface CallbackListener {
  readonly redirectUri: string
  /** The answer that carries this `state`; every other request is told off and changes nothing. */
  answerTo(state: string): Promise<CallbackAnswer>
  close(): void
}

/**
 * Listens where the redirect URI leads: `oauth.redirectUri`, else a port on 127.0.0.1 (`oauth.callbackPort`; else the one a
 * registration knows, else the usual one, else any that is free). With a redirect URI on another machine nothing is listened on:
 * the answer can only be pasted.
 */
export async function openCallbackListener(
  settings: OAuthConfig,
  registeredPort: number | undefined,
): Promise<CallbackListener> {
  const fixed = settings.redirectUri === undefined ? undefined : new URL(settings.redirectUri)
  if (fixed && (fixed.protocol !== 'http:' || !isLoopbackHost(fixed.hostname))) {
    return { redirectUri: fixed.href, answerTo: () => new Promise(() => {}), close() {} }
  }
  const desk = createDesk(fixed?.pathname ?? DEFAULT_PATH)
  const pinned = fixed ? Number(fixed.port || 80) : settings.callbackPort
  const ports = pinned === undefined ? [registeredPort ?? DEFAULT_PORT, DEFAULT_PORT, 0] : [pinned]
  const hosts =
    fixed?.hostname === 'localhost' ? ['127.0.0.1', '::1'] : [(fixed?.hostname ?? '127.0.0.1').replace(/^\[|\]$/g, '')]
  const { servers, port } = await listenOnFirstFree(desk.serve, hosts, ports).catch(error => {
    const key = fixed ? 'oauth.redirectUri' : 'oauth.callbackPort'
    const where = pinned === undefined ? '127.0.0.1' : `port ${pinned} (${key})`
    const why = hasCode(error, 'EADDRINUSE') ? 'is in use: free it, or choose another one' : messageOf(error)
    throw new GatewayError('LOGIN_FAILED', `the answer of the browser cannot be waited for: ${where} ${why}`, {
      cause: error,
    })
  })
  return {
    redirectUri: settings.redirectUri ?? `http://127.0.0.1:${port}${DEFAULT_PATH}`,
    answerTo: desk.answerTo,
    close() {
      for (const server of servers) {
        server.close()
        // The page is on its way; whoever still holds a connection after that has no business here.
        setTimeout(() => server.closeAllConnections(), LAST_PAGE_MS).unref()
      }
    },
  }
}

/** Takes requests of browsers and sorts out the one answer that is waited for. */
function createDesk(path: string): {
  serve: (request: IncomingMessage, response: ServerResponse) => void
  answerTo: (state: string) => Promise<CallbackAnswer>
} {
  const waiting = new Map<string, (answer: CallbackAnswer) => void>()
  const answered = new Set<string>()
  return {
    answerTo: state => new Promise(resolve => waiting.set(state, resolve)),
    serve(request, response) {
      const reply = (status: number, title: string, text: string) => {
        response.writeHead(status, { ...PAGE_HEADERS, connection: 'close' }).end(callbackPage(title, text))
      }
      const host = `http://${request.headers.host ?? ''}`
      // Another name for this address is a page of another site that tries its luck (DNS rebinding).
      if (!URL.canParse(host) || !isLoopbackHost(new URL(host).hostname))
        return reply(403, 'Not here', 'This address answers to its own name only.')
      // Not resolved against the host: `//` would be a host of its own.
      const target = `http://callback.invalid${request.url ?? '/'}`
      if (!URL.canParse(target)) return reply(400, 'Not readable', 'This is not the answer of a login.')
      const url = new URL(target)
      if (url.pathname !== path) return reply(404, 'Nothing here', 'This address only takes the answer of a login.')
      if (request.method !== 'GET') return reply(405, 'Not like this', 'The answer of a login comes with GET.')
      const state = url.searchParams.get('state') ?? ''
      const resolve = waiting.get(state)
      if (!resolve) {
        return answered.has(state)
          ? reply(400, 'Used before', 'This answer was used before. Nothing was changed.')
          : reply(400, 'Not expected', 'No login is waiting for this answer. Nothing was changed.')
      }
      waiting.delete(state)
      answered.add(state)
      resolve({ parameters: url.searchParams, finish: (title, text) => reply(200, title, text) })
    },
  }
}

async function listenOnFirstFree(
  serve: (request: IncomingMessage, response: ServerResponse) => void,
  hosts: readonly string[],
  [port = 0, ...others]: readonly number[],
): Promise<{ servers: Server[]; port: number }> {
  const servers: Server[] = []
  try {
    let chosen = port
    for (const host of hosts) {
      // The second address of `localhost` is welcome, and absent in most containers.
      const server = await listen(serve, host, chosen).catch(error => {
        if (servers.length > 0 && hasCode(error, 'EADDRNOTAVAIL', 'EAFNOSUPPORT')) return undefined
        throw error
      })
      if (!server) continue
      servers.push(server)
      const address = server.address()
      if (typeof address === 'object' && address !== null) chosen = address.port
    }
    return { servers, port: chosen }
  } catch (error) {
    for (const server of servers) server.close()
    if (others.length === 0) throw error
    return listenOnFirstFree(serve, hosts, others)
  }
}

const hasCode = (error: unknown, ...codes: readonly string[]): boolean =>
  error instanceof Error && 'code' in error && codes.includes(String(error.code))

function listen(
  serve: (request: IncomingMessage, response: ServerResponse) => void,
  host: string,
  port: number,
): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer(serve)
    server.maxConnections = MAX_CONNECTIONS
    server.once('error', reject)
    server.listen({ host, port, exclusive: true }, () => resolve(server))
  })
}
