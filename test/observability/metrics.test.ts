import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { afterEach, describe, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { login } from '../../src/oauth/login.js'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { beginSession } from '../fixtures/http-clients.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { somebody } from '../oauth/people.js'
import { httpServer } from '../oauth/scene.js'

let gateway: TestGateway
afterEach(() => gateway?.close())

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}

async function start() {
  const port = await freePort()
  const files = {
    servers: {
      shop: nodeServer('shop.js'),
      broken: { command: '/nowhere/at/all' },
      off: { ...nodeServer('shop.js'), disabled: true },
    },
    rules: { agents: { reader: { allow: { servers: ['*'] }, deny: { tools: { shop: ['drop_*'] } } } } },
  }
  gateway = await openTestGateway(files, { GATEWAY_METRICS_PORT: String(port) })
  const front = await gateway.gateway.serveHttp({ port: 0 })
  const url = `http://127.0.0.1:${port}/metrics`
  const token = await front.issueToken('reader', 60)
  const call = (name: string, args: Record<string, unknown> = {}, bearer = token) =>
    ask(front.url, mcpRequest('modern', bearer, 'tools/call', { name, arguments: args }))
  /** The samples of one metric, by what stands between its braces. */
  const samples = async (name: string): Promise<Record<string, number>> => {
    const { text } = await ask(url)
    const found = [...text.matchAll(new RegExp(`^mcp_gateway_${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm'))]
    return Object.fromEntries(found.map(([, labels = '', value]) => [labels, Number(value)]))
  }
  return { url, front, token, call, samples }
}

describe('/metrics', () => {
  test('counts calls by operation, server and code, and times them', async () => {
    const { call, samples, url } = await start()
    await call('list_servers')
    for (let round = 0; round < 3; round++) await call('execute_tool', { server: 'shop', tool: 'list_tables' })
    await call('execute_tool', { server: 'shop', tool: 'drop_table' })
    await call('execute_tool', { server: 'broken', tool: 'x' })
    expect(await samples('calls_total')).toEqual({
      'operation="list_servers",server="",code="OK"': 1,
      'operation="execute_tool",server="shop",code="OK"': 3,
      'operation="execute_tool",server="shop",code="DENIED_BY_POLICY"': 1,
      'operation="execute_tool",server="broken",code="SERVER_UNAVAILABLE"': 1,
    })
    expect(await samples('call_duration_seconds_count')).toMatchObject({ 'operation="execute_tool",server="shop"': 4 })
    expect(await samples('backends')).toEqual({ 'state="ready"': 1, 'state="cooling"': 1, 'state="disabled"': 1 })
    expect(await samples('calls_in_flight')).toEqual({ '': 0 })
    const { headers, text } = await ask(url)
    expect(headers['content-type']).toContain('text/plain; version=0.0.4')
    expect(text).toContain('process_resident_memory_bytes')
  })

  test('has no label that a caller could make up', async () => {
    const { call, samples } = await start()
    for (let round = 0; round < 50; round++) {
      await call(`tool-${round}`)
      await call('execute_tool', { server: `server-${round}`, tool: `tool-${round}`, agent_id: 'reader' })
      await call('execute_tool', { server: 'shop', tool: `tool-${round}` })
    }
    expect(Object.keys(await samples('calls_total')).sort()).toEqual([
      'operation="execute_tool",server="other",code="DENIED_BY_POLICY"',
      'operation="execute_tool",server="shop",code="TOOL_NOT_FOUND"',
      'operation="other",server="",code="TOOL_NOT_FOUND"',
    ])
  })

  test('counts tokens by what was found of them, sessions, and reloads', async () => {
    const { call, samples, front, token } = await start()
    await call('list_servers')
    await call('list_servers', {}, 'eyJhbGciOiJFUzI1NiJ9.e30.c2ln')
    await ask(front.url, { method: 'POST' })
    expect(await samples('token_verifications_total')).toEqual({
      'result="ok"': 1,
      'result="invalid_token"': 1,
      'result="no_token"': 1,
    })
    await beginSession(front.url, token)
    expect(await samples('sessions')).toEqual({ '': 1 })
    expect((await samples('config_last_reload_timestamp_seconds'))['']).toBeGreaterThan(Date.now() / 1000 - 60)
  })

  test('counts renewals of logins, and changes of the configuration', async () => {
    const issuer = await openAuthorizationServer()
    const server = await openProtectedServer({ authorizationServer: issuer })
    const port = await freePort()
    const env = { GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64'), GATEWAY_KEYCHAIN: 'off' }
    const rules = { agents: { reader: { allow: { servers: ['*'] } } } }
    gateway = await openTestGateway(
      { servers: { notes: { url: server.url } }, rules },
      { ...env, GATEWAY_METRICS_PORT: String(port) },
    )
    await gateway.gateway.serveHttp({ port: 0 })
    const store = openCredentialStore({ directory: `${gateway.directory}/state`, env, warn: () => {} })
    await login(httpServer({ url: server.url }, 'notes'), { store, userAgent: somebody() })
    const call = () => gateway.call('get_server_tools', { server: 'notes' }, 'reader')
    await call()
    issuer.expireAccessTokens()
    const { structuredContent } = await call()
    const [tool] = structuredContent.tools as { name: string }[]
    await gateway.call('execute_tool', { server: 'notes', tool: tool?.name, args: { text: 'x' } }, 'reader')

    await writeFile(`${gateway.directory}/.mcp-gateway-rules.json`, '{')
    await expect.poll(() => gateway.gateway.runtime.reload.lastError).toBeDefined()
    await writeFile(`${gateway.directory}/.mcp-gateway-rules.json`, JSON.stringify({ ...rules, limits: {} }))
    await expect.poll(() => gateway.gateway.runtime.reload.lastError).toBeUndefined()
    const { text } = await ask(`http://127.0.0.1:${port}/metrics`)
    expect(text).toContain('mcp_gateway_token_refreshes_total{server="notes",result="ok"} 1\n')
    expect(text).toContain('mcp_gateway_config_reloads_total{result="failed"} 1\n')
    expect(text).toContain('mcp_gateway_config_reloads_total{result="ok"} 1\n')
    await Promise.all([server.close(), issuer.close()])
  })

  test('is for this machine, and for nobody else there', async () => {
    const { url, token } = await start()
    const statuses = await Promise.all([
      ask(url, { headers: { host: 'evil.example' } }),
      ask(url, { headers: { origin: 'http://127.0.0.1' } }),
      ask(url.replace('/metrics', '/')),
      ask(url, { method: 'POST' }),
      ask(`${url}?x=1`, { headers: { authorization: `Bearer ${token}` } }),
    ])
    expect(statuses.map(({ status }) => status)).toEqual([403, 403, 404, 405, 200])
  })

  test('a port that is taken is named', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await once(taken, 'listening')
    const { port } = taken.address() as AddressInfo
    gateway = await openTestGateway({ servers: {}, rules: {} }, { GATEWAY_METRICS_PORT: String(port) })
    await expect(gateway.gateway.serveHttp({ port: 0 })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('GATEWAY_METRICS_PORT'),
    })
    taken.close()
  })
})

test.each<[env: Record<string, string>, loaded: string[]]>([
  [{}, []],
  [{ GATEWAY_METRICS_PORT: '0' }, ['prom-client']],
  [{ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9' }, ['@opentelemetry']],
])('only what is asked for is loaded: %j', async (env, loaded) => {
  gateway = await openTestGateway({ servers: {}, rules: {} })
  const start = new URL('../../dist/start.js', import.meta.url).href
  const script = `
    const hooks = "import { writeSync } from 'node:fs'; export async function load(url, context, next) { writeSync(1, url + '\\\\n'); return next(url, context) }"
    import { register } from 'node:module'
    register('data:text/javascript,' + encodeURIComponent(hooks))
    const { startGateway } = await import(${JSON.stringify(start)})
    const [, config, rules, state, more] = process.argv
    const gateway = await startGateway({ config, rules, env: { HOME: state, GATEWAY_STATE_DIR: state, GATEWAY_KEYCHAIN: 'off', LOG_LEVEL: 'silent', ...JSON.parse(more) } })
    await gateway.serveHttp({ port: 0 })
    await gateway.close()
    process.exit()`
  const { directory } = gateway
  const args = [
    `${directory}/.mcp.json`,
    `${directory}/.mcp-gateway-rules.json`,
    `${directory}/other`,
    JSON.stringify(env),
  ]
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, ...args])
  const optional = ['prom-client', '@opentelemetry', 'rate-limiter-flexible']
  expect(stdout).toContain('/hono/')
  expect(optional.filter(name => stdout.includes(`/node_modules/${name}/`))).toEqual(loaded)
})
