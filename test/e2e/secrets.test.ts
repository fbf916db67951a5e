import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { gateway, serveGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'

const CANARY = {
  own: 'canary-own-7f3a91',
  env: 'canary-env-"quoted"-5b2c44',
  header: 'canary-header-91d0e2',
  argument: 'canary-argument-c0ffee',
}

// A remote server that is told the header and answers with an error that repeats it.
const remote = createServer((request, response) => {
  response.writeHead(500, { 'content-type': 'text/plain' }).end(`you sent ${request.headers['x-api-key']}`)
})

let files: Awaited<ReturnType<typeof writeFiles>>
beforeAll(async () => {
  await new Promise<void>(resolve => remote.listen(0, '127.0.0.1', resolve))
  const servers = {
    shop: nodeServer('shop.js', { env: { API_KEY: '${SERVER_KEY}' } }),
    leaky: nodeServer('leaky.js', { env: { API_KEY: '${SERVER_KEY}' } }),
    remote: {
      url: `http://127.0.0.1:${(remote.address() as AddressInfo).port}/`,
      headers: { 'X-Api-Key': '${HEADER_KEY}' },
    },
  }
  files = await writeFiles({ servers, rules: { agents: { reader: { allow: { servers: ['*'] } } } } })
})
afterAll(async () => {
  remote.close()
  await files.close()
})

test('no secret is in any log, audit line or answer, at trace level', async () => {
  const env = {
    ...files.env,
    SERVER_KEY: CANARY.env,
    HEADER_KEY: CANARY.header,
    MY_OWN_SECRET: CANARY.own,
    SERVE_LOG_LEVEL: 'trace',
  }
  const { process: server, url } = await serveGateway(['--debug'], { cwd: files.directory, env })
  const token = (await gateway(['token', 'issue', '--agent', 'reader'], { cwd: files.directory, env })).stdout.trim()
  const call = async (name: string, args: Record<string, unknown>) => {
    for (const era of ['legacy', 'modern'] as const) {
      for (const meta of [{}, { progressToken: 1 }]) {
        answers.push(
          (await ask(url, mcpRequest(era, token, 'tools/call', { name, arguments: args, _meta: meta }))).text,
        )
      }
    }
  }
  const answers: string[] = []
  await call('execute_tool', { server: 'shop', tool: 'dying', args: { x: CANARY.argument } })
  await call('execute_tool', { server: 'shop', tool: 'query', args: { sql: CANARY.argument, wrong: CANARY.argument } })
  await call('execute_tool', { server: 'leaky', tool: 'x', args: { x: CANARY.argument } })
  await call('execute_tool', { server: 'remote', tool: 'x', args: { x: CANARY.argument } })
  await call('list_servers', { include_metadata: true })
  await call('get_gateway_status', {})
  await ask(url, { method: 'POST', headers: { authorization: `Bearer ${token}x` } })
  server.kill('SIGTERM')
  await expect.poll(() => server.exitCode, { timeout: 15_000 }).toBe(0)

  const state = join(files.directory, 'state')
  const entries = await readdir(state, { recursive: true, withFileTypes: true })
  const written = entries.filter(entry => entry.isFile())
  const onDisk = await Promise.all(written.map(({ parentPath, name }) => readFile(join(parentPath, name), 'utf8')))
  const logs = server.output.stderr + server.output.stdout + onDisk.join('')
  expect(answers.join('')).toContain('[redacted]') // the leaky server's words did pass by
  expect(logs).toContain('backend cannot be connected')
  const encoded = [CANARY.env, JSON.stringify(CANARY.env).slice(1, -1), encodeURIComponent(CANARY.env)]
  for (const secret of [...encoded, CANARY.header, CANARY.own, token]) {
    expect(logs).not.toContain(secret)
    expect(answers.join('')).not.toContain(secret)
  }
  expect(logs).not.toContain(CANARY.argument)
})
