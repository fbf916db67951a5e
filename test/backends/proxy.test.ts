import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { describe, expect, test } from 'vitest'
import { openBackend } from '../fixtures/backend.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { openByHand } from '../fixtures/servers.js'

/** A proxy as companies have them: it knows where `backend.test` is, which nobody else does. */
async function openProxy(port: number) {
  const tunnels: string[] = []
  const server = createServer((_request, response) => response.writeHead(501).end())
  server.on('connect', ({ url = '' }, socket) => {
    tunnels.push(url)
    const onward = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      socket.pipe(onward).pipe(socket)
    })
    onward.on('error', () => socket.destroy())
    socket.on('error', () => onward.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    tunnels,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

describe.each(['legacy', 'modern'] as const)('a %s server behind a proxy', era => {
  const open = () => openByHand(createRichServer({ eras: [era], countExecution: () => 1 }))

  test.each(['HTTP_PROXY', 'http_proxy'])('is reached through %s', async variable => {
    await using http = await open()
    await using proxy = await openProxy(http.port)
    await using server = openBackend({ url: 'http://backend.test/mcp' }, { env: { [variable]: proxy.url } })
    await expect(server.call('text')).resolves.toMatchObject({ content: [{ text: 'plain' }] })
    expect(new Set(proxy.tunnels)).toEqual(new Set(['backend.test:80']))
  })

  test('is reached directly when NO_PROXY names it', async () => {
    await using http = await open()
    await using proxy = await openProxy(http.port)
    const env = { HTTP_PROXY: proxy.url, NO_PROXY: 'other.test,backend.test' }
    await using server = openBackend({ url: 'http://backend.test/mcp' }, { env })
    await expect(server.call('text')).rejects.toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expect(proxy.tunnels).toEqual([])
  })

  test('is reached directly on this machine', async () => {
    await using http = await open()
    await using proxy = await openProxy(http.port)
    await using server = openBackend({ url: http.url }, { env: { HTTP_PROXY: proxy.url, HTTPS_PROXY: proxy.url } })
    await expect(server.call('text')).resolves.toMatchObject({ content: [{ text: 'plain' }] })
    expect(proxy.tunnels).toEqual([])
  })
})
