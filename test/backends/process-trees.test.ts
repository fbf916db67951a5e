import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { describe, expect, test } from 'vitest'
import { currentPlace, findProcess } from '../../src/backends/process-identity.js'
import { endPredecessors } from '../../src/backends/process-predecessors.js'
import { openBackend, openDirectory } from '../fixtures/backend.js'
import { isAlive, serveGateway } from '../fixtures/cli.js'
import { writeFiles } from '../fixtures/gateway.js'
import { pgrep, plantTree, watchdogOf } from '../fixtures/process-trees.js'
import { stdioServer } from '../fixtures/servers.js'
import { openStdioGateway, RULES, type StdioGateway } from '../fixtures/stdio-gateway.js'

// What is promised: nothing is left after this long.
const WITHIN = { timeout: 10_000 }

/** A gateway whose server, a whole tree, is running. */
async function openWithTree() {
  const tree = await plantTree()
  const gateway = await openStdioGateway({ tree: tree.server })
  await gateway.call('tree', 'hello')
  const pids = await tree.pids()
  expect(pids.length).toBeGreaterThanOrEqual(3)
  return { tree, gateway, pid: Number(gateway.process.pid) }
}

const recordsIn = (directory: string): string[] => {
  try {
    return readdirSync(join(directory, 'processes')).map(name => join(directory, 'processes', name))
  } catch {
    return []
  }
}

describe('npx, a shell, and a server that ignores SIGTERM are gone', () => {
  test('after the backend is closed', async () => {
    await using tree = await plantTree()
    const { backend, call } = openBackend(tree.server, { env: process.env })
    await call('hello')
    expect((await tree.pids()).length).toBeGreaterThanOrEqual(3)
    void backend.close()
    await expect.poll(tree.pids, WITHIN).toEqual([])
  })

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'the end of stdin'] as const)('after %s', async how => {
    const { tree, gateway, pid } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    const watchdog = Number(await watchdogOf(pid))
    const ended = once(gateway.process, 'exit')
    if (how === 'the end of stdin') gateway.process.stdin.end()
    else gateway.process.kill(how)
    await expect.poll(tree.pids, WITHIN).toEqual([])
    expect(await ended).toEqual([0, null])
    await expect.poll(() => isAlive(watchdog)).toBe(false)
    expect(recordsIn(gateway.stateDirectory)).toEqual([])
  })

  test('after the gateway is killed', async () => {
    const { tree, gateway, pid } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    const watchdog = Number(await watchdogOf(pid))
    gateway.process.kill('SIGKILL')
    await expect.poll(tree.pids, WITHIN).toEqual([])
    await expect.poll(() => isAlive(watchdog)).toBe(false)
  })

  test('after a gateway that serves HTTP is killed', async () => {
    await using tree = await plantTree()
    const files = await writeFiles({ servers: { tree: tree.server }, rules: RULES })
    const options = ['--config', files.config, '--rules', files.rules, '--quickstart', 'default']
    const serve = await serveGateway(options, { env: files.env })
    const token = /^ey\S+$/m.exec(serve.process.output.stdout)?.[0]
    const params = { name: 'execute_tool', arguments: { server: 'tree', tool: 'hello' } }
    const answer = await fetch(serve.url, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
      },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
    })
    expect(answer.status).toBe(200)
    expect((await tree.pids()).length).toBeGreaterThanOrEqual(3)
    serve.process.kill('SIGKILL')
    await expect.poll(tree.pids, WITHIN).toEqual([])
    await files.close()
  })

  test('after the gateway is killed, although npx is gone already', async () => {
    const { tree, gateway, pid } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    const npx = await pgrep('-P', String(pid), '-f', 'stubborn')
    expect(npx).toHaveLength(1)
    gateway.process.kill('SIGSTOP') // lest it notice
    process.kill(Number(npx[0]), 'SIGKILL')
    expect((await tree.pids()).length).toBeGreaterThanOrEqual(1)
    gateway.process.kill('SIGKILL')
    await expect.poll(tree.pids, WITHIN).toEqual([])
  })
})

describe('the watchdog', () => {
  test('is one small process, whatever is started', async () => {
    const server = stdioServer('rich-stdio')
    await using gateway = await openStdioGateway({ one: server, two: server, three: server })
    const pid = Number(gateway.process.pid)
    expect(await watchdogOf(pid)).toBeUndefined()
    for (const name of ['one', 'two', 'three']) await gateway.call(name, 'text')
    const watchdogs = await pgrep('-P', String(pid), '-f', 'agent-mcp-gateway-watchdog')
    expect(watchdogs).toHaveLength(1)
    if (process.platform === 'linux') {
      const status = readFileSync(`/proc/${watchdogs[0]}/status`, 'utf8')
      expect(Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1])).toBeLessThan(8_000)
    }
  })

  test('goes home with the last server', async () => {
    const servers = [openBackend(stdioServer('rich-stdio')), openBackend(stdioServer('rich-stdio'))]
    for (const { call } of servers) await call('text')
    const watchdog = Number(await watchdogOf(process.pid))
    expect(isAlive(watchdog)).toBe(true)
    await servers[0]?.backend.close()
    expect(isAlive(watchdog)).toBe(true)
    await servers[1]?.backend.close()
    await expect.poll(() => isAlive(watchdog)).toBe(false)
  })

  test('survives what a terminal or an init sends to everybody', async () => {
    const { tree, gateway, pid } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    const watchdog = Number(await watchdogOf(pid))
    for (const signal of ['SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGTERM'] as const) process.kill(watchdog, signal)
    gateway.process.kill('SIGKILL')
    await expect.poll(tree.pids, WITHIN).toEqual([])
  })

  test('is replaced with the next server when somebody has killed it', async () => {
    await using tree = await plantTree()
    await using gateway = await openStdioGateway({ tree: tree.server, other: stdioServer('rich-stdio') })
    await gateway.call('tree', 'hello')
    const first = Number(await watchdogOf(Number(gateway.process.pid)))
    process.kill(first, 'SIGKILL')
    await expect.poll(() => isAlive(first)).toBe(false)
    await gateway.call('other', 'text')
    gateway.process.kill('SIGKILL')
    await expect.poll(tree.pids, WITHIN).toEqual([])
  })
})

describe('a gateway after one that was killed together with its watchdog', () => {
  async function orphan(gateway: StdioGateway): Promise<void> {
    const pid = Number(gateway.process.pid)
    await expect.poll(() => recordsIn(gateway.stateDirectory)).toHaveLength(1)
    process.kill(Number(await watchdogOf(pid)), 'SIGKILL')
    gateway.process.kill('SIGKILL')
    await expect.poll(() => isAlive(pid)).toBe(false)
  }

  test('ends what was left, and removes the record, which only its owner could read', async () => {
    const { tree, gateway } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    await orphan(gateway)
    const [record = ''] = recordsIn(gateway.stateDirectory)
    expect(statSync(record).mode & 0o777).toBe(0o600)
    expect(JSON.parse(readFileSync(record, 'utf8')).groups).toMatchObject([{ server: 'tree', command: 'npx' }])
    const left = await tree.pids()
    expect(left.length).toBeGreaterThanOrEqual(3)

    await using successor = await openStdioGateway({}, { stateDirectory: gateway.stateDirectory })
    await expect.poll(tree.pids, WITHIN).toEqual([])
    await expect.poll(() => recordsIn(successor.stateDirectory)).toEqual([])
  })

  test('leaves alone what only has the number of something that was left', async () => {
    const { tree, gateway } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    await orphan(gateway)
    const [record = ''] = recordsIn(gateway.stateDirectory)
    const content = JSON.parse(readFileSync(record, 'utf8'))
    // As if the group of that number were another by now.
    const bystander = spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' })
    content.groups.push({ ...content.groups[0], pid: bystander.pid })
    writeFileSync(record, JSON.stringify(content))
    try {
      await using successor = await openStdioGateway({}, { stateDirectory: gateway.stateDirectory })
      await expect.poll(tree.pids, WITHIN).toEqual([])
      await expect.poll(() => recordsIn(successor.stateDirectory)).toEqual([])
      expect(bystander.exitCode ?? bystander.signalCode).toBeNull()
    } finally {
      bystander.kill('SIGKILL')
    }
  })

  test('leaves alone what its neighbours run, and what is recorded elsewhere', async () => {
    const { tree, gateway } = await openWithTree()
    await using _ = tree
    await using __ = gateway
    await expect.poll(() => recordsIn(gateway.stateDirectory)).toHaveLength(1)
    const [record = ''] = recordsIn(gateway.stateDirectory)
    const elsewhere = JSON.parse(readFileSync(record, 'utf8'))
    elsewhere.place = 'another container'
    elsewhere.gateway.pid = 999_999_999
    const fromElsewhere = join(gateway.stateDirectory, 'processes', '1-elsewhere.json')
    writeFileSync(fromElsewhere, JSON.stringify(elsewhere))
    const before = await tree.pids()

    const neighbour = await openStdioGateway({}, { stateDirectory: gateway.stateDirectory })
    neighbour.process.stdin.end()
    await once(neighbour.process, 'exit') // it waits for what it does about predecessors
    await neighbour[Symbol.asyncDispose]()
    expect(await tree.pids()).toEqual(before)
    expect(recordsIn(gateway.stateDirectory).sort()).toEqual([fromElsewhere, record].sort())
    expect((await gateway.call('tree', 'hello')).isError).toBeUndefined()
  })
  test('takes a gateway that has ended for ended, also when nobody has asked how', async () => {
    await using directory = await openDirectory()
    const parent = spawn('sh', ['-c', 'sleep 1 & echo $!; exec sleep 1000'], { stdio: ['ignore', 'pipe', 'ignore'] })
    const pid = Number(String((await once(parent.stdout, 'data'))[0]))
    const gateway = { pid, startTime: (await findProcess(pid))?.startTime }
    const record = directory.file('1.json')
    writeFileSync(record, JSON.stringify({ place: await currentPlace(), gateway, groups: [] }))
    try {
      await endPredecessors(directory.path, pino({ level: 'silent' }))
      expect(existsSync(record)).toBe(true)
      await expect.poll(async () => (await findProcess(pid))?.isZombie).toBe(true)
      await endPredecessors(directory.path, pino({ level: 'silent' }))
      expect(existsSync(record)).toBe(false)
    } finally {
      parent.kill('SIGKILL')
    }
  })
})
