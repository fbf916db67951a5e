import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { GatewayError } from '../errors/gateway-error.js'
import type { Metrics } from '../observability/metrics.js'
import { isLoopbackHost } from './guards.js'

const HOST = '127.0.0.1'

export interface MetricsEndpoint {
  readonly url: string
  close(): void
}

/** `GET /metrics`, for this machine only; so it wants no token. */
export async function serveMetrics(port: number, metrics: Metrics): Promise<MetricsEndpoint> {
  const server = createServer((request, response) => {
    // A page somewhere may have a name that leads here (DNS rebinding).
    const host = (request.headers.host ?? '').replace(/:\d+$/, '')
    if (!isLoopbackHost(host) || request.headers.origin !== undefined) return void response.writeHead(403).end()
    const path = request.url?.split('?')[0]
    if (path !== '/metrics') return void response.writeHead(404).end()
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return void response.writeHead(405, { Allow: 'GET, HEAD' }).end()
    metrics.text().then(
      ({ body, contentType }) => response.writeHead(200, { 'Content-Type': contentType }).end(body),
      () => response.writeHead(500).end(),
    )
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', error => {
      const message = `GATEWAY_METRICS_PORT: ${HOST}:${port} cannot be listened on (${error.message}): choose another port`
      reject(new GatewayError('CONFIG_INVALID', message, { cause: error }))
    })
    server.listen(port, HOST, resolve)
  })
  server.unref()
  const address = server.address() as AddressInfo
  return {
    url: `http://${HOST}:${address.port}/metrics`,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}
