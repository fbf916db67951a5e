import type { AddressInfo } from 'node:net'
import { type ServerType, serve } from '@hono/node-server'
import { GatewayError } from '../errors/gateway-error.js'
import type { HttpApp } from './app.js'

const MAX_HEADER_BYTES = 256 * 1024

export interface Listening {
  readonly port: number
  /** Stops listening and ends whatever is still open; calls under way have been waited for. */
  close(): void
}

/** Binds before there is an app, because the public URL may depend on the port that the system chose. */
export async function listen(
  host: string,
  port: number,
  createApp: (port: number) => HttpApp,
): Promise<Listening & { readonly app: HttpApp }> {
  let app: HttpApp | undefined
  const server = await new Promise<ServerType>((resolve, reject) => {
    const starting = serve(
      {
        fetch: (request, env) => app?.fetch(request, env) ?? new Response(null, { status: 503 }),
        hostname: host,
        port,
        // Node's own limit of 16 KiB is less than some tokens; what is too long for a token is refused as that.
        serverOptions: { maxHeaderSize: MAX_HEADER_BYTES },
      },
      () => resolve(starting),
    )
    starting.once('error', error => reject(explain(error, host, port)))
  })
  const address = server.address() as AddressInfo
  app = createApp(address.port)
  return {
    app,
    port: address.port,
    close() {
      server.close()
      if ('closeAllConnections' in server) server.closeAllConnections()
    },
  }
}

function explain(error: Error, host: string, port: number): Error {
  const code = 'code' in error ? error.code : undefined
  if (code === 'EADDRINUSE')
    return new GatewayError(
      'CONFIG_INVALID',
      `${host}:${port} is in use: choose another port with --port or MCP_SERVER_PORT (0 takes any free one)`,
      { cause: error },
    )
  if (code === 'EACCES')
    return new GatewayError(
      'CONFIG_INVALID',
      `no permission to listen on ${host}:${port}: choose a port above 1023 with --port`,
      { cause: error },
    )
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND')
    return new GatewayError(
      'CONFIG_INVALID',
      `${host} is not an address of this machine: check --host or MCP_SERVER_HOST`,
      { cause: error },
    )
  return error
}
