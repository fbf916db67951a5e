import { rm } from 'node:fs/promises'
import { pino } from 'pino'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Supervision } from '../../src/backends/supervision.js'
import { GatewayError, messageOf } from '../../src/errors/gateway-error.js'
import { openBackend, openDirectory } from '../fixtures/backend.js'
import { openTestGateway, type TestGateway, type TestResult } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { listen, stdioServer } from '../fixtures/servers.js'
import { isRunning, release, type Who, worker } from '../fixtures/worker.js'

const PARKED_MS = 8 * 60_000
const SUSTAINED_MS = 60_000
const FOR_ALL = { agents: { tester: { allow: { servers: ['*'] } } } }

interface Failure {
  readonly code: string
  readonly message: string
  readonly details: { readonly retry_at?: string; readonly stderr?: readonly string[] }
}

const failureOf = (call: Promise<unknown>): Promise<Failure> =>
  call.then(
    () => expect.fail('it did not fail'),
    (error: Failure) => error,
  )

const untilRetryMs = ({ details }: Failure) => Date.parse(String(details.retry_at)) - Date.now()

async function timed<T>(run: () => Promise<T>): Promise<{ ms: number; result: T }> {
  const started = performance.now()
  const result = await run()
  return { ms: performance.now() - started, result }
}

describe('the states of a server', () => {
  test('idle, starting, ready, and idle again when it has ended of its own accord', async () => {
    await using directory = await openDirectory()
    const readyFile = directory.file('ready')
    const server = openBackend(worker({ readyFile, startsFile: directory.file('starts') }))
    expect(server.backend.status()).toMatchObject({ state: 'idle' })
    const call = server.ask<Who>('who')
    await expect.poll(() => directory.lines('starts')).toHaveLength(1)
    expect(server.backend.status()).toMatchObject({ state: 'starting' })
    release(readyFile)
    const { pid } = await call
    expect(server.backend.status()).toMatchObject({ state: 'ready', pid, tools: 4 })
    expect(server.backend.status().last_error).toBeUndefined()
    await server.backend.close()
    expect(server.backend.status()).toMatchObject({ state: 'idle' })
  })

  test('cooling after a failed start, ready once it can be had again, and then nothing is wrong any more', async () => {
    await using directory = await openDirectory()
    const brokenFile = directory.file('broken')
    release(brokenFile)
    await using server = openBackend(worker({ brokenFile, startsFile: directory.file('starts') }))
    const failure = await failureOf(server.call('who'))
    expect(failure).toMatchObject({ code: 'SERVER_UNAVAILABLE', details: { stderr: expect.any(Array) } })
    expect(server.backend.status()).toMatchObject({ state: 'cooling', last_error: expect.stringContaining('status 3') })
    await rm(brokenFile)
    await expect.poll(() => server.call('who').catch(() => undefined)).toBeDefined()
    expect(server.backend.status()).toMatchObject({ state: 'ready' })
    expect(server.backend.status().last_error).toBeUndefined()
  })

  test('login needed where a server wants a token', async () => {
    await using http = await listen((_, response) =>
      response.writeHead(401, { 'www-authenticate': 'Bearer' }).end('who are you'),
    )
    await using server = openBackend({ url: http.url }, { name: 'walled' })
    await expect(server.call('who')).rejects.toMatchObject({ code: 'AUTH_REQUIRED' })
    expect(server.backend.status()).toMatchObject({
      state: 'login needed',
      auth: { kind: 'login needed' },
      last_error: expect.stringContaining('gateway login walled'),
    })
  })

  test.each([
    ['disabled', worker({}, { disabled: true })],
    ['misconfigured', worker({ label: '${NOT_SET_ANYWHERE}' })],
  ])('%s starts nothing, whatever is asked', async (state, entry) => {
    await using directory = await openDirectory()
    const env = { ...(entry as { env?: object }).env, STARTS_FILE: directory.file('starts') }
    await using server = openBackend({ ...entry, env })
    expect(server.backend.status()).toMatchObject({ state })
    const { ms, result } = await timed(() => failureOf(server.call('who')))
    expect([result.code, ms < 1_000]).toEqual(['SERVER_UNAVAILABLE', true])
    expect(directory.lines('starts')).toEqual([])
  })
})

describe('a server that crashes', () => {
  test('is started again by itself, at once the first time', async () => {
    await using directory = await openDirectory()
    await using server = openBackend(worker({ startsFile: directory.file('starts') }))
    const { pid } = await server.ask<Who>('who')
    process.kill(pid, 'SIGKILL')
    await expect.poll(() => directory.lines('starts'), { timeout: 5_000 }).toHaveLength(2)
    await expect
      .poll(() => server.backend.status())
      .toMatchObject({ state: 'ready', pid: expect.not.toSatisfy(p => p === pid) })
    expect((await server.ask<Who>('who')).pid).not.toBe(pid)
    expect(directory.lines('starts')).toHaveLength(2)
  })

  test('is started by the call that comes first', async () => {
    await using directory = await openDirectory()
    await using server = openBackend(worker({ startsFile: directory.file('starts') }))
    const { pid } = await server.ask<Who>('who')
    process.kill(pid, 'SIGKILL')
    await expect.poll(() => server.backend.status().pid).not.toBe(pid)
    const answers = await Promise.all(Array.from({ length: 10 }, () => server.ask<Who>('who')))
    expect(new Set(answers.map(answer => answer.pid)).size).toBe(1)
    expect(directory.lines('starts')).toHaveLength(2)
  })

  test('is started again also when a call finds out before anybody else', async () => {
    await using directory = await openDirectory()
    await using server = openBackend(worker({ startsFile: directory.file('starts') }))
    const { pid } = await server.ask<Who>('who')
    const crashing = failureOf(server.call('crash', { heir: true }))
    // Reaped, and so known to have ended; what it has said last is still waited for.
    await vi.waitFor(() => expect(() => process.kill(pid, 0)).toThrow('ESRCH'), { interval: 1 })
    const failure = await failureOf(server.call('who'))
    expect(failure).toMatchObject({ code: 'SERVER_UNAVAILABLE' })
    expect((await crashing).code).toBe('OUTCOME_UNKNOWN')
    await expect.poll(() => directory.lines('starts'), { timeout: 5_000 }).toHaveLength(2)
    await expect.poll(() => server.backend.status()).toMatchObject({ state: 'ready' })
  })

  test('takes down its call alone, with its last words; the next one succeeds', async () => {
    await using server = openBackend(worker())
    await server.call('who')
    const failure = await failureOf(server.call('crash'))
    expect(failure).toMatchObject({ code: 'OUTCOME_UNKNOWN', details: { stderr: ['fatal: out of ink'] } })
    expect(await server.ask<Who>('who')).toMatchObject({ pid: expect.any(Number) })
  })

  test('five times in a row is parked: it says so, and is not started again', async () => {
    await using directory = await openDirectory()
    await using server = openBackend(worker({ diesAfter: 'tools/call', startsFile: directory.file('starts') }), {
      name: 'loop',
    })
    await server.toolNames()
    const crash = () => failureOf(server.call('who').then(() => server.call('who')))
    await expect.poll(async () => (await crash()).message, { timeout: 40_000 }).toContain('5 times in a row')

    const starts = directory.lines('starts').length
    expect(starts).toBe(5)
    expect(server.backend.status()).toMatchObject({
      state: 'cooling',
      last_error: expect.stringMatching(/"loop".*5 times in a row/),
    })
    const { ms, result } = await timed(() => Promise.all(Array.from({ length: 100 }, crash)))
    expect(ms).toBeLessThan(1_000)
    for (const failure of result) {
      expect(failure).toMatchObject({ code: 'SERVER_UNAVAILABLE', details: { stderr: ['fatal: lost my way'] } })
      expect(untilRetryMs(failure)).toBeGreaterThan(PARKED_MS)
    }
    expect(directory.lines('starts')).toHaveLength(starts)
  })

  test('as soon as it has started is parked all the same, with nobody calling', async () => {
    await using directory = await openDirectory()
    await using server = openBackend(worker({ diesAfter: 'initialize', startsFile: directory.file('starts') }))
    await failureOf(server.call('who'))
    await expect.poll(() => server.backend.status().last_error, { timeout: 40_000 }).toContain('5 times in a row')
    const starts = directory.lines('starts').length
    expect(starts).toBeLessThanOrEqual(10) // one more each time, to try the other era
    expect(untilRetryMs(await failureOf(server.call('who')))).toBeGreaterThan(PARKED_MS)
    expect(directory.lines('starts')).toHaveLength(starts)
  })

  test('that cannot even start is parked after five tries', async () => {
    await using directory = await openDirectory()
    release(directory.file('broken'))
    const files = { brokenFile: directory.file('broken'), startsFile: directory.file('starts') }
    await using server = openBackend(worker(files))
    await expect
      .poll(async () => (await failureOf(server.call('who'))).message, { timeout: 50_000 })
      .toContain('5 times in a row')
    const starts = directory.lines('starts').length
    expect(starts).toBeLessThanOrEqual(10)
    await failureOf(server.call('who'))
    expect(directory.lines('starts')).toHaveLength(starts)
  })

  test('for one of several agents at a time does not take it from them all', async () => {
    await using server = openBackend(worker({}, { session: 'per-agent' }))
    const agents = ['a', 'b', 'c', 'd', 'e', 'f']
    const whoIs = (agent: string) => server.ask<Who>('who', {}, { owner: { agent, principal: 'local' } })
    const first = await Promise.all(agents.map(whoIs))
    for (const { pid } of first) process.kill(pid, 'SIGKILL')
    for (const { pid } of first) await expect.poll(() => isRunning(pid)).toBe(false)
    const again = () =>
      Promise.all(agents.map(whoIs)).then(
        answers => answers.map(({ pid }) => pid),
        () => [],
      )
    await expect.poll(again, { timeout: 10_000 }).toHaveLength(agents.length)
  })
})

describe('how often it may end', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['Date'] }))
  afterEach(() => void vi.useRealTimers())

  const open = () =>
    new Supervision({
      server: 'any',
      logger: pino({ level: 'silent' }),
      authorization: undefined,
      isProcess: true,
      explain: error => new GatewayError('SERVER_UNAVAILABLE', messageOf(error)),
    })
  const endAfter = (supervision: Supervision, ranMs: number) => {
    const startedAt = Date.now()
    vi.setSystemTime(startedAt + ranMs)
    supervision.onCrash('the process ended', { startedAt, stderr: [] })
  }
  /** A process starts, runs so long, and ends; gives how long the next one has to wait. */
  const crash = (supervision: Supervision, ranMs: number) => {
    endAfter(supervision, ranMs)
    const { delayMs } = supervision
    vi.setSystemTime(Date.now() + delayMs + 1)
    supervision.onConnected()
    return delayMs
  }

  test('after sustained use: always at once', async () => {
    const supervision = open()
    for (let times = 0; times < 20; times++) expect(crash(supervision, SUSTAINED_MS)).toBe(0)
    endAfter(supervision, SUSTAINED_MS)
    expect(supervision.failure).toBeUndefined()
    await supervision.admit()
  })

  test('soon after its start: at once, then later each time, then hardly ever', () => {
    const supervision = open()
    const delays = Array.from({ length: 6 }, () => crash(supervision, SUSTAINED_MS - 1))
    expect(delays[0]).toBe(0)
    for (const [index, seconds] of [1, 2, 4].entries()) {
      expect(delays[index + 1]).toBeGreaterThan(seconds * 800)
      expect(delays[index + 1]).toBeLessThan(seconds * 1_200)
    }
    for (const delay of delays.slice(4)) expect(delay).toBeGreaterThan(PARKED_MS)
  })

  test('four times, then sustained use: at once again', () => {
    const supervision = open()
    for (let times = 0; times < 4; times++) crash(supervision, 10)
    expect(crash(supervision, SUSTAINED_MS)).toBe(0)
    expect(crash(supervision, 10)).toBe(0)
    expect(crash(supervision, 10)).toBeLessThan(2_000)
  })
})

describe('a server that is down', () => {
  let opened: TestGateway | undefined
  afterEach(async () => {
    await opened?.close()
    opened = undefined
  })

  /** A gateway whose server `shaky` was well, and is down for good. */
  async function openShaky(directory: Awaited<ReturnType<typeof openDirectory>>) {
    const files = { brokenFile: directory.file('broken'), startsFile: directory.file('starts') }
    opened = await openTestGateway({
      servers: { shaky: worker({ ...files, names: ['polish'] }), well: worker() },
      rules: FOR_ALL,
    })
    const gateway = opened
    const call = (name: string, args: Record<string, unknown> = {}) => gateway.call(name, args, 'tester')
    const execute = (tool: string) => call('execute_tool', { server: 'shaky', tool, args: {} })
    expect((await execute('who')).isError).toBeUndefined()
    await call('get_server_tools', { server: 'well' })
    release(directory.file('broken'))
    await execute('crash')
    await expect
      .poll(async () => (await execute('who')).structuredContent.error?.stderr)
      .toContain('fatal: the disk is gone')
    return { call, execute }
  }

  test('fails its calls in under a second, with its last words and when it is tried again', async () => {
    await using directory = await openDirectory()
    const { execute } = await openShaky(directory)
    const { ms, result } = await timed(() => execute('who'))
    expect(ms).toBeLessThan(1_000)
    expect(result).toMatchObject({
      isError: true,
      structuredContent: {
        error: {
          code: 'SERVER_UNAVAILABLE',
          server: 'shaky',
          stderr: ['reading the settings', 'fatal: the disk is gone'],
          retry_at: expect.any(String),
        },
      },
    })
  })

  test('stays in list_servers with its state and the tools it had', async () => {
    await using directory = await openDirectory()
    const { call } = await openShaky(directory)
    const { ms, result } = await timed(() => call('list_servers'))
    expect(ms).toBeLessThan(1_000)
    expect(result.structuredContent.servers).toMatchObject([
      { name: 'shaky', state: 'cooling', tools: 5 },
      { name: 'well', state: 'ready', tools: 4 },
    ])
  })

  test('stays in get_server_tools with the tools it had, marked', async () => {
    await using directory = await openDirectory()
    const { call } = await openShaky(directory)
    const { ms, result } = await timed(() => call('get_server_tools', { server: 'shaky' }))
    expect(ms).toBeLessThan(1_000)
    expect(result.isError).toBeUndefined()
    expect(namesIn(result)).toEqual(['crash', 'polish', 'spill', 'wait', 'who'])
    expect(isMarked(result)).toBe(true)
    expect(isMarked(await call('get_server_tools', { server: 'well' }))).toBe(false)
  })

  test('stays in search_tools with the tools it had, marked', async () => {
    await using directory = await openDirectory()
    const { call } = await openShaky(directory)
    const { ms, result } = await timed(() => call('search_tools', { query: 'polish' }))
    expect(ms).toBeLessThan(1_000)
    expect(result.structuredContent.tools).toMatchObject([{ server: 'shaky', name: 'polish' }])
    expect(isMarked(result)).toBe(true)
  })

  test('stays in the list of direct mode with the tools it had', async () => {
    await using directory = await openDirectory()
    await openShaky(directory)
    const front = await opened?.gateway.serveHttp({ port: 0 })
    const token = (await front?.issueToken('tester', 600)) ?? ''
    const { ms, result } = await timed(() =>
      ask(`${front?.url}?expose=direct`, mcpRequest('modern', token, 'tools/list', {})),
    )
    expect(ms).toBeLessThan(1_000)
    const { tools } = result.json().result as { tools: { name: string }[] }
    expect(tools.map(({ name }) => name)).toContain('shaky__polish')
  })

  const namesIn = ({ structuredContent }: TestResult) =>
    (structuredContent.tools as { name: string }[]).map(({ name }) => name).sort()
  /** In whichever words: the state, or why. */
  const isMarked = ({ structuredContent }: TestResult) =>
    /cooling|SERVER_UNAVAILABLE/.test(JSON.stringify(structuredContent))
})

describe('of five servers one refuses, one hangs in the handshake, one crashes on and on:', () => {
  const well = (name: string) => worker({ label: name, names: [`paint_${name}`] })
  const WELL = { one: well('one'), two: well('two') }
  const ILL = {
    refusing: { url: 'http://127.0.0.1:9/mcp' },
    hanging: stdioServer('silent-start'),
    crashing: worker({ diesAfter: 'initialize' }),
  }
  // What a busy machine may add.
  const SLACK_MS = 1_500

  /** How long a client takes for each step from its first word on, in the order of the steps. */
  async function run(servers: Record<string, unknown>, { expose, era }: { expose: string; era: 'legacy' | 'modern' }) {
    const gateway = await openTestGateway({ servers, rules: FOR_ALL })
    try {
      const front = await gateway.gateway.serveHttp({ port: 0 })
      const token = await front.issueToken('tester', 600)
      const url = `${front.url}${expose === 'direct' ? '?expose=direct' : ''}`
      const steps: Record<string, number> = {}
      const step = async (name: string, method: string, params: Record<string, unknown>) => {
        const { ms, result } = await timed(() => ask(url, mcpRequest(era, token, method, params)))
        steps[name] = ms
        return result.json().result ?? {}
      }
      const tool = (name: string, args: Record<string, unknown>) => ({ name, arguments: args })
      const hello = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 't', version: '1' } }
      await (era === 'legacy' ? step('initialize', 'initialize', hello) : step('discover', 'server/discover', {}))
      const listed = (await step('tools/list', 'tools/list', {})).tools as { name: string }[]
      if (expose === 'direct') expect(listed.map(({ name }) => name)).toContain('two__paint_two')
      await step('list_servers', 'tools/call', tool('list_servers', {}))
      const found = await step('search_tools', 'tools/call', tool('search_tools', { query: 'paint' }))
      const { tools } = found.structuredContent as { tools: { name: string }[] }
      expect(tools.map(({ name }) => name).sort()).toEqual(['paint_one', 'paint_two'])
      for (const server of ['one', 'two']) {
        const call =
          expose === 'direct' ? tool(`${server}__who`, {}) : tool('execute_tool', { server, tool: 'who', args: {} })
        const { structuredContent } = await step(`call ${server}`, 'tools/call', call)
        expect(structuredContent).toMatchObject({ label: server })
      }
      await step('list again', 'tools/list', {})
      if (expose === 'direct') {
        await step('prompts', 'prompts/list', {})
        await step('resources', 'resources/list', {})
      }
      await step('search again', 'tools/call', tool('search_tools', { query: 'paint' }))
      return steps
    } finally {
      await gateway.close()
    }
  }

  test.each([
    { expose: 'discover', era: 'modern' },
    { expose: 'discover', era: 'legacy' },
    { expose: 'direct', era: 'modern' },
    { expose: 'direct', era: 'legacy' },
  ] as const)(
    'everything else is as fast as without them ($expose, $era)',
    async how => {
      const without = await run(WELL, how)
      const withIll = await run({ ...ILL, ...WELL }, how)
      const late = Object.entries(withIll).filter(([name, ms]) => ms > 2 * (without[name] ?? 0) + SLACK_MS)
      expect(Object.fromEntries(late)).toEqual({})
    },
    120_000,
  )
})

describe('a launcher that takes long', () => {
  test('and prints banners is `starting`, whatever is asked meanwhile, and is started once', async () => {
    await using directory = await openDirectory()
    const files = {
      readyFile: directory.file('ready'),
      startsFile: directory.file('starts'),
      heardFile: directory.file('heard'),
    }
    await using server = openBackend(worker(files, { startupTimeoutMs: 8_000 }))
    const calls = Array.from({ length: 5 }, () => server.ask<Who>('who'))
    // The question of which era it is has been given up by then.
    await expect.poll(() => directory.lines('heard'), { timeout: 20_000 }).toContain('initialize')
    expect(server.backend.status()).toMatchObject({ state: 'starting' })
    expect(server.backend.status().last_error).toBeUndefined()
    await expect(server.call('who', {}, { timeoutMs: 200 })).rejects.toMatchObject({ code: 'TIMEOUT' })
    expect(server.backend.status()).toMatchObject({ state: 'starting' })
    release(files.readyFile)
    const answers = await Promise.all(calls)
    expect(new Set(answers.map(({ pid }) => pid))).toEqual(new Set([Number(directory.lines('starts')[0])]))
    expect(directory.lines('starts')).toHaveLength(1)
    expect(server.backend.status()).toMatchObject({ state: 'ready' })
  })

  test('50 concurrent first calls start one process, slow as it is', async () => {
    await using directory = await openDirectory()
    const files = { readyFile: directory.file('ready'), startsFile: directory.file('starts') }
    const gateway = await openTestGateway({ servers: { slow: worker(files) }, rules: FOR_ALL })
    try {
      const calls = Array.from({ length: 50 }, () =>
        gateway.call('execute_tool', { server: 'slow', tool: 'who', args: {} }, 'tester'),
      )
      await expect.poll(() => directory.lines('starts')).toHaveLength(1)
      const { servers } = (await gateway.call('list_servers', {}, 'tester')).structuredContent
      expect(servers).toMatchObject([{ name: 'slow', state: 'starting' }])
      release(files.readyFile)
      const answers = await Promise.all(calls)
      expect(new Set(answers.map(({ structuredContent }) => structuredContent.pid)).size).toBe(1)
      expect(directory.lines('starts')).toHaveLength(1)
    } finally {
      await gateway.close()
    }
  })
})
