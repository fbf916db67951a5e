import { expect, test } from 'vitest'
import { OWNER, openBackend, openDirectory } from '../fixtures/backend.js'
import { openTestGateway } from '../fixtures/gateway.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { createSocialServer } from '../fixtures/servers/social.js'
import { openByHand, openLegacySessions, stdioServer } from '../fixtures/servers.js'
import { isRunning, release, type Who, worker } from '../fixtures/worker.js'

const IDLE_MS = 300

test('a server that nobody uses is stopped, and the next call starts it', async () => {
  await using directory = await openDirectory()
  const startsFile = directory.file('starts')
  await using server = openBackend(worker({ startsFile }, { idleTimeoutMs: IDLE_MS }))
  const { pid } = await server.ask<Who>('who')
  await expect.poll(() => isRunning(pid)).toBe(false)
  const status = server.backend.status()
  expect(status).toMatchObject({ state: 'idle', tools: 4 })
  expect([status.pid, status.last_error]).toEqual([undefined, undefined])
  const again = await server.ask<Who>('who')
  expect([again.pid === pid, directory.lines('starts')]).toEqual([false, [String(pid), String(again.pid)]])
})

test('it is no crash, however often it happens', async () => {
  await using directory = await openDirectory()
  const startsFile = directory.file('starts')
  await using server = openBackend(worker({ startsFile }, { idleTimeoutMs: 50 }))
  for (let times = 1; times <= 8; times++) {
    const { pid } = await server.ask<Who>('who')
    await expect.poll(() => isRunning(pid)).toBe(false)
  }
  expect(server.backend.status()).toMatchObject({ state: 'idle' })
  expect(server.backend.status().last_error).toBeUndefined()
})

test('a call under way is use, however long it takes', async () => {
  await using directory = await openDirectory()
  const startsFile = directory.file('starts')
  await using server = openBackend(worker({ startsFile }, { idleTimeoutMs: IDLE_MS }))
  const file = directory.file('go')
  const long = server.ask<Who>('wait', { file })
  await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
  // Another one begins and ends meanwhile; then many times the limit goes by.
  const { pid } = await server.ask<Who>('who')
  const began = performance.now()
  await expect.poll(() => performance.now() - began, { timeout: 5_000 }).toBeGreaterThan(4 * IDLE_MS)
  expect(isRunning(pid)).toBe(true)
  release(file)
  expect((await long).pid).toBe(pid)
  await expect.poll(() => isRunning(pid)).toBe(false)
  expect(directory.lines('starts')).toHaveLength(1)
})

test('each call puts it off', async () => {
  await using server = openBackend(worker({}, { idleTimeoutMs: 1_000 }))
  const { pid } = await server.ask<Who>('who')
  const began = performance.now()
  const samePid = async () => {
    expect((await server.ask<Who>('who')).pid).toBe(pid)
    return performance.now() - began
  }
  await expect.poll(samePid, { interval: 100, timeout: 10_000 }).toBeGreaterThan(3_000)
})

test('a tool list that takes longer than that is read all the same', async () => {
  await using directory = await openDirectory()
  const startsFile = directory.file('starts')
  await using server = openBackend(worker({ startsFile, listsAfterMs: 3 * IDLE_MS }, { idleTimeoutMs: IDLE_MS }))
  expect(await server.toolNames()).toContain('who')
  expect(directory.lines('starts')).toHaveLength(1)
})

test('reading the tool list is use', async () => {
  await using server = openBackend(stdioServer('lists', { env: { LIST: 'short_lived' }, idleTimeoutMs: 1_500 }))
  await server.toolNames()
  const { pid } = server.backend.status()
  const began = performance.now()
  const read = async () => {
    await server.toolNames()
    return performance.now() - began
  }
  await expect.poll(read, { interval: 100, timeout: 10_000 }).toBeGreaterThan(4_000)
  expect(server.backend.status().pid).toBe(pid)
})

test('every process of a server that has several is stopped by itself', async () => {
  await using server = openBackend(worker({}, { idleTimeoutMs: 1_000, session: 'per-agent' }))
  const whoIs = async (agent: string) =>
    (await server.ask<Who>('who', {}, { owner: { agent, principal: 'local' } })).pid
  const [busy, unused] = [await whoIs('busy'), await whoIs('unused')]
  const stillBusy = async () => {
    expect(await whoIs('busy')).toBe(busy)
    return isRunning(unused)
  }
  await expect.poll(stillBusy, { interval: 100 }).toBe(false)
})

test('a connection to elsewhere is given up too, and its session ended', async () => {
  await using http = await openLegacySessions(createRichServer({ eras: ['legacy'], countExecution: () => 0 }))
  await using server = openBackend({ url: http.url, idleTimeoutMs: IDLE_MS })
  await server.call('text')
  const opened = () => http.received.filter(({ body }) => body.method === 'initialize').length
  expect(server.backend.status().state).toBe('ready')
  await expect.poll(() => server.backend.status().state).toBe('idle')
  await expect.poll(() => http.received.some(({ method }) => method === 'DELETE')).toBe(true)
  await server.call('text')
  expect(opened()).toBe(2)
})

test.each(['legacy', 'modern'] as const)(
  'who listens to its lists (%s) does not keep it, and does not start it again',
  async era => {
    await using directory = await openDirectory()
    const startsFile = directory.file('starts')
    await using server = openBackend(worker({ era, startsFile }, { idleTimeoutMs: IDLE_MS }))
    const { pid } = await server.ask<Who>('who')
    const stop = await server.backend.watch(OWNER, { uris: [], onChange: () => {} })
    await expect.poll(() => isRunning(pid)).toBe(false)
    const began = performance.now()
    await expect.poll(() => performance.now() - began, { timeout: 5_000 }).toBeGreaterThan(1_500)
    expect(directory.lines('starts')).toHaveLength(1)
    stop()
  },
)

test.each(['legacy', 'modern'] as const)('who waits for news of a resource (%s) keeps it', async era => {
  await using http = await openByHand(createSocialServer({ era }))
  await using server = openBackend({ url: http.url, idleTimeoutMs: IDLE_MS })
  await server.toolNames()
  const stop = await server.backend.watch(OWNER, { uris: ['note://1'], onChange: () => {} })
  const began = performance.now()
  await expect.poll(() => performance.now() - began, { timeout: 5_000 }).toBeGreaterThan(4 * IDLE_MS)
  expect(server.backend.status().state).toBe('ready')
  stop()
  await expect.poll(() => server.backend.status().state).toBe('idle')
})

test('agents see its tools meanwhile, and looking starts nothing', async () => {
  await using directory = await openDirectory()
  const startsFile = directory.file('starts')
  const servers = { worker: worker({ startsFile, names: ['polish'] }, { idleTimeoutMs: IDLE_MS }) }
  const gateway = await openTestGateway({ servers, rules: { agents: { tester: { allow: { servers: ['*'] } } } } })
  try {
    const call = (name: string, args = {}) => gateway.call(name, args, 'tester')
    const { pid } = (await call('execute_tool', { server: 'worker', tool: 'who', args: {} })).structuredContent
    await expect.poll(() => isRunning(Number(pid))).toBe(false)
    expect((await call('list_servers')).structuredContent.servers).toMatchObject([{ state: 'idle', tools: 5 }])
    const found = await call('search_tools', { query: 'polish' })
    expect(found.structuredContent.tools).toMatchObject([{ server: 'worker', name: 'polish' }])
    expect(directory.lines('starts')).toHaveLength(1)
    const again = await call('execute_tool', { server: 'worker', tool: 'who', args: {} })
    expect(again.structuredContent).toMatchObject({ pid: expect.any(Number) })
    expect(directory.lines('starts')).toHaveLength(2)
  } finally {
    await gateway.close()
  }
})
