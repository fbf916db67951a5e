import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Directory, openDirectory } from '../fixtures/backend.js'
import { BIN } from '../fixtures/cli.js'
import { CLIENTS, type TestClient } from '../fixtures/clients.js'
import { openTestGateway, type TestGateway, type TestResult } from '../fixtures/gateway.js'
import { beginSession, type ClientSession, listenModern, openTokens, type Stream } from '../fixtures/http-clients.js'
import { stdioServer } from '../fixtures/servers.js'
import { isRunning, release, type Who, worker } from '../fixtures/worker.js'

const ALL = { allow: { servers: ['*'] } }
const FOR_ALL = { agents: { tester: ALL } }
const TOOLS = 'notifications/tools/list_changed'
const PROMPTS = 'notifications/prompts/list_changed'
const RESOURCES = 'notifications/resources/list_changed'

let directory: Directory
let opened: TestGateway
beforeEach(async () => {
  directory = await openDirectory()
})
afterEach(async () => {
  await opened.close()
  await directory[Symbol.asyncDispose]()
})

type Entries = Readonly<Record<string, unknown>>

async function open(servers: Entries, rules: Entries = FOR_ALL, env: Record<string, string> = {}) {
  opened = await openTestGateway({ servers, rules }, env)
}

const serversFile = () => join(opened.directory, '.mcp.json')
const rulesFile = () => join(opened.directory, '.mcp-gateway-rules.json')
const saveServers = (servers: Entries) => writeFile(serversFile(), JSON.stringify({ mcpServers: servers }))
const saveRules = (rules: Entries) => writeFile(rulesFile(), JSON.stringify(rules))

const call = (name: string, args: Record<string, unknown> = {}, agent = 'tester') => opened.call(name, args, agent)
const execute = (server: string, tool: string, args = {}, agent = 'tester') =>
  call('execute_tool', { server, tool, args }, agent)
const whoIs = async (server: string): Promise<Partial<Who>> => (await execute(server, 'who')).structuredContent
const codeOf = ({ structuredContent }: TestResult) => structuredContent.error?.code
const reload = async () =>
  (await call('get_gateway_status')).structuredContent.config as {
    last_reload: string
    last_error?: string
    fingerprint: string
  }
const serverNames = async (agent = 'tester') =>
  ((await call('list_servers', {}, agent)).structuredContent.servers as { name: string }[]).map(({ name }) => name)

describe('a servers file that is edited', () => {
  test('under load: one of ten servers is another one, nine keep their processes, no call fails', async () => {
    const names = Array.from({ length: 10 }, (_, index) => `server-${index}`)
    const entries = Object.fromEntries(names.map(name => [name, worker({ label: 'old' })]))
    await open(entries)
    const before = await Promise.all(names.map(whoIs))
    const failures: TestResult[] = []
    let calls = 0
    let isOver = false
    const load = names.map(async name => {
      while (!isOver) {
        const result = await execute(name, 'who')
        calls++
        if (result.isError) failures.push(result)
      }
    })
    await saveServers({ ...entries, 'server-3': worker({ label: 'new' }) })
    await expect.poll(async () => (await whoIs('server-3')).label).toBe('new')
    const soFar = calls
    await expect.poll(() => calls).toBeGreaterThan(soFar + 200)
    isOver = true
    await Promise.all(load)

    expect(failures).toEqual([])
    const after = await Promise.all(names.map(whoIs))
    const kept = names.filter((_, index) => after[index]?.pid === before[index]?.pid)
    expect(kept).toEqual(names.filter(name => name !== 'server-3'))
    const old = Number(before[3]?.pid)
    await expect.poll(() => isRunning(old)).toBe(false)
  })

  test('lets a server that is gone finish its call, and ends it then', async () => {
    await open({ worker: worker(), other: worker() })
    const { pid } = await whoIs('worker')
    const file = directory.file('go')
    const underWay = execute('worker', 'wait', { file })
    await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
    await saveServers({ other: worker() })
    await expect.poll(serverNames).toEqual(['other'])
    expect(codeOf(await execute('worker', 'who'))).toBe('DENIED_BY_POLICY')
    expect(isRunning(Number(pid))).toBe(true)
    release(file)
    expect((await underWay).structuredContent).toMatchObject({ pid })
    await expect.poll(() => isRunning(Number(pid))).toBe(false)
  })

  test('lets a call through that had to start its server', async () => {
    const readyFile = directory.file('ready')
    const startsFile = directory.file('starts')
    await open({ worker: worker({ label: 'old', readyFile, startsFile }), other: worker() })
    const underWay = execute('worker', 'who')
    await expect.poll(() => directory.lines('starts')).toHaveLength(1)
    await saveServers({ other: worker() })
    await expect.poll(serverNames).toEqual(['other'])
    release(readyFile)
    expect((await underWay).structuredContent).toMatchObject({ label: 'old' })
    await expect.poll(() => isRunning(Number(directory.lines('starts')[0]))).toBe(false)
  })

  test('does not bring back a server that died while it was on its way out', async () => {
    const startsFile = directory.file('starts')
    await open({ worker: worker({ startsFile }), other: worker() })
    const { pid } = await whoIs('worker')
    const underWay = execute('worker', 'wait', { file: directory.file('go') })
    await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
    await saveServers({ other: worker() })
    await expect.poll(serverNames).toEqual(['other'])
    process.kill(Number(pid), 'SIGKILL')
    expect(codeOf(await underWay)).toBe('OUTCOME_UNKNOWN')
    const began = performance.now()
    await expect.poll(() => performance.now() - began).toBeGreaterThan(1_500)
    expect(directory.lines('starts')).toHaveLength(1)
  })

  test('adds servers, which can be listed, searched and called', async () => {
    await open({ old: worker({ label: 'old' }) })
    const { pid } = await whoIs('old')
    await saveServers({ old: worker({ label: 'old' }), new: worker({ label: 'new', names: ['polish'] }) })
    await expect.poll(serverNames).toEqual(['old', 'new'])
    expect((await whoIs('new')).label).toBe('new')
    const found = await call('search_tools', { query: 'polish' })
    expect(found.structuredContent.tools).toMatchObject([{ server: 'new', name: 'polish' }])
    expect((await whoIs('old')).pid).toBe(pid)
  })

  test('tries a server anew that could not be had', async () => {
    const brokenFile = directory.file('broken')
    release(brokenFile)
    const startsFile = directory.file('starts')
    await open({ worker: worker({ brokenFile, startsFile }) })
    expect(codeOf(await execute('worker', 'who'))).toBe('SERVER_UNAVAILABLE')
    await saveServers({ worker: worker({ label: 'mended', startsFile }) })
    await expect.poll(async () => (await whoIs('worker')).label).toBe('mended')
  })

  test('keeps the processes of servers that were only moved about', async () => {
    const entries = { a: worker({ label: 'a' }), b: worker({ label: 'b' }) }
    await open(entries)
    const before = [await whoIs('a'), await whoIs('b')]
    const { b, a } = entries
    const { env, args, command } = a as { env: unknown; args: unknown; command: unknown }
    await saveServers({ b, a: { args, env, command }, c: worker() })
    await expect.poll(serverNames).toEqual(['b', 'a', 'c'])
    expect([await whoIs('a'), await whoIs('b')]).toEqual(before)
  })

  test('restarts nothing when only spaces and comments are others', async () => {
    const entries = { a: worker({ label: 'a' }) }
    await open(entries)
    const before = await whoIs('a')
    const { last_reload: loadedAt } = await reload()
    await writeFile(serversFile(), `// mine\n${JSON.stringify({ mcpServers: entries }, null, 4)}\n\n`)
    await saveRules({ agents: { tester: ALL, fence: ALL } })
    await expect.poll(async () => (await reload()).last_reload).not.toBe(loadedAt)
    expect(await whoIs('a')).toEqual(before)
  })

  test('keeps secrets that are new, and those that were, out of what servers say', async () => {
    const secrets = { OLD_SECRET: 'old-s3cret-value-0001', NEW_SECRET: 'new-s3cret-value-0002' }
    const withSecret = (name: string) => worker({ secret: `\${${name}}` })
    const file = directory.file('go')
    await open({ worker: withSecret('OLD_SECRET'), other: withSecret('OLD_SECRET') }, FOR_ALL, secrets)
    await Promise.all([whoIs('worker'), whoIs('other')])
    const underWay = execute('other', 'wait', { file })
    await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
    const late = opened.gateway.runtime.current.backends.get('other')
    await saveServers({ worker: withSecret('NEW_SECRET') })
    await expect.poll(serverNames).toEqual(['worker'])

    const spilled = await execute('worker', 'spill')
    expect(JSON.stringify(spilled)).toContain('cannot log in with [redacted]')
    // The one that is on its way out still knows the old one.
    const clock = late?.startClock({})
    const tool = late?.knownTools?.byName.get('spill')
    if (!late || !clock || !tool) return expect.fail('there is no such server')
    const spilling = late.callTool(
      { name: 'spill', arguments: {} },
      tool,
      { agent: 'tester', principal: 'local' },
      clock,
    )
    const error = await spilling.catch((thrown: { details: unknown }) => thrown.details)
    clock.stop()
    expect(JSON.stringify(error)).toContain('cannot log in with [redacted]')
    release(file)
    expect(JSON.stringify([await underWay, spilled, error])).not.toMatch(/s3cret-value/)
  })
})

describe('a file that cannot be used', () => {
  const good = { worker: worker({ label: 'good' }) }

  test.each([
    ['half of it', () => writeFile(serversFile(), '{ "mcpServers": { "worker": { "comm'), /servers|mcp\.json:1:\d+/],
    ['empty', () => writeFile(serversFile(), ''), /\.mcp\.json/],
    ['a key that nobody knows', () => saveServers({ worker: { comand: 'x' } }), /mcpServers\.worker/],
    ['gone', () => rm(serversFile()), /\.mcp\.json/],
    ['rules that are none', () => saveRules({ agents: { tester: { alow: {} } } }), /agents\.tester/],
    ['rules that are gone', () => rm(rulesFile()), /rules\.json/],
  ])(
    '(%s) leaves the running version in place and is told of, until a good one comes',
    async (_what, spoil, reason) => {
      await open(good)
      const before = await whoIs('worker')
      const { last_reload: loadedAt } = await reload()
      await spoil()
      await expect.poll(async () => (await reload()).last_error).toMatch(reason)
      expect(await whoIs('worker')).toEqual(before)
      expect((await reload()).last_reload).toBe(loadedAt)

      await saveServers(good)
      await saveRules(FOR_ALL)
      await expect.poll(async () => (await reload()).last_error).toBeUndefined()
      expect(await whoIs('worker')).toEqual(before)
    },
  )

  test('written in two steps changes nothing in between, and is in effect at last', async () => {
    await open(good)
    const before = await whoIs('worker')
    const text = JSON.stringify({ mcpServers: { ...good, second: worker({ label: 'second' }) } })
    await writeFile(serversFile(), text.slice(0, text.length / 2))
    await expect.poll(async () => (await reload()).last_error).toContain('.mcp.json')
    expect([await serverNames(), await whoIs('worker')]).toEqual([['worker'], before])
    await writeFile(serversFile(), text)
    await expect.poll(serverNames).toEqual(['worker', 'second'])
    expect([(await reload()).last_error, await whoIs('worker')]).toEqual([undefined, before])
  })

  test('replaced by an editor that renames is in effect', async () => {
    await open(good)
    const text = await readFile(serversFile(), 'utf8')
    await writeFile(`${serversFile()}.tmp`, text.replaceAll('"good"', '"better"'))
    await rename(`${serversFile()}.tmp`, serversFile())
    await expect.poll(async () => (await whoIs('worker')).label).toBe('better')
  })
})

describe('a rules file that is edited', () => {
  test('changes at once what an agent sees and may call', async () => {
    await open({ shop: worker({ names: ['buy'] }), vault: worker() }, { agents: { tester: ALL, clerk: ALL } })
    const denied = async (server: string, tool: string) =>
      codeOf(await execute(server, tool, {}, 'clerk')) === 'DENIED_BY_POLICY'
    expect([await denied('shop', 'buy'), await denied('vault', 'who')]).toEqual([false, false])
    const pid = (await whoIs('shop')).pid
    const clerk = { allow: { servers: ['shop'] }, deny: { tools: { shop: ['buy'] } } }
    await saveRules({ agents: { tester: ALL, clerk } })
    await expect.poll(() => serverNames('clerk')).toEqual(['shop'])
    expect([await denied('shop', 'buy'), await denied('vault', 'who'), await denied('shop', 'who')]).toEqual([
      true,
      true,
      false,
    ])
    const seen = await call('get_server_tools', { server: 'shop' }, 'clerk')
    expect((seen.structuredContent.tools as { name: string }[]).map(({ name }) => name)).not.toContain('buy')
    const { tools } = (await call('search_tools', { query: 'buy' }, 'clerk')).structuredContent
    expect((tools as { name: string }[]).map(({ name }) => name)).not.toContain('buy')
    expect((await whoIs('shop')).pid).toBe(pid)
  })

  test('takes an agent away, and gives it back', async () => {
    await open({ shop: worker() }, { agents: { tester: ALL, clerk: ALL } })
    await saveRules(FOR_ALL)
    await expect.poll(async () => codeOf(await call('list_servers', {}, 'clerk'))).toBe('INVALID_AGENT_ID')
    await saveRules({ agents: { tester: ALL, clerk: ALL } })
    await expect.poll(async () => codeOf(await call('list_servers', {}, 'clerk'))).toBeUndefined()
  })
})

/** A client that hears of changes, whichever way it does. */
interface Listener {
  readonly name: string
  /** What it was told so far. */
  told(method: string): number
  tools(): Promise<string[]>
}

describe('clients are told exactly when what they see has changed:', () => {
  const DIRECT = { ...ALL, expose: 'direct' }
  const ENTRIES = {
    shop: worker({ names: ['buy', 'sell'] }),
    talker: stdioServer('talker-stdio', { env: { ERA: 'legacy' } }),
  }
  const without = (...tools: string[]) => ({ ...DIRECT, deny: { tools: { shop: tools } } })

  const closers: (() => unknown)[] = []
  afterEach(async () => {
    for (const close of closers.splice(0).reverse()) await close()
  })

  const heardIn = (stream: Stream) => (method: string) =>
    stream.messages().filter(message => message.method === method).length
  const namesIn = (answer: unknown) =>
    ((answer as { tools?: { name: string }[] } | undefined)?.tools ?? []).map(({ name }) => name)

  async function openSession(url: string, token: string): Promise<Listener> {
    const session: ClientSession = await beginSession(url, token)
    const stream = await session.listen()
    closers.push(() => stream.close())
    return {
      name: 'a session of 2025',
      told: heardIn(stream),
      tools: async () => namesIn((await session.request('tools/list')).answer.result),
    }
  }

  async function openListening(url: string, token: string): Promise<Listener> {
    const lists = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true }
    const stream = await listenModern(url, token, lists)
    closers.push(() => stream.close())
    const client = await CLIENTS[0]?.open({ url: new URL(url), token })
    closers.push(() => client?.[Symbol.asyncDispose]())
    return {
      name: 'a stream of 2026',
      told: heardIn(stream),
      tools: async () => namesIn(await client?.request('tools/list')),
    }
  }

  async function openAll(agent: string): Promise<Listener[]> {
    const { url } = await opened.gateway.serveHttp({ port: 0 })
    const token = await (await openTokens(opened, url))({ agents: [agent] })
    const own = new URL('/servers/shop/mcp', url).href
    const listeners = [
      await openSession(url, token),
      await openListening(url, token),
      await openSession(own, token),
      await openListening(own, token),
    ]
    // A client of 2025 is told of what it has looked at.
    for (const { tools } of listeners) await tools()
    return listeners
  }

  test('over HTTP, at both doors', async () => {
    await open(ENTRIES, { agents: { tester: DIRECT, boss: DIRECT, clerk: DIRECT } })
    const boss = await openAll('boss')
    const clerk = await openAll('clerk')
    const told = (listeners: Listener[], method = TOOLS) => listeners.map(listener => listener.told(method))

    await saveRules({ agents: { tester: DIRECT, boss: DIRECT, clerk: without('buy') } })
    await expect.poll(() => told(clerk)).toEqual([1, 1, 1, 1])
    for (const { tools } of clerk) expect((await tools()).filter(name => name.endsWith('buy'))).toEqual([])
    // Others, and what shows nothing: told of nothing.
    const { fingerprint } = await reload()
    await saveRules({ agents: { tester: DIRECT, boss: without('no_such_tool'), clerk: without('buy') } })
    await expect.poll(async () => (await reload()).fingerprint).not.toBe(fingerprint)
    await saveRules({ agents: { tester: DIRECT, boss: without('sell'), clerk: without('buy') } })
    await expect.poll(() => told(boss)).toEqual([1, 1, 1, 1])
    await saveRules({ agents: { tester: DIRECT, boss: DIRECT, clerk: DIRECT } })
    await expect
      .poll(() => [told(boss), told(clerk)])
      .toEqual([
        [2, 2, 2, 2],
        [2, 2, 2, 2],
      ])
    for (const method of [PROMPTS, RESOURCES])
      expect([...told(boss, method), ...told(clerk, method)]).toEqual(Array(8).fill(0))
  })

  test('of a server that is new, gone, or another one', async () => {
    await open(ENTRIES, {
      agents: { tester: DIRECT, boss: DIRECT, clerk: { ...DIRECT, allow: { servers: ['shop'] } } },
    })
    const [session, stream] = (await openAll('boss')) as [Listener, Listener]
    const clerk = await openAll('clerk')
    await saveServers({ ...ENTRIES, bakery: worker({ names: ['bake'] }) })
    await expect.poll(() => [session.told(TOOLS), stream.told(TOOLS)]).toEqual([1, 1])
    await expect.poll(stream.tools).toContain('bakery__bake')
    await saveServers({ ...ENTRIES, bakery: worker({ names: ['bake', 'eat'] }) })
    await expect.poll(() => [session.told(TOOLS), stream.told(TOOLS)]).toEqual([2, 2])
    await saveServers(ENTRIES)
    await expect.poll(() => [session.told(TOOLS), stream.told(TOOLS)]).toEqual([3, 3])
    expect(await stream.tools()).not.toContain('bakery__bake')
    expect(clerk.map(({ told }) => told(TOOLS))).toEqual([0, 0, 0, 0])
  })

  test('of its prompts and resources only where they have changed', async () => {
    await open(ENTRIES, { agents: { tester: DIRECT, boss: DIRECT } })
    const [session, stream] = (await openAll('boss')) as [Listener, Listener]
    const told = (method: string) => [session.told(method), stream.told(method)]
    // It has neither.
    await saveServers({ ...ENTRIES, bakery: worker() })
    await expect.poll(() => told(TOOLS)).toEqual([1, 1])
    const { talker: _, ...rest } = ENTRIES
    await saveServers({ ...rest, bakery: worker() })
    await expect.poll(() => told(TOOLS)).toEqual([2, 2])
    await expect
      .poll(() => [told(PROMPTS), told(RESOURCES)])
      .toEqual([
        [1, 1],
        [1, 1],
      ])
  })

  test('of what a server that is new announces from then on, and no more of one that is gone', async () => {
    const social = stdioServer('social-stdio', { env: { ERA: 'legacy' } })
    await open({ shop: worker() }, { agents: { tester: DIRECT } })
    const [session, stream] = (await openAll('tester')) as [Listener, Listener]
    await saveServers({ shop: worker(), social })
    await expect.poll(() => [session.told(TOOLS), stream.told(TOOLS)]).toEqual([1, 1])
    expect((await execute('social', 'grow', { name: 'grown' })).isError).toBeUndefined()
    await expect.poll(() => [session.told(TOOLS), stream.told(TOOLS)]).toEqual([2, 2])
    await expect.poll(stream.tools).toContain('social__grown')
  })

  test.each(CLIENTS)('over stdio ($name)', async line => {
    await open(ENTRIES, { agents: { tester: DIRECT, boss: DIRECT, clerk: DIRECT } })
    const env = {
      PATH: process.env.PATH ?? '',
      HOME: opened.directory,
      GATEWAY_STATE_DIR: join(opened.directory, 'state'),
      GATEWAY_KEYCHAIN: 'off',
      LOG_LEVEL: 'silent',
    }
    const open1 = async (agent: string): Promise<TestClient> => {
      const client = await line.open({
        command: process.execPath,
        args: [BIN, 'stdio', '--agent', agent],
        env,
        cwd: opened.directory,
      })
      closers.push(() => client[Symbol.asyncDispose]())
      await client.request('tools/list')
      if (line.era === 'modern') await client.listen({ toolsListChanged: true })
      return client
    }
    const [boss, clerk] = [await open1('boss'), await open1('clerk')]
    const told = (client: TestClient) => client.told.filter(({ method }) => method === TOOLS).length
    await saveRules({ agents: { tester: DIRECT, boss: DIRECT, clerk: without('buy') } })
    await expect.poll(() => told(clerk)).toBe(1)
    expect(namesIn(await clerk.request('tools/list'))).not.toContain('shop__buy')
    await saveRules({ agents: { tester: DIRECT, boss: without('sell'), clerk: without('buy') } })
    await expect.poll(() => told(boss)).toBe(1)
    expect(told(clerk)).toBe(1)
  })
})
