import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Directory, openDirectory } from '../fixtures/backend.js'
import { ask } from '../fixtures/http.js'
import { stdioServer } from '../fixtures/servers.js'
import { end, openSharedGateway, type Served, type SharedGateway } from '../fixtures/shared-gateway.js'
import { isRunning, release, worker } from '../fixtures/worker.js'

interface Status {
  readonly servers: readonly Record<string, unknown>[]
  readonly config: { readonly last_reload: string; readonly last_error?: string }
}

const RULES = { agents: { tester: { allow: { servers: ['*'] } } } }

let directory: Directory
let shared: SharedGateway
beforeEach(async () => {
  directory = await openDirectory()
  shared = await openSharedGateway({ servers: entries(), rules: RULES })
})
afterEach(async () => {
  await shared[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
})

const entries = () => ({
  well: worker({ startsFile: directory.file('well') }),
  unused: worker({ startsFile: directory.file('unused') }),
  down: worker({ brokenFile: directory.file('broken'), startsFile: directory.file('down') }),
  off: worker({}, { disabled: true }),
  wrong: worker({ label: '${NOT_SET_ANYWHERE}' }),
  far: { url: 'http://127.0.0.1:9/mcp', headers: { Authorization: 'Bearer t0ken-of-the-far-one' } },
})

async function status(args: readonly string[] = []): Promise<Status> {
  const { status: exit, stdout } = await shared.run(['status', '--json', ...args])
  expect(exit).toBe(0)
  return JSON.parse(stdout)
}
const stateOf = ({ servers }: Status, name: string) => servers.find(server => server.name === name)
const execute = (served: Served, server: string, tool: string) =>
  shared.call(served, 'tester', 'execute_tool', { server, tool, args: {} })

describe('of a gateway that is running', () => {
  let served: Served
  beforeEach(async () => {
    served = await shared.serve()
    await execute(served, 'well', 'who')
    release(directory.file('broken'))
    await execute(served, 'down', 'who')
    await execute(served, 'far', 'who')
  })

  test('is what that one knows: its processes, its failures; nothing is started for it', async () => {
    const starts = directory.lines('down').length
    const found = await status()
    expect(found).toEqual({
      servers: [
        {
          name: 'well',
          transport: 'stdio',
          state: 'ready',
          era: 'legacy',
          tools: 4,
          auth: { kind: 'none' },
          pid: Number(directory.lines('well')[0]),
        },
        { name: 'unused', transport: 'stdio', state: 'idle', auth: { kind: 'none' } },
        {
          name: 'down',
          transport: 'stdio',
          state: 'cooling',
          auth: { kind: 'none' },
          last_error: expect.stringMatching(/exited with status 3/),
        },
        { name: 'off', transport: 'stdio', state: 'disabled', auth: { kind: 'none' } },
        {
          name: 'wrong',
          transport: 'stdio',
          state: 'misconfigured',
          auth: { kind: 'none' },
          last_error: expect.stringContaining('NOT_SET_ANYWHERE'),
        },
        {
          name: 'far',
          transport: 'http',
          state: 'cooling',
          auth: { kind: 'header' },
          last_error: expect.stringContaining('"far"'),
        },
      ],
      config: { last_reload: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) },
      ...beside(found),
    })
    expect(await status()).toEqual(found)
    expect(directory.lines('unused')).toEqual([])
    expect(directory.lines('well')).toHaveLength(1)
    expect(directory.lines('down')).toHaveLength(starts)
    expect(isRunning(Number(stateOf(found, 'well')?.pid))).toBe(true)
  })

  test('is a table for people', async () => {
    const { status: exit, stdout, stderr } = await shared.run(['status'])
    expect([exit, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(/^well +ready +stdio +legacy +4 +none *$/m)
    expect(stdout).toMatch(/^unused +idle +stdio +- +- +none *$/m)
    expect(stdout).toMatch(/^down +cooling .*status 3/m)
  })

  test('says when the files cannot be used, and no longer when they can', async () => {
    const { config } = await status()
    await shared.spoilServers('{ "mcpServers": { "well": ')
    await expect.poll(async () => (await status()).config.last_error).toMatch(/\.mcp\.json:1:\d+: is not valid JSON/)
    const bad = await status()
    expect([bad.config.last_reload, stateOf(bad, 'well')?.state]).toEqual([config.last_reload, 'ready'])
    expect((await shared.run(['status'])).stdout).toMatch(/cannot be used: .*\.mcp\.json:1/)
    const { stderr } = served.process.output
    const logged = stderr.split('\n').filter(line => line.includes('is not valid JSON'))
    expect(logged.map(line => JSON.parse(line).level)).toEqual([expect.toBeOneOf(['error', 50])])

    await shared.saveServers(entries())
    await expect.poll(async () => (await status()).config.last_error).toBeUndefined()
    expect(stateOf(await status(), 'well')?.pid).toBe(stateOf(bad, 'well')?.pid)
  })

  test('of another configuration is not asked', async () => {
    const other = await openSharedGateway(
      { servers: { own: worker() }, rules: RULES },
      { GATEWAY_STATE_DIR: shared.stateDirectory },
    )
    try {
      const { stdout } = await other.run(['status', '--json'])
      const own = JSON.parse(stdout) as Status
      expect(own.servers).toMatchObject([{ name: 'own', state: 'ready' }])
    } finally {
      await other[Symbol.asyncDispose]()
    }
  })

  test('that was killed is not waited for', async () => {
    await end(served.process, 'SIGKILL')
    expect(stateOf(await status(), 'well')).toMatchObject({ state: 'ready', tools: 4 })
    expect(directory.lines('well')).toHaveLength(2)
  })

  test('and does not answer is told of, and done without', async () => {
    await end(served.process, 'SIGKILL')
    // Somebody else has its port now, and never says a word.
    const mute = createServer(() => {})
    await new Promise<void>(resolve => mute.listen(served.port, '127.0.0.1', resolve))
    try {
      expect((mute.address() as AddressInfo).port).toBe(served.port)
      expect(stateOf(await status(), 'well')).toMatchObject({ state: 'ready' })
    } finally {
      mute.close()
    }
  })
})

/** What is there beside what scripts rely on: who says it. */
const beside = (found: Status) => {
  const { servers: _servers, config: _config, ...rest } = found as Status & Record<string, unknown>
  return rest
}

test('without a running gateway it connects by itself, and leaves nothing behind', async () => {
  release(directory.file('broken'))
  const found = await status()
  expect(stateOf(found, 'well')).toMatchObject({ state: 'ready', era: 'legacy', tools: 4, pid: expect.any(Number) })
  expect(stateOf(found, 'unused')).toMatchObject({ state: 'ready' })
  expect(stateOf(found, 'down')).toMatchObject({ state: 'cooling', last_error: expect.stringContaining('status 3') })
  expect(found.config).toEqual({ last_reload: expect.any(String) })
  for (const name of ['well', 'unused'])
    await expect.poll(() => isRunning(Number(directory.lines(name)[0]))).toBe(false)
})

test('a server that is slow to start is `starting`', async () => {
  await shared.saveServers({ slow: stdioServer('silent-start'), well: worker() })
  const served = await shared.serve()
  const call = execute(served, 'slow', 'who').catch(() => undefined)
  await expect.poll(async () => stateOf(await status(), 'slow')?.state).toBe('starting')
  await end(served.process)
  await call
})

describe('/status', () => {
  test('wants a token of its own', async () => {
    const served = await shared.serve()
    const url = new URL('/status', served.url).href
    const get = (token?: string) =>
      ask(url, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
    const agents = await shared.token('tester')
    for (const answer of [await get(), await get('rubbish'), await get(agents)]) {
      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toMatch(/^Bearer /)
      expect(answer.text).not.toContain('well')
    }
    expect((await get(agents)).headers['www-authenticate']).toContain('error="invalid_token"')
    expect((await ask(served.url, { method: 'POST', headers: { authorization: `Bearer ${agents}` } })).status).not.toBe(
      401,
    )
  })

  test.each(['POST', 'DELETE'])('is only read (%s)', async method => {
    const served = await shared.serve()
    expect((await ask(new URL('/status', served.url).href, { method })).status).toBeOneOf([401, 404, 405])
  })
})
