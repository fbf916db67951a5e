import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type GatewayProcess, gateway, serveGateway } from '../fixtures/cli.js'
import { writeFiles } from '../fixtures/gateway.js'

const run = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))
const example = ['--config', '.mcp.json.example', '--rules', '.mcp-gateway-rules.json.example']

let files: Awaited<ReturnType<typeof writeFiles>>
let server: GatewayProcess
let env: Record<string, string | undefined>

beforeAll(async () => {
  files = await writeFiles({ servers: {}, rules: {} })
  env = { ...files.env, HOME: process.env.HOME }
  const served = await serveGateway([...example, '--quickstart', 'developer'], {
    cwd: root,
    env: { ...env, npm_config_offline: 'true' },
  })
  server = served.process
})
afterAll(async () => {
  server.kill('SIGTERM')
  if (server.exitCode === null) await once(server, 'exit')
  await files.close()
})

const printed = () => server.output.stdout

test('prints a curl line that works when pasted', async () => {
  await expect.poll(printed).toContain('For a client that speaks HTTP')
  const line = printed()
    .split('\n')
    .find(text => text.startsWith('curl '))
  const { stdout } = await run('sh', ['-c', String(line)])
  expect(JSON.parse(stdout)).toEqual({
    jsonrpc: '2.0',
    id: 1,
    result: { content: [{ type: 'text', text: 'Echo: hello' }] },
  })
})

test('prints the JSON for clients, with the same token', async () => {
  await expect.poll(printed).toContain('For a client that speaks HTTP')
  const json = JSON.parse(printed().slice(printed().indexOf('{\n  "mcpServers"')))
  const { url, headers } = json.mcpServers.gateway
  const initialize = {
    jsonrpc: '2.0',
    id: 1,
    method: 'initialize',
    params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'x', version: '1' } },
  }
  const response = await fetch(url, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json', accept: 'application/json, text/event-stream' },
    body: JSON.stringify(initialize),
  })
  expect(response.status).toBe(200)
  expect(await response.text()).toContain('agent-mcp-gateway')
})

test('what the example rules only show can be used as it stands there', async () => {
  const text = await readFile(`${root}/.mcp-gateway-rules.json.example`, 'utf8')
  const sections = text.match(/^ *\/\/ "/gm) ?? []
  expect(sections).toHaveLength(4)
  await writeFile(files.rules, text.replaceAll('// "', '"'))
  const { status, stdout } = await gateway(['check', '--config', '.mcp.json.example', '--rules', files.rules], {
    cwd: root,
    env: { ...env, BRAVE_API_KEY: 'key' },
  })
  expect([status, stdout]).toEqual([0, expect.not.stringContaining('warning')])
})

test('of the example servers two work, one is misconfigured, and the remote one does not stop them', async () => {
  // The gateway that runs would say how it is, and it has not used all of them.
  const other = await writeFiles({ servers: {}, rules: {} })
  onTestFinished(() => other.close())
  const { stdout } = await gateway(['status', '--json', ...example], {
    cwd: root,
    env: { ...env, ...other.env, npm_config_offline: 'true' },
  })
  const { servers } = JSON.parse(stdout)
  expect(servers).toMatchObject([
    { name: 'everything', state: 'ready', tools: expect.any(Number) },
    { name: 'filesystem', state: 'ready', tools: expect.any(Number) },
    { name: 'brave-search', state: 'misconfigured', last_error: expect.stringContaining('BRAVE_API_KEY') },
    { name: 'notion', transport: 'http', state: expect.stringMatching(/cooling|login needed/) },
  ])
})
