import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Directory, openDirectory } from '../fixtures/backend.js'
import { CLIENTS, type ClientOptions, type StdioDoor, type TestClient } from '../fixtures/clients.js'
import { stdioServer } from '../fixtures/servers.js'
import { end, openSharedGateway, type Served, type SharedGateway } from '../fixtures/shared-gateway.js'
import { isRunning, release, worker } from '../fixtures/worker.js'

const ALL = { allow: { servers: ['*'] } }
const RULES = {
  agents: {
    default: ALL,
    boss: { ...ALL, expose: 'direct' },
    clerk: { allow: { servers: ['worker'], tools: { worker: ['who'] } } },
  },
}
const TOOLS = 'notifications/tools/list_changed'

let directory: Directory
let shared: SharedGateway
let clients: TestClient[]
beforeEach(async () => {
  directory = await openDirectory()
  clients = []
})
afterEach(async () => {
  await Promise.allSettled(clients.map(client => client[Symbol.asyncDispose]()))
  for (const { pid } of await running()) await endForeign(pid)
  await shared[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
})

const entries = () => ({
  worker: worker({ startsFile: directory.file('worker') }),
  other: worker({ startsFile: directory.file('other') }),
  talker: stdioServer('talker-stdio', { env: { ERA: 'modern', HEARD_FILE: directory.file('heard') } }),
})
const open = async (rules: Record<string, unknown> = RULES) => {
  shared = await openSharedGateway({ servers: entries(), rules })
}

/** The gateways that have let themselves be known. */
async function running(): Promise<{ pid: number; url: string }[]> {
  const place = join(shared.stateDirectory, 'running')
  const names = await readdir(place).catch(() => [])
  const texts = await Promise.all(names.map(name => readFile(join(place, name), 'utf8').catch(() => '')))
  return texts.filter(Boolean).map(text => JSON.parse(text))
}

/** Ends a gateway that a command has started. */
async function endForeign(pid: number): Promise<void> {
  if (isRunning(pid)) process.kill(pid, 'SIGTERM')
  await expect.poll(() => isRunning(pid)).toBe(false)
}

async function connect(line: (typeof CLIENTS)[number], door: StdioDoor, options?: ClientOptions): Promise<TestClient> {
  const client = await line.open(door, options)
  clients.push(client)
  return client
}

const who = (client: TestClient, server = 'worker') =>
  client.callTool('execute_tool', { server, tool: 'who', args: {} })
const [MODERN, LEGACY, OLD] = CLIENTS as [(typeof CLIENTS)[number], (typeof CLIENTS)[number], (typeof CLIENTS)[number]]
const TEN = [...Array(5).fill(MODERN), LEGACY, LEGACY, OLD, OLD, OLD] as (typeof CLIENTS)[number][]

describe('many clients of one gateway', () => {
  test('ten connects, half of either era: one process a server', async () => {
    await open()
    const { process: gateway } = await shared.serve()
    const ten = await Promise.all(TEN.map(line => connect(line, shared.connectDoor(), { capabilities: {} })))
    const answers = await Promise.all(ten.flatMap(client => [who(client), who(client), who(client, 'other')]))
    expect(answers.filter(({ isError }) => isError)).toEqual([])
    expect([directory.lines('worker').length, directory.lines('other').length]).toEqual([1, 1])
    expect(new Set(answers.map(({ structuredContent }) => structuredContent.pid)).size).toBe(2)
    // What one leaves, the others keep.
    await Promise.all(ten.slice(0, 9).map(client => client[Symbol.asyncDispose]()))
    expect((await who(ten[9] as TestClient)).isError).toBeUndefined()
    expect([gateway.exitCode, directory.lines('worker').length]).toEqual([null, 1])
  })

  test.each(CLIENTS)('five of a kind that can be asked: one process a server ($name)', async line => {
    await open()
    await shared.serve()
    const five = await Promise.all(Array.from({ length: 5 }, () => connect(line, shared.connectDoor())))
    const answers = await Promise.all(five.flatMap(client => [who(client), who(client)]))
    expect(answers.filter(({ isError }) => isError)).toEqual([])
    expect(directory.lines('worker')).toHaveLength(1)
  })

  test('--spawn: many at once start one gateway, which outlives them', async () => {
    await open()
    const many = await Promise.all(
      TEN.slice(2, 8).map(line => connect(line, shared.connectDoor(['--spawn']), { capabilities: {} })),
    )
    const answers = await Promise.all(many.map(client => who(client)))
    expect(answers.filter(({ isError }) => isError)).toEqual([])
    const [gateway, ...others] = await running()
    expect([others, directory.lines('worker').length]).toEqual([[], 1])
    await Promise.all(clients.splice(0).map(client => client[Symbol.asyncDispose]()))
    expect(isRunning(Number(gateway?.pid))).toBe(true)
    const late = await connect(MODERN, shared.connectDoor(['--spawn']), { capabilities: {} })
    expect((await who(late)).structuredContent).toMatchObject({ pid: Number(directory.lines('worker')[0]) })
    expect(await running()).toHaveLength(1)
  })

  test('the person at this machine needs no scopes', async () => {
    await open({ ...RULES, scopes: { 'worker/*': ['mcp:worker'] } })
    const served = await shared.serve()
    const client = await connect(MODERN, shared.connectDoor())
    expect((await who(client)).structuredContent).toMatchObject({ pid: expect.any(Number) })
    const { status } = await shared.call(served, 'default', 'execute_tool', { server: 'worker', tool: 'who', args: {} })
    expect(status).toBe(403)
  })

  test('--spawn takes the one that is running', async () => {
    await open()
    const { url } = await shared.serve()
    const client = await connect(LEGACY, shared.connectDoor(['--spawn']))
    expect((await who(client)).isError).toBeUndefined()
    expect(await running()).toMatchObject([{ url }])
  })

  test('--spawn with files that cannot be used says why, soon', async () => {
    await open()
    await shared.spoilServers('{ "mcpServers": ')
    const { status, stderr, stdout } = await shared.run(['connect', '--spawn'])
    expect([status, stdout]).toEqual([expect.toBeOneOf([69, 78]), ''])
    expect(stderr).toMatch(/serve\.log|\.mcp\.json/)
    expect(await running()).toEqual([])
  })
})

describe.each(CLIENTS)('through it, for $name', line => {
  beforeEach(async () => {
    await open()
    await shared.serve()
  })

  test('calls, progress, questions and errors are what they are at the gateway', async () => {
    const client = await connect(line, shared.connectDoor())
    const talk = (tool: string, args: Record<string, unknown>, options = {}) =>
      client.callTool('execute_tool', { server: 'talker', tool, args }, options)
    expect(client.instructions).toContain('search_tools')
    expect(((await client.request('tools/list')).tools as { name: string }[]).map(({ name }) => name)).toEqual([
      'list_servers',
      'search_tools',
      'get_server_tools',
      'execute_tool',
    ])
    expect((await talk('echo', { text: 'ünï' })).structuredContent).toEqual({ args: { text: 'ünï' } })
    const news: number[] = []
    await talk(
      'progress',
      { steps: 3, everyMs: 100 },
      { onProgress: ({ progress }: { progress: number }) => news.push(progress) },
    )
    expect(news).toEqual([1, 2, 3])
    const form = {
      method: 'elicitation/create',
      params: { message: 'Which one?', requestedSchema: { type: 'object', properties: { which: { type: 'string' } } } },
    }
    const asked = await talk('ask', { rounds: [[form]] })
    expect(asked.structuredContent).toEqual({ answers: [[{ action: 'accept', content: { which: 'this' } }]] })
    expect(client.asked).toMatchObject([{ method: 'elicitation/create', params: { message: 'Which one?' } }])
    const unknown = await client.callTool('execute_tool', { server: 'nowhere', tool: 'x', args: {} })
    expect(unknown).toMatchObject({ isError: true, structuredContent: { error: { code: 'DENIED_BY_POLICY' } } })
  })

  test('changes of what it sees are announced', async () => {
    const client = await connect(line, shared.connectDoor(['--agent', 'boss']))
    const list = async () => ((await client.request('tools/list')).tools as { name: string }[]).map(({ name }) => name)
    const told = () => client.told.filter(({ method }) => method === TOOLS).length
    expect(await list()).toContain('worker__crash')
    if (line.era === 'modern') await client.listen({ toolsListChanged: true })
    await shared.saveRules({
      agents: { ...RULES.agents, boss: { ...RULES.agents.boss, deny: { tools: { worker: ['crash'] } } } },
    })
    await expect.poll(told).toBe(1)
    expect(await list()).not.toContain('worker__crash')
    await client.callTool('talker__change', { list: 'tools' })
    await expect.poll(told).toBe(2)
    expect(await list()).toContain('talker__grown-1')
  })

  test('the rules of its agent hold', async () => {
    const clerk = await connect(line, shared.connectDoor(['--agent', 'clerk']))
    const call = (server: string, tool: string, more = {}) =>
      clerk.callTool('execute_tool', { server, tool, args: {}, ...more })
    expect((await call('worker', 'who')).isError).toBeUndefined()
    const denied = { isError: true, structuredContent: { error: { code: 'DENIED_BY_POLICY' } } }
    expect(await call('worker', 'crash')).toMatchObject(denied)
    expect(await call('talker', 'echo')).toMatchObject(denied)
    const lifted = await call('talker', 'echo', { agent_id: 'default' })
    expect(lifted).toMatchObject({ isError: true, structuredContent: { error: { code: 'INVALID_AGENT_ID' } } })
    const byVariable = await connect(line, shared.connectDoor([], { GATEWAY_DEFAULT_AGENT: 'clerk' }))
    expect(await byVariable.callTool('execute_tool', { server: 'talker', tool: 'echo', args: {} })).toMatchObject(
      denied,
    )
  })
})

test.each(['legacy', 'modern'] as const)(
  'progress comes in full and in order before the result, as it is on the wire (%s)',
  async era => {
    await open()
    await shared.serve()
    const { command, args, ...options } = shared.connectDoor()
    const child = spawn(command, args, { ...options, stdio: ['pipe', 'pipe', 'inherit'] })
    const heard: { id?: number; method?: string; params?: { progress?: number } }[] = []
    createInterface({ input: child.stdout }).on('line', line => heard.push(JSON.parse(line)))
    const send = (message: object) => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
    if (era === 'legacy') {
      const clientInfo = { name: 't', version: '1' }
      send({ id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo } })
      await expect.poll(() => heard).toHaveLength(1)
      send({ method: 'notifications/initialized' })
    }
    const envelope = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientCapabilities': {},
    }
    const _meta = { progressToken: 'p', ...(era === 'modern' && envelope) }
    const steps = 50
    const toolCall = { server: 'talker', tool: 'progress', args: { steps } }
    send({ id: 1, method: 'tools/call', params: { name: 'execute_tool', arguments: toolCall, _meta } })
    await expect.poll(() => heard.some(({ id }) => id === 1)).toBe(true)
    const news = heard.slice(era === 'legacy' ? 1 : 0, -1).map(({ params }) => params?.progress)
    expect([news, heard.at(-1)?.id]).toEqual([Array.from({ length: steps }, (_, index) => index + 1), 1])
    child.stdin.end()
    await once(child, 'exit')
  },
)

describe.each(CLIENTS)('when the gateway is started again on its port, $name', line => {
  let served: Served
  let client: TestClient
  beforeEach(async () => {
    await open()
    served = await shared.serve()
    client = await connect(line, shared.connectDoor())
    expect((await who(client)).isError).toBeUndefined()
  })
  const again = () => shared.serve(['--port', String(served.port)])

  test.each(['SIGTERM', 'SIGKILL'] as const)('(%s) does not notice: its next call succeeds', async signal => {
    await end(served.process, signal)
    await again()
    expect((await who(client)).isError).toBeUndefined()
    expect((await client.request('tools/list')).tools).toHaveLength(4)
  })

  test('has a call that is made meanwhile answered when it is back', async () => {
    await end(served.process)
    const early = [who(client), client.callTool('list_servers'), client.request('tools/list')]
    await again()
    const [called, listed, tools] = await Promise.all(early)
    expect([called?.isError, listed?.isError]).toEqual([undefined, undefined])
    expect(tools?.tools).toHaveLength(4)
  })

  test('waits for it to let itself be known', async () => {
    await end(served.process)
    await again()
    const place = join(shared.stateDirectory, 'running')
    const [name = ''] = await readdir(place)
    const [known, hidden] = [join(place, name), join(shared.stateDirectory, 'hidden')]
    await rename(known, hidden)
    const early = who(client)
    const audited = () => readFile(join(shared.stateDirectory, 'audit.jsonl'), 'utf8')
    await expect.poll(audited).toContain('INVALID_TOKEN')
    await rename(hidden, known)
    expect((await early).isError).toBeUndefined()
  })

  test('has the call under way fail: nobody knows what came of it', async () => {
    const file = directory.file('go')
    const underWay = client.callTool('execute_tool', { server: 'worker', tool: 'wait', args: { file } })
    await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
    await end(served.process, 'SIGKILL')
    const restarted = again()
    const result = await underWay
    expect(result).toMatchObject({ isError: true, structuredContent: { error: { code: 'OUTCOME_UNKNOWN' } } })
    await restarted
    expect(directory.lines('go.begun')).toEqual(['x'])
    release(file)
    expect((await who(client)).isError).toBeUndefined()
  })

  test('is told of changes of lists again', async () => {
    const boss = await connect(line, shared.connectDoor(['--agent', 'boss']))
    const told = () => boss.told.filter(({ method }) => method === TOOLS).length
    await boss.request('tools/list')
    if (line.era === 'modern') await boss.listen({ toolsListChanged: true })
    await end(served.process)
    await again()
    await expect.poll(async () => ((await boss.request('tools/list')).tools as unknown[]).length).toBeGreaterThan(4)
    const before = told()
    await shared.saveRules({
      agents: { ...RULES.agents, boss: { ...RULES.agents.boss, deny: { tools: { worker: ['crash'] } } } },
    })
    await expect.poll(told).toBeGreaterThan(before)
  })
})

describe('which gateway is taken', () => {
  test('none is running: said on stderr, status 69, nothing on stdout', async () => {
    await open()
    const { status, stdout, stderr } = await shared.run(['connect'])
    expect([status, stdout]).toEqual([69, ''])
    expect(stderr).toMatch(/no gateway is running/)
    expect(stderr).toMatch(/gateway serve/)
    expect(stderr).toMatch(/--spawn/)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  test('one that was killed is none', async () => {
    await open()
    const { process: gateway } = await shared.serve()
    await end(gateway, 'SIGKILL')
    expect((await shared.run(['connect'])).status).toBe(69)
    expect(await running()).toEqual([])
  })

  test('one that has ended well is none', async () => {
    await open()
    const { process: gateway } = await shared.serve()
    expect(await running()).toHaveLength(1)
    expect(await end(gateway)).toBe(0)
    expect(await running()).toEqual([])
  })

  test('the one at the URL that is given', async () => {
    await open()
    const [first, second] = [await shared.serve(), await shared.serve()]
    const names = async (door: StdioDoor) => {
      const client = await connect(MODERN, door)
      await who(client)
      return client
    }
    await names(shared.connectDoor([first.url]))
    expect(directory.lines('worker')).toHaveLength(1)
    await end(second.process)
    await names(shared.connectDoor([first.url]))
    expect(directory.lines('worker')).toHaveLength(1)
    const { status, stderr } = await shared.run(['connect', second.url])
    expect([status, stderr]).toEqual([69, expect.stringContaining(first.url)])
    expect(stderr).toContain(second.url)
  })

  test('a URL and --spawn: no other gateway is started in its place', async () => {
    await open()
    const { status } = await shared.run(['connect', 'http://127.0.0.1:9/mcp', '--spawn'])
    expect(status).toBe(69)
    expect(await running()).toEqual([])
  })

  test('never one of another configuration', async () => {
    await open()
    await shared.serve()
    const other = await openSharedGateway({ servers: {}, rules: RULES }, { GATEWAY_STATE_DIR: shared.stateDirectory })
    try {
      const { status, stderr } = await other.run(['connect'])
      expect([status, stderr]).toEqual([69, expect.stringContaining('no gateway is running with this configuration')])
    } finally {
      await other[Symbol.asyncDispose]()
    }
  })

  test('an agent that the rules do not know is told so', async () => {
    await open({ agents: { boss: ALL } })
    await shared.serve()
    const client = await connect(MODERN, shared.connectDoor(['--agent', 'stranger']))
    expect(await client.callTool('list_servers')).toMatchObject({
      isError: true,
      structuredContent: { error: { code: 'INVALID_AGENT_ID' } },
    })
  })

  test.each(['stdin', 'SIGTERM', 'SIGINT'] as const)(
    'it ends with status 0 on %s, and leaves nothing behind',
    async how => {
      await open()
      const { process: gateway } = await shared.serve()
      const { command, args, ...options } = shared.connectDoor()
      const child = spawn(command, args, { ...options, stdio: ['pipe', 'pipe', 'inherit'] })
      const initialize = {
        jsonrpc: '2.0',
        id: 0,
        method: 'initialize',
        params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } },
      }
      child.stdin.write(`${JSON.stringify(initialize)}\n`)
      await once(child.stdout, 'data')
      const exited = once(child, 'exit')
      if (how === 'stdin') child.stdin.end()
      else child.kill(how)
      expect(await exited).toEqual([0, null])
      expect(gateway.exitCode).toBeNull()
    },
  )
})
