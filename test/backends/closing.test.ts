import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { openBackend, openDirectory } from '../fixtures/backend.js'
import { stdioServer } from '../fixtures/servers.js'

/** A shell that runs the stubborn server as its child, which neither SIGTERM nor the end of stdin impresses. */
const tree = (pidFile: string) => {
  const { command, args } = stdioServer('stubborn')
  return { command: 'sh', args: ['-c', `"$0" "$1"; true`, command, ...args], env: { PID_FILE: pidFile } }
}

test('closing ends the whole process tree, a grandchild that ignores SIGTERM included', async () => {
  await using directory = await openDirectory()
  const server = openBackend(tree(directory.file('pid')))
  await server.call('hello')
  const grandchild = Number(directory.lines('pid')[0])
  const child = Number(server.backend.status().pid)
  expect(isRunning(grandchild) && isRunning(child) && child !== grandchild).toBe(true)

  const started = performance.now()
  await server.backend.close()
  expect(performance.now() - started).toBeLessThan(10_000)
  await expect.poll(() => isRunning(child) || isRunning(grandchild)).toBe(false)
  expect(server.backend.status().state).toBe('idle')
})

test('what a dead server leaves behind is ended', async () => {
  await using directory = await openDirectory()
  await using server = openBackend(tree(directory.file('pid')))
  await server.call('hello')
  const grandchild = Number(directory.lines('pid')[0])
  try {
    process.kill(Number(server.backend.status().pid), 'SIGKILL')
    await expect.poll(() => server.backend.status().state, { timeout: 5_000 }).toBe('idle')
    await server.backend.close()
    await expect.poll(() => isRunning(grandchild), { timeout: 5_000 }).toBe(false)
  } finally {
    if (isRunning(grandchild)) process.kill(grandchild, 'SIGKILL')
  }
})

test('closing while a server is still starting ends it too', async () => {
  await using directory = await openDirectory()
  const env = { STARTS_FILE: directory.file('starts') }
  const server = openBackend(stdioServer('silent-start', { env }))
  const call = server.call('hello').catch((error: unknown) => error)
  await expect.poll(() => directory.lines('starts')).toHaveLength(1)
  expect(server.backend.status().state).toBe('starting')
  await server.backend.close()
  expect(await call).toMatchObject({ code: expect.stringMatching(/^(SHUTTING_DOWN|SERVER_UNAVAILABLE)$/) })
  await expect.poll(() => isRunning(Number(directory.lines('starts')[0]))).toBe(false)
  expect(directory.lines('starts')).toHaveLength(1)
})

test('a call under way when the backend is closed does not hang, and no new one is made', async () => {
  const server = openBackend(stdioServer('rich-stdio'))
  await server.toolNames()
  const call = server.call('silent').catch((error: unknown) => error)
  await expect.poll(async () => (await server.ask<{ silent: unknown[] }>('report')).silent).toHaveLength(1)
  await server.backend.close()
  expect(await call).toMatchObject({ code: 'OUTCOME_UNKNOWN' })
  await expect(server.call('text')).rejects.toMatchObject({ code: 'SHUTTING_DOWN' })
})

test('a retired backend finishes its calls and then ends its process', async () => {
  const server = openBackend(stdioServer('rich-stdio'))
  await server.toolNames()
  const pid = Number(server.backend.status().pid)
  const call = server.ask('slow', { steps: 3, everyMs: 100 })
  await expect
    .poll(
      async () => (await server.ask<{ methods: string[] }>('report')).methods.filter(m => m === 'tools/call').length,
    )
    .toBeGreaterThan(1)
  void server.backend.retire()
  expect(await call).toEqual({ steps: 3 })
  await expect.poll(() => isRunning(pid), { timeout: 5_000 }).toBe(false)
})

/** False for a process that has ended, also when nobody has asked for its status yet. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return process.platform !== 'linux' || !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}
