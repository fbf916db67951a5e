import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type GatewayProcess, isAlive, spawnGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'

const rules = { agents: { default: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } }

// Never answers anything, and keeps a child that ignores SIGTERM.
const hanging = {
  command: 'sh',
  args: [
    '-c',
    `node -e "process.on('SIGTERM',()=>{});require('fs').writeFileSync(process.env.PID_FILE,String(process.pid));setInterval(()=>{},1e6)"; sleep 1000`,
  ],
}

let files: Awaited<ReturnType<typeof writeFiles>>
let gateway: GatewayProcess
let pidFile: string
let answers: AsyncIterableIterator<string>

beforeEach(async () => {
  files = await writeFiles({ servers: {}, rules })
  pidFile = join(files.directory, 'pid')
})
afterEach(async () => {
  gateway.kill('SIGKILL')
  await files.close()
})

async function start(servers: Record<string, unknown>, args: string[] = []): Promise<void> {
  await files.close()
  files = await writeFiles({ servers, rules })
  pidFile = join(files.directory, 'pid')
  gateway = spawnGateway(args, { cwd: files.directory, env: { ...files.env, PID_FILE: pidFile } })
  answers = createInterface({ input: gateway.stdout })[Symbol.asyncIterator]()
}

const send = (message: Record<string, unknown>) =>
  gateway.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
const receive = async () => JSON.parse((await answers.next()).value)

const INITIALIZE = {
  id: 0,
  method: 'initialize',
  params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
}
const execute = (id: number, server: string, tool: string, args = {}) => ({
  id,
  method: 'tools/call',
  params: { name: 'execute_tool', arguments: { server, tool, args } },
})

describe('the bare command with a pipe on stdin', () => {
  test('answers initialize whatever the servers are doing', async () => {
    await start({ hanging: { ...hanging, inheritEnv: ['PID_FILE'] } })
    send(INITIALIZE)
    expect(await receive()).toMatchObject({
      id: 0,
      result: { protocolVersion: '2025-06-18', serverInfo: { name: 'agent-mcp-gateway' }, capabilities: { tools: {} } },
    })
  })

  test('answers server/discover of 2026-07-28 as well', async () => {
    await start({})
    const _meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    }
    send({ id: 'd', method: 'server/discover', params: { _meta } })
    expect(await receive()).toMatchObject({
      id: 'd',
      result: { supportedVersions: ['2026-07-28'], capabilities: { tools: {} } },
    })
    send({ ...execute(1, 'nowhere', 'x'), params: { ...execute(1, 'nowhere', 'x').params, _meta } })
    expect(await receive()).toMatchObject({ id: 1, result: { resultType: 'complete', isError: true } })
  })

  test('stdout carries protocol only, whatever servers and configuration print', async () => {
    await start({ shop: nodeServer('shop.js'), unset: nodeServer('shop.js', { env: { A: '${NOT_SET_ANYWHERE}' } }) })
    send(INITIALIZE)
    send({ method: 'notifications/initialized' })
    send(execute(1, 'shop', 'query', { sql: 'a' }))
    send(execute(2, 'unset', 'query', { sql: 'a' }))
    const ids = new Set([(await receive()).id, (await receive()).id, (await receive()).id])
    expect(ids).toEqual(new Set([0, 1, 2]))
    for (const line of gateway.output.stdout.trim().split('\n'))
      expect(JSON.parse(line)).toMatchObject({ jsonrpc: '2.0' })
  })

  test.each(['stdin', 'SIGTERM'] as const)('ends with all its children on %s', async how => {
    await start({ hanging: { ...hanging, inheritEnv: ['PID_FILE'] } })
    send(INITIALIZE)
    await receive()
    send(execute(1, 'hanging', 'x'))
    await expect.poll(() => readFile(pidFile, 'utf8').catch(() => ''), { timeout: 10_000 }).toMatch(/^\d+$/)
    const grandchild = Number(await readFile(pidFile, 'utf8'))
    expect(isAlive(grandchild)).toBe(true)

    if (how === 'stdin') gateway.stdin.end()
    else gateway.kill('SIGTERM')
    const [status] = await once(gateway, 'exit')
    expect(status).toBe(0)
    await expect.poll(() => isAlive(grandchild), { timeout: 10_000 }).toBe(false)
  })

  test('a configuration that is wrong is named on stderr, with status 78', async () => {
    await start({ a: { comand: 'x' } })
    const [status] = await once(gateway, 'exit')
    expect(status).toBe(78)
    expect(gateway.output).toMatchObject({ stdout: '', stderr: expect.stringContaining('mcpServers.a') })
  })
})

test('--agent pins the agent', async () => {
  await start({ shop: nodeServer('shop.js') }, ['stdio', '--agent', 'stranger'])
  send(INITIALIZE)
  await receive()
  send(execute(1, 'shop', 'query', { sql: 'a' }))
  expect(await receive()).toMatchObject({
    id: 1,
    result: { isError: true, structuredContent: { error: { code: 'INVALID_AGENT_ID' } } },
  })
})
