import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createMCPClient } from '@ai-sdk/mcp'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { Client as OldClient } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport as OldStdioTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport as OldHttpTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { BIN, gateway as runGateway, serveGateway } from '../fixtures/cli.js'
import { type TestResult, writeFiles } from '../fixtures/gateway.js'

/** What every client can do, whoever made it. */
interface AnyClient {
  listTools(): Promise<string[]>
  callTool(name: string, args: Record<string, unknown>): Promise<TestResult>
  close(): Promise<unknown>
}

const installed = (name: string) =>
  fileURLToPath(new URL(`../../node_modules/@modelcontextprotocol/${name}/dist/index.js`, import.meta.url))
const everything = installed('server-everything')

const rules = {
  agents: { developer: { allow: { servers: ['*'] }, deny: { tools: { filesystem: ['write_*'] } } } },
}

const closers: (() => Promise<unknown> | unknown)[] = []
let files: Awaited<ReturnType<typeof writeFiles>>
let url: string
let token: string

beforeAll(async () => {
  const port = await freePort()
  const remote = spawn(process.execPath, [everything, 'streamableHttp'], {
    env: { PATH: process.env.PATH, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  closers.push(() => remote.kill())
  await new Promise<void>(resolve => remote.stderr.on('data', text => String(text).includes('listening') && resolve()))

  const node = process.execPath
  files = await writeFiles({ servers: {}, rules })
  await writeFile(join(files.directory, 'hello.txt'), 'hello from a file')
  const servers = {
    everything: { command: node, args: [everything] },
    filesystem: { command: node, args: [installed('server-filesystem'), files.directory] },
    remote: { url: `http://127.0.0.1:${port}/mcp` },
  }
  await writeFile(files.config, JSON.stringify({ mcpServers: servers }))

  const served = await serveGateway([], { cwd: files.directory, env: files.env })
  closers.push(() => served.process.kill())
  url = served.url
  token = (
    await runGateway(['token', 'issue', '--agent', 'developer'], { cwd: files.directory, env: files.env })
  ).stdout.trim()
})
afterAll(async () => {
  for (const close of closers.reverse()) await close()
  await files.close()
})

const headers = () => ({ Authorization: `Bearer ${token}` })
const identity = { name: 'test', version: '1.0.0' }
const stdioEntry = () => ({
  command: process.execPath,
  args: [BIN, 'stdio', '--agent', 'developer'],
  cwd: files.directory,
  env: Object.fromEntries(
    Object.entries(files.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
  ),
})

async function current(
  transport: StreamableHTTPClientTransport | StdioClientTransport,
  era: 'legacy' | 'modern',
): Promise<AnyClient> {
  const client = new Client(identity, era === 'modern' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {})
  await client.connect(transport)
  expect(client.getProtocolEra()).toBe(era)
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    callTool: async (name, args) => (await client.callTool({ name, arguments: args })) as unknown as TestResult,
    close: () => client.close(),
  }
}

async function older(transport: OldHttpTransport | OldStdioTransport): Promise<AnyClient> {
  const client = new OldClient(identity)
  await client.connect(transport as Parameters<typeof client.connect>[0])
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    callTool: async (name, args) => (await client.callTool({ name, arguments: args })) as unknown as TestResult,
    close: () => client.close(),
  }
}

async function aiSdk(): Promise<AnyClient> {
  const client = await createMCPClient({ transport: { type: 'http', url, headers: headers() } })
  const tools = await client.tools()
  return {
    listTools: async () => Object.keys(tools),
    callTool: async (name, args) => {
      const tool = tools[name]
      if (!tool) throw new Error(`no tool ${name}`)
      return (await tool.execute(args, { toolCallId: '1', messages: [] })) as unknown as TestResult
    },
    close: () => client.close(),
  }
}

const http = () => new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: headers() } })

const clients: readonly [string, () => Promise<AnyClient>][] = [
  ['client 2.x, 2026 over HTTP', () => current(http(), 'modern')],
  ['client 2.x, 2025 over HTTP', () => current(http(), 'legacy')],
  ['client 2.x, 2026 over stdio', () => current(new StdioClientTransport(stdioEntry()), 'modern')],
  ['client 2.x, 2025 over stdio', () => current(new StdioClientTransport(stdioEntry()), 'legacy')],
  ['sdk 1.x over HTTP', () => older(new OldHttpTransport(new URL(url), { requestInit: { headers: headers() } }))],
  ['sdk 1.x over stdio', () => older(new OldStdioTransport(stdioEntry()))],
  ['Vercel AI SDK over HTTP', aiSdk],
]

describe.each(clients)('%s', (_, open) => {
  let client: AnyClient | undefined
  afterEach(() => client?.close())

  test('works from the list to a result', async () => {
    client = await open()
    const execute = (server: string, tool: string, args = {}) =>
      client?.callTool('execute_tool', { server, tool, args })

    expect(await client.listTools()).toEqual(['list_servers', 'search_tools', 'get_server_tools', 'execute_tool'])
    const { structuredContent } = await client.callTool('list_servers', {})
    expect((structuredContent.servers as { name: string }[]).map(({ name }) => name)).toEqual([
      'everything',
      'filesystem',
      'remote',
    ])

    for (const server of ['everything', 'remote']) {
      const text = { type: 'text', text: 'Echo: hi' }
      expect(await execute(server, 'echo', { message: 'hi' })).toMatchObject({ content: [text] })
    }
    const path = join(files.directory, 'hello.txt')
    expect(await execute('filesystem', 'read_text_file', { path })).toMatchObject({
      content: [{ type: 'text', text: 'hello from a file' }],
    })
    expect(await execute('everything', 'get-tiny-image')).toMatchObject({
      content: expect.arrayContaining([expect.objectContaining({ type: 'image', mimeType: 'image/png' })]),
    })
    expect(await execute('everything', 'get-structured-content', { location: 'New York' })).toMatchObject({
      structuredContent: { temperature: expect.any(Number) },
    })
    expect(await execute('filesystem', 'write_file', { path, content: 'x' })).toMatchObject({
      isError: true,
      structuredContent: { error: { code: 'DENIED_BY_POLICY' } },
    })
  })
})

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
