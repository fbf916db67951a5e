// @ts-check
import { createServer, request } from 'node:http'
import { pipeline } from 'node:stream'

/**
 * Gives the suite, which knows no tokens, one server of a gateway: adds the token and changes the path, and nothing else. Host and
 * Origin are the client's, so that it is for the gateway to refuse them.
 * @param {{ gatewayUrl: string, server: string, token: string }} options
 */
export async function openProxy({ gatewayUrl, server, token }) {
  const { hostname, port } = new URL(gatewayUrl)
  const path = `/servers/${server}/mcp`
  const proxy = createServer((incoming, outgoing) => {
    const headers = [...withoutConnection(incoming.rawHeaders), 'Authorization', `Bearer ${token}`]
    const options = { hostname, port, path, method: incoming.method, headers, agent: false }
    const asked = request(options, answer => {
      outgoing.writeHead(answer.statusCode ?? 502, withoutConnection(answer.rawHeaders))
      outgoing.flushHeaders()
      // Either side may hang up on a stream at any time.
      pipeline(answer, outgoing, () => {})
    })
    asked.on('error', () => outgoing.destroy())
    outgoing.on('close', () => asked.destroy())
    pipeline(incoming, asked, () => {})
  })
  await new Promise(resolve => proxy.listen(0, '127.0.0.1', () => resolve(undefined)))
  const address = /** @type {import('node:net').AddressInfo} */ (proxy.address())
  return {
    url: `http://127.0.0.1:${address.port}/mcp`,
    close() {
      proxy.closeAllConnections()
      proxy.close()
    },
  }
}

// How a connection is kept and how a body is cut into pieces is between two neighbours.
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding'])

/** @param {readonly string[]} rawHeaders names and values in turn */
function withoutConnection(rawHeaders) {
  return rawHeaders.filter((_, index) => !HOP_BY_HOP.has(rawHeaders[index - (index % 2)]?.toLowerCase() ?? ''))
}
