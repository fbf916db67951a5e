import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createGuardedFetch } from '../../src/oauth/guarded-fetch.js'
import { whileTidyingUp } from './garbage.js'
import { failure, openScene } from './scene.js'

/** A server on loopback that answers so; its URL. */
async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

describe('metadata without measure is cut', () => {
  test.each(['huge', 'endless'] as const)('%s, of the resource', async metadataServed => {
    const scene = await openScene({ server: { metadataServed } })
    expect((await failure(scene.login())).message).toContain('bytes')
    expect(scene.issuer.requests).toEqual([])
  })

  test.each(['huge', 'endless'] as const)('%s, of the authorization server', async served => {
    const scene = await openScene({ issuer: { served } })
    expect((await failure(scene.login())).message).toContain('bytes')
    expect(scene.issuer.counts.registrations).toBe(0)
  })

  test('elsewhere: a redirect to another origin is not followed', async () => {
    let asked = 0
    const elsewhere = await serve((_request, response) => {
      asked++
      response.end('{}')
    })
    const scene = await openScene({ server: { metadataServed: { redirect: `${elsewhere}/prm` }, challenge: 'bare' } })
    await failure(scene.login())
    const other = await openScene({ issuer: { served: { redirect: `${elsewhere}/as` } } })
    await failure(other.login())
    expect(asked).toBe(0)
  })
})

describe('the guarded fetch', () => {
  test('cuts what is small on the way and large when unpacked', async () => {
    const bomb = gzipSync(Buffer.alloc(20_000_000))
    const url = await serve((_request, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end(bomb))
    await failure(createGuardedFetch([url])(url))
  })

  test('gives up on headers that never come', async () => {
    const url = await serve(() => {})
    await failure(createGuardedFetch([url])(url, { timeoutMs: 100 }), 'SERVER_UNAVAILABLE')
  })

  test('gives up in time although memory is tidied up meanwhile', async () => {
    const url = await serve(() => {})
    const given = failure(createGuardedFetch([url])(url, { timeoutMs: 500 }), 'SERVER_UNAVAILABLE')
    expect((await whileTidyingUp(given)).message).toContain('in time')
  })

  test('counts the time over all redirects', async () => {
    const url = await serve((request, response) => {
      setTimeout(() => response.writeHead(302, { location: `${request.url}x` }).end(), 80)
    })
    const started = Date.now()
    await failure(createGuardedFetch([url])(`${url}/`, { timeoutMs: 200 }), 'SERVER_UNAVAILABLE')
    expect(Date.now() - started).toBeLessThan(2_000)
  })

  test('follows redirects within the origin, not for ever', async () => {
    let hops = 0
    const url = await serve((_request, response) => {
      hops++
      response.writeHead(302, { location: '/again' }).end()
    })
    const { status } = await createGuardedFetch([url])(url)
    expect(status).toBe(302)
    expect(hops).toBeLessThanOrEqual(5)
  })

  test('sends no body after a redirect', async () => {
    const seen: string[] = []
    const url = await serve((request, response) => {
      seen.push(`${request.method} ${request.url}`)
      response.writeHead(307, { location: '/elsewhere' }).end()
    })
    const { status } = await createGuardedFetch([url])(`${url}/token`, { method: 'POST', body: 'secret' })
    expect(status).toBe(307)
    expect(seen).toEqual(['POST /token'])
  })
})
