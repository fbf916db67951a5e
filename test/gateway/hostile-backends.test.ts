import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'

const hostile = (behaviour: string, extra = {}) => {
  const { command, args } = nodeServer('hostile.js')
  return { command, args: [...args, behaviour], ...extra }
}

const closers: (() => void)[] = []
async function listen(listener: RequestListener): Promise<string> {
  const server = createServer(listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  closers.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

let opened: TestGateway
let redirected = 0
beforeAll(async () => {
  const elsewhere = await listen((_, response) => {
    redirected++
    response.end()
  })
  const endless = await listen((request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' })
    const chunk = Buffer.alloc(1024 * 1024, ' ')
    const pour = () => {
      while (!response.destroyed && response.write(chunk));
    }
    response.on('drain', pour)
    request.on('data', () => {})
    pour()
  })
  const moving = await listen((_, response) => response.writeHead(307, { location: `${elsewhere}/mcp` }).end())
  const servers = {
    'half-closed': hostile('half-closed'),
    'schema-bomb': hostile('schema-bomb'),
    deep: hostile('deep'),
    telling: hostile('telling', { env: { API_KEY: '${KEY}' } }),
    apart: hostile('plain', { session: 'per-agent' }),
    endless: { url: endless },
    moving: { url: moving, headers: { 'X-Api-Key': '${KEY}' } },
    secretive: { url: 'https://127.0.0.1:1/${KEY}/mcp' },
  }
  const rules = { agents: { admin: { allow: { servers: ['*'] } }, other: { allow: { servers: ['*'] } } } }
  opened = await openTestGateway({ servers, rules }, { KEY: 'a-key-nobody-may-see' })
})
afterAll(async () => {
  await opened.close()
  for (const close of closers) close()
})

const call = (server: string, rest = {}, agent = 'admin') =>
  opened.call('execute_tool', { server, tool: 'x', ...rest }, agent)
const errorOf = async (server: string, rest = {}) => (await call(server, rest)).structuredContent.error

describe('a hostile server', () => {
  test('that stops reading costs its own calls only, and is started again', async () => {
    // Started before the clock of the call runs: nobody would write to it otherwise, and notice.
    await opened.call('get_server_tools', { server: 'half-closed' }, 'admin')
    expect(await errorOf('half-closed', { timeout_ms: 500 })).toMatchObject({ server: 'half-closed' })
    await expect
      .poll(() => opened.gateway.runtime.current.backends.get('half-closed')?.status().state)
      .not.toBe('ready')
    expect(await errorOf('half-closed', { timeout_ms: 500 })).toMatchObject({ server: 'half-closed' })
  })

  test('cannot stall the gateway with its schema: the server is asked instead', async () => {
    expect((await call('schema-bomb', { args: { a: 1 } })).isError).toBeUndefined()
  })

  test('cannot answer with what nobody can write down', async () => {
    expect(await errorOf('deep')).toMatchObject({ code: 'BACKEND_ERROR', message: expect.stringContaining('nested') })
  })

  test('cannot fill the memory with an answer that does not end', async () => {
    expect(await errorOf('endless')).toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expect(process.memoryUsage().rss).toBeLessThan(1_500_000_000)
  })

  test('cannot send us elsewhere with our headers', async () => {
    expect(await errorOf('moving')).toMatchObject({
      code: 'SERVER_UNAVAILABLE',
      message: expect.stringContaining('redirects'),
    })
    expect(redirected).toBe(0)
  })

  test('cannot tell agents its own key', async () => {
    const error = await errorOf('telling')
    expect(error).toMatchObject({ code: 'BACKEND_ERROR', backend_data: { key: '[redacted]' } })
    expect(JSON.stringify(error)).not.toContain('nobody-may-see')
    const listed = await opened.call('list_servers', { include_metadata: true }, 'admin')
    expect(JSON.stringify(listed)).not.toContain('nobody-may-see')
  })
})

describe('a hostile agent', () => {
  test('gets one process however many names it makes up below its own', async () => {
    const pidOf = async (agent: string) => (await call('apart', {}, agent)).structuredContent.pid
    const pids = await Promise.all(['admin', 'admin.a', 'admin.b', 'admin.c.d'].map(pidOf))
    expect(new Set(pids).size).toBe(1)
    expect(await pidOf('other')).not.toBe(pids[0])
  })

  test.each([
    ['a string of commas', ','.repeat(4_000_000)],
    ['a list without end', Array.from({ length: 5_000 }, () => 'x')],
  ])('cannot ask for %s', async (_, names) => {
    const { structuredContent } = await opened.call('get_server_tools', { server: 'apart', names }, 'admin')
    expect(structuredContent.error).toMatchObject({ code: 'INVALID_ARGUMENTS', path: '/names' })
  })

  test('cannot nest arguments until the stack ends', async () => {
    const deep = JSON.parse(`${'['.repeat(200_000)}${']'.repeat(200_000)}`)
    expect(await errorOf('apart', { args: { deep } })).toMatchObject({ code: 'INVALID_ARGUMENTS' })
  })
})

test('a URL with a password in it is refused', async () => {
  const files = { servers: { a: { url: 'http://user:hunter2@127.0.0.1:1/mcp' } }, rules: {} }
  await expect(openTestGateway(files)).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.not.stringContaining('hunter2'),
  })
})
