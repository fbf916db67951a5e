import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** A device authorization endpoint that answers with these fields; its URL. */
export async function openDeviceEndpoint(fields: Readonly<Record<string, unknown>>): Promise<string> {
  const body = JSON.stringify({
    device_code: 'device-code',
    user_code: 'ABCD-EFGH',
    expires_in: 600,
    interval: 1,
    ...fields,
  })
  const server = createServer((_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(body),
  )
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/device`
}
