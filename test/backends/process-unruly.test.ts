import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { openBackend } from '../fixtures/backend.js'
import { pgrep } from '../fixtures/process-trees.js'
import { stdioServer } from '../fixtures/servers.js'
import { openStdioGateway, type StdioGateway } from '../fixtures/stdio-gateway.js'

const MEGABYTE = 1024 * 1024
const FLOOD_MS = 3_000

/** A gateway with a server that is about to misbehave, and one that does not. */
async function openWithNeighbour(): Promise<StdioGateway> {
  const gateway = await openStdioGateway({ unruly: stdioServer('unruly'), good: stdioServer('unruly') })
  for (const server of ['unruly', 'good']) expect((await gateway.call(server, 'hello')).isError).toBeUndefined()
  return gateway
}

/** How much more memory a gateway has ever had than now. */
function watchMemory({ process: { pid } }: StdioGateway): () => number {
  const read = (field: string) =>
    Number(new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
  const before = read('VmRSS')
  return () => read('VmHWM') - before
}

const errorOf = async (gateway: StdioGateway, tool: string, args = {}) =>
  (await gateway.call('unruly', tool, args)).structuredContent.error

test('a command that forks and exits is told to stay in the foreground, and what it left is ended', async () => {
  const { command, args } = stdioServer('silent-start')
  const marker = `forking-${randomUUID()}`
  // What is in the background has no stdin unless it is given one.
  const script = 'exec 3<&0; "$0" "$@" <&3 3<&- & exit 0'
  await using server = openBackend({ command: 'sh', args: ['-c', script, command, ...args, marker] })
  const expected = expect.stringContaining('exited with status 0 and left others running')
  await expect(server.call('hello')).rejects.toMatchObject({ code: 'SERVER_UNAVAILABLE', message: expected })
  expect(server.backend.status()).toMatchObject({ state: 'cooling', last_error: expected })
  await expect.poll(() => pgrep('-f', marker)).toEqual([])
})

describe.runIf(process.platform === 'linux')('memory is bounded and the neighbour unharmed when a server', () => {
  test('prints 100 MB to stderr', async () => {
    await using gateway = await openWithNeighbour()
    const grown = watchMemory(gateway)
    const shouting = gateway.call('unruly', 'shout')
    expect((await gateway.call('good', 'hello')).isError).toBeUndefined()
    expect((await shouting).isError).toBeUndefined()
    expect(grown()).toBeLessThan(60 * MEGABYTE)
  })

  test('sends a message of 64 MB', async () => {
    await using gateway = await openWithNeighbour()
    const grown = watchMemory(gateway)
    expect(await errorOf(gateway, 'huge', { bytes: 64 * MEGABYTE })).toMatchObject({
      message: expect.stringContaining('sent a message of more than 33554432 bytes'),
    })
    expect((await gateway.call('good', 'hello')).isError).toBeUndefined()
    expect(grown()).toBeLessThan(100 * MEGABYTE)
  })

  test.each([
    ['notifications/message', { level: 'info', data: 'x' }],
    ['notifications/tools/list_changed', {}],
    ['notifications/progress', { progressToken: 1, progress: 1 }],
    ['notifications/made/up', {}],
  ])('floods %s', async (method, params) => {
    await using gateway = await openWithNeighbour()
    const grown = watchMemory(gateway)
    await gateway.call('unruly', 'flood', { method, params })
    const times: number[] = []
    for (const end = performance.now() + FLOOD_MS; performance.now() < end; ) {
      const startedAt = performance.now()
      await gateway.call('good', 'hello')
      times.push(performance.now() - startedAt)
    }
    // Its own calls get through as well.
    const { structuredContent } = await gateway.call('unruly', 'flooded')
    expect(structuredContent.flooded).toBeGreaterThan(5_000)
    const [median = 0] = times.sort((a, b) => a - b).slice(times.length / 2)
    expect(median).toBeLessThan(100)
    expect(grown()).toBeLessThan(250 * MEGABYTE)
  })
})

test('a server that closes its stdout is named, in the status too, and its neighbour is unharmed', async () => {
  await using gateway = await openWithNeighbour()
  const cause = expect.stringContaining('the process closed its output')
  expect(await errorOf(gateway, 'silence')).toMatchObject({ message: cause })
  expect((await gateway.call('good', 'hello')).isError).toBeUndefined()
  // The first time it is started again at once.
  await expect.poll(() => gateway.status('unruly')).toMatchObject({ state: 'ready' })
  expect(await errorOf(gateway, 'silence')).toMatchObject({ message: cause })
  expect(await gateway.status('unruly')).toMatchObject({ state: 'cooling', last_error: cause })
})

test('a server that closes its stdout at once is named in the status', async () => {
  await using server = openBackend({ command: 'sh', args: ['-c', 'exec >&-; cat >/dev/null; sleep 1000'] })
  const expected = expect.stringContaining('closed its output')
  await expect(server.call('hello')).rejects.toMatchObject({ code: 'SERVER_UNAVAILABLE', message: expected })
  expect(server.backend.status()).toMatchObject({ state: 'cooling', last_error: expected })
})

test('a server whose first message is too large is named in the status', async () => {
  await using server = openBackend({ command: 'sh', args: ['-c', 'cat /dev/zero'] })
  const expected = expect.stringContaining('sent a message of more than')
  await expect(server.call('hello')).rejects.toMatchObject({ code: 'SERVER_UNAVAILABLE', message: expected })
  expect(server.backend.status()).toMatchObject({ state: 'cooling', last_error: expected })
})

test('answers out of order and given twice reach who asked, once', async () => {
  await using gateway = await openWithNeighbour()
  const answers = await Promise.all([1, 2, 3].map(at => gateway.call('unruly', 'backwards', { at })))
  expect(answers.map(({ structuredContent }) => structuredContent)).toEqual([{ at: 1 }, { at: 2 }, { at: 3 }])
  expect((await gateway.call('unruly', 'hello')).isError).toBeUndefined()
})
