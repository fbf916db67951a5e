import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { gateway } from '../fixtures/cli.js'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-init-'))
})
afterEach(() => rm(directory, { recursive: true }))

const run = (...args: string[]) =>
  gateway(args, { cwd: directory, env: { HOME: directory, GATEWAY_STATE_DIR: join(directory, 'state') } })
const put = async (name: string, content: unknown) => {
  await mkdir(dirname(join(directory, name)), { recursive: true })
  await writeFile(join(directory, name), JSON.stringify(content))
}
const written = async (name: string) => JSON.parse(await readFile(join(directory, name), 'utf8'))

test('without --from writes two files that pass the check', async () => {
  expect((await run('init')).status).toBe(0)
  expect(await run('check')).toMatchObject({ status: 0 })
  expect((await stat(join(directory, '.mcp.json'))).mode & 0o777).toBe(0o600)
})

test('never replaces a file unless forced', async () => {
  await put('.mcp.json', { mcpServers: {} })
  await put('.mcp-gateway-rules.json', {})
  expect(await run('init')).toMatchObject({ status: 78, stderr: expect.stringContaining('--force') })
  expect(await written('.mcp.json')).toEqual({ mcpServers: {} })
  expect((await run('init', '--force')).status).toBe(0)
})

test('with servers and no rules it writes rules for these servers, and leaves the servers alone', async () => {
  const servers = { mcpServers: { notion: { url: 'https://mcp.notion.example/mcp' } } }
  await put('.mcp.json', servers)
  expect(await run('init')).toMatchObject({ status: 0 })
  expect(await written('.mcp.json')).toEqual(servers)
  expect(await written('.mcp-gateway-rules.json')).toMatchObject({
    agents: { default: { allow: { servers: ['notion'] } } },
  })
  expect((await run('check')).status).toBe(0)
})

const server = { command: 'node', args: ['server.js'], env: { A: '1' } }

test.each<[string, string, unknown]>([
  [
    'claude-desktop',
    '.config/Claude/claude_desktop_config.json',
    { globalShortcut: 'x', mcpServers: { mine: server } },
  ],
  ['cursor', '.cursor/mcp.json', { mcpServers: { mine: { ...server, envFile: '.env' } } }],
  ['vscode', '.vscode/mcp.json', { inputs: [], servers: { mine: { type: 'stdio', ...server } } }],
  ['./exported.json', 'exported.json', { mcpServers: { mine: { ...server, alwaysAllow: ['x'] } } }],
])('--from %s imports its servers', async (source, file, content) => {
  await put(file, content)
  expect(await run('init', '--from', source)).toMatchObject({ status: 0 })
  expect((await written('.mcp.json')).mcpServers).toEqual({ mine: expect.objectContaining(server) })
  expect((await written('.mcp-gateway-rules.json')).agents.default.allow.servers).toEqual(['mine'])
  expect(await run('check')).toMatchObject({ status: 0 })
})

test('--from claude-code takes the servers of this project and of the user', async () => {
  await put('.claude.json', {
    mcpServers: { everywhere: server },
    projects: { [directory]: { mcpServers: { here: { type: 'http', url: 'https://example.com/mcp' } } } },
  })
  expect(await run('init', '--from', 'claude-code')).toMatchObject({ status: 0 })
  expect(Object.keys((await written('.mcp.json')).mcpServers)).toEqual(['here', 'everywhere'])
})

test('leaves the gateway itself out and turns inputs into variables, saying so', async () => {
  await put('.vscode/mcp.json', {
    servers: {
      gateway: { command: 'npx', args: ['agent-mcp-gateway'] },
      keyed: { ...server, env: { KEY: '${input:api-key}' } },
    },
  })
  const { stderr } = await run('init', '--from', 'vscode')
  expect((await written('.mcp.json')).mcpServers).toEqual({ keyed: { ...server, env: { KEY: '${API_KEY}' } } })
  expect(stderr).toContain('"gateway" is the gateway itself')
  expect(stderr).toContain('API_KEY')
})

test.each([
  ['an unknown client', 'emacs', 'expected claude-desktop'],
  ['a client that is not there', 'cursor', 'cannot be read'],
  ['a file without servers', './empty.json', 'no MCP servers'],
])('%s is an error that says what to do', async (_, source, text) => {
  await put('empty.json', {})
  expect(await run('init', '--from', source)).toMatchObject({ status: 78, stderr: expect.stringContaining(text) })
})
