import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Directory, openDirectory } from '../fixtures/backend.js'
import { type GatewayProcess, spawnGateway } from '../fixtures/cli.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { beginSession, type ClientSession, listenModern } from '../fixtures/http-clients.js'
import { pgrep } from '../fixtures/process-trees.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { openLegacySessions, stdioServer } from '../fixtures/servers.js'
import { end, openSharedGateway, type Served, type SharedGateway } from '../fixtures/shared-gateway.js'
import { isRunning, release, worker } from '../fixtures/worker.js'

const RULES = { agents: { tester: { allow: { servers: ['*'] } }, default: { allow: { servers: ['*'] } } } }
/** Calls in flight, then the three rungs of the ladder for a server that does not want to go, and a busy machine. */
const LIMIT_MS = 15_000

let directory: Directory
let shared: SharedGateway
beforeEach(async () => {
  directory = await openDirectory()
  shared = await openSharedGateway({
    servers: {
      worker: worker({ startsFile: directory.file('worker') }),
      modern: worker({ era: 'modern', startsFile: directory.file('modern') }),
      slow: worker({ startsFile: directory.file('slow'), readyFile: directory.file('never') }),
      stubborn: stdioServer('stubborn', { env: { PID_FILE: directory.file('stubborn') } }),
    },
    rules: RULES,
  })
})
afterEach(async () => {
  await shared[Symbol.asyncDispose]()
  await directory[Symbol.asyncDispose]()
})

const execute = (served: Served, server: string, tool: string, args = {}) =>
  shared.call(served, 'tester', 'execute_tool', { server, tool, args })
const ready = async ({ url }: Served) => (await ask(new URL('/ready', url).href)).status
const pidIn = (name: string) => Number(directory.lines(name)[0])
const resultOf = ({ json }: Awaited<ReturnType<typeof ask>>) => json().result as Record<string, unknown>

async function timed(ending: Promise<unknown>): Promise<number> {
  const began = performance.now()
  await ending
  return performance.now() - began
}

/** A call that waits for a file, under way; with its answer in an object, so that nobody waits for it unasked. */
async function begin(served: Served, server = 'worker') {
  const file = directory.file(`go-${server}`)
  const answer = execute(served, server, 'wait', { file }).catch((error: Error) => error)
  await expect.poll(() => directory.lines(`go-${server}.begun`)).toHaveLength(1)
  return { answer, go: () => release(file) }
}

describe('serve, on SIGTERM', () => {
  let served: Served
  let exited: Promise<unknown[]>
  beforeEach(async () => {
    served = await shared.serve()
    exited = once(served.process, 'exit')
  })

  test('with nothing to do ends soon, with status 0 and no child', async () => {
    await execute(served, 'worker', 'who')
    expect(await ready(served)).toBe(200)
    const children = await pgrep('-P', String(served.process.pid))
    served.process.kill('SIGTERM')
    expect(await timed(exited)).toBeLessThan(5_000)
    expect(await exited).toEqual([0, null])
    for (const pid of [pidIn('worker'), ...children]) await expect.poll(() => isRunning(pid)).toBe(false)
  })

  test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)(
    '(%s) is not ready any more, refuses new calls, and finishes what is under way',
    async signal => {
      const { answer, go } = await begin(served)
      served.process.kill(signal)
      await expect.poll(() => ready(served)).toBe(503)
      expect((await ask(new URL('/health', served.url).href)).status).toBe(200)
      const refused = await execute(served, 'worker', 'who')
      if (refused.status !== 503)
        expect(resultOf(refused)).toMatchObject({
          isError: true,
          structuredContent: { error: { code: 'SHUTTING_DOWN' } },
        })
      go()
      const finished = await answer
      if (finished instanceof Error) throw finished
      expect(resultOf(finished)).toMatchObject({ structuredContent: { pid: pidIn('worker') } })
      expect(await exited).toEqual([0, null])
      await expect.poll(() => isRunning(pidIn('worker'))).toBe(false)
    },
  )

  test('waits for calls of either era, on sessions and off them', async () => {
    const token = await shared.token('tester')
    const session: ClientSession = await beginSession(served.url, token)
    const file = directory.file('together')
    const args = { server: 'modern', tool: 'wait', args: { file } }
    const calls = [
      session.call('execute_tool', args, { progressToken: 'p' }).then(({ answer }) => answer.result),
      session.call('execute_tool', args).then(({ answer }) => answer.result),
      ask(served.url, mcpRequest('legacy', token, 'tools/call', { name: 'execute_tool', arguments: args })).then(
        resultOf,
      ),
      ask(
        served.url,
        mcpRequest('modern', token, 'tools/call', {
          name: 'execute_tool',
          arguments: args,
          _meta: { progressToken: 'q' },
        }),
      ).then(resultOf),
    ]
    await expect.poll(() => directory.lines('together.begun')).toEqual(['xxxx'])
    served.process.kill('SIGTERM')
    await expect.poll(() => ready(served)).toBe(503)
    release(file)
    for (const result of await Promise.all(calls))
      expect(result).toMatchObject({ structuredContent: { pid: pidIn('modern') } })
    expect(await exited).toEqual([0, null])
  })

  test('gives up a call that never ends, tells its caller, and ends in time', async () => {
    const { answer } = await begin(served)
    served.process.kill('SIGTERM')
    expect(await timed(exited)).toBeLessThan(LIMIT_MS)
    expect(await exited).toEqual([0, null])
    const given = await answer
    if (given instanceof Error) throw given
    expect(resultOf(given)).toMatchObject({
      isError: true,
      structuredContent: { error: { code: expect.toBeOneOf(['OUTCOME_UNKNOWN', 'SHUTTING_DOWN']) } },
    })
    await expect.poll(() => isRunning(pidIn('worker'))).toBe(false)
  })

  test('does not wait for a server that is still starting', async () => {
    const call = execute(served, 'slow', 'who').catch((error: Error) => error)
    await expect.poll(() => directory.lines('slow')).toHaveLength(1)
    served.process.kill('SIGTERM')
    expect(await timed(exited)).toBeLessThan(LIMIT_MS)
    expect(await exited).toEqual([0, null])
    await call
    await expect.poll(() => isRunning(pidIn('slow'))).toBe(false)
  })

  test('ends a server that ignores it', async () => {
    await execute(served, 'stubborn', 'hello')
    served.process.kill('SIGTERM')
    expect(await timed(exited)).toBeLessThan(LIMIT_MS)
    expect(await exited).toEqual([0, null])
    await expect.poll(() => isRunning(pidIn('stubborn'))).toBe(false)
  })

  test('is not held up by streams that are open', async () => {
    const token = await shared.token('tester')
    const session = await beginSession(`${served.url}?expose=direct`, token)
    const streams = [
      await session.listen(),
      await listenModern(`${served.url}?expose=direct`, token, { toolsListChanged: true }),
    ]
    served.process.kill('SIGTERM')
    expect(await timed(exited)).toBeLessThan(5_000 + LIMIT_MS / 3)
    expect(await exited).toEqual([0, null])
    await Promise.all(streams.map(({ closed }) => closed))
  })

  test('says goodbye to the servers elsewhere', async () => {
    await using http = await openLegacySessions(createRichServer({ eras: ['legacy'], countExecution: () => 0 }))
    await shared.saveServers({ web: { url: http.url } })
    await expect.poll(async () => resultOf(await execute(served, 'web', 'text')).isError).toBeUndefined()
    served.process.kill('SIGTERM')
    expect(await exited).toEqual([0, null])
    expect(http.received.some(({ method }) => method === 'DELETE')).toBe(true)
  })

  test('the second time ends at once, and still leaves no child', async () => {
    await begin(served)
    await execute(served, 'stubborn', 'hello')
    served.process.kill('SIGTERM')
    await expect.poll(() => ready(served)).toBe(503)
    const began = performance.now()
    served.process.kill('SIGTERM')
    const [status] = (await exited) as [number | null]
    expect(performance.now() - began).toBeLessThan(1_500)
    expect(status).not.toBe(0)
    for (const name of ['worker', 'stubborn'])
      await expect.poll(() => isRunning(pidIn(name)), { timeout: LIMIT_MS }).toBe(false)
  })

  test('while it is still coming up ends too', async () => {
    const early = spawnGateway(['serve', '--port', '0'], {
      cwd: shared.directory,
      env: { ...shared.env, LOG_LEVEL: 'info' },
    })
    await expect.poll(() => early.output.stderr).not.toBe('')
    expect(await end(early)).toBe(0)
  })
})

describe('stdio', () => {
  let gateway: GatewayProcess
  let lines: Record<string, unknown>[]
  beforeEach(async () => {
    gateway = spawnGateway(['stdio', '--agent', 'tester'], { cwd: shared.directory, env: shared.env })
    lines = []
    let open = ''
    gateway.stdout.on('data', (text: string) => {
      const [first = '', ...rest] = `${open}${text}`.split('\n')
      const whole = [first, ...rest]
      open = whole.pop() ?? ''
      for (const line of whole) lines.push(JSON.parse(line))
    })
    const clientInfo = { name: 't', version: '1' }
    send({ id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo } })
    await expect.poll(() => answerTo(0)).toBeDefined()
    send({ method: 'notifications/initialized' })
  })
  afterEach(() => end(gateway, 'SIGKILL'))

  const send = (message: Record<string, unknown>) =>
    gateway.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
  const executeOver = (id: number, server: string, tool: string, args = {}) =>
    send({ id, method: 'tools/call', params: { name: 'execute_tool', arguments: { server, tool, args } } })
  const answerTo = (id: number) => lines.find(line => line.id === id)
  const close = { stdin: () => void gateway.stdin.end(), SIGTERM: () => void gateway.kill('SIGTERM') }

  test.each(['stdin', 'SIGTERM'] as const)(
    '(%s) finishes the call under way, with status 0 and no child',
    async how => {
      executeOver(1, 'worker', 'wait', { file: directory.file('go') })
      await expect.poll(() => directory.lines('go.begun')).toHaveLength(1)
      const exited = once(gateway, 'exit')
      close[how]()
      release(directory.file('go'))
      expect(await exited).toEqual([0, null])
      expect(answerTo(1)).toMatchObject({ result: { structuredContent: { pid: pidIn('worker') } } })
      await expect.poll(() => isRunning(pidIn('worker'))).toBe(false)
    },
  )

  test.each(['stdin', 'SIGTERM'] as const)('(%s) does not wait for ever', async how => {
    executeOver(1, 'worker', 'wait', { file: directory.file('never') })
    await expect.poll(() => directory.lines('never.begun')).toHaveLength(1)
    const exited = once(gateway, 'exit')
    close[how]()
    expect(await timed(exited)).toBeLessThan(LIMIT_MS)
    expect(await exited).toEqual([0, null])
    await expect.poll(() => isRunning(pidIn('worker'))).toBe(false)
  })

  test('refuses new calls once it has begun, and ends at once the second time', async () => {
    executeOver(1, 'worker', 'wait', { file: directory.file('never') })
    await expect.poll(() => directory.lines('never.begun')).toHaveLength(1)
    const exited = once(gateway, 'exit')
    gateway.kill('SIGTERM')
    let id = 1
    const next = async () => {
      executeOver(++id, 'worker', 'who')
      await expect.poll(() => answerTo(id)).toBeDefined()
      return answerTo(id)
    }
    await expect.poll(next).toMatchObject({ result: { structuredContent: { error: { code: 'SHUTTING_DOWN' } } } })
    const began = performance.now()
    gateway.kill('SIGTERM')
    await exited
    expect(performance.now() - began).toBeLessThan(1_500)
    await expect.poll(() => isRunning(pidIn('worker')), { timeout: LIMIT_MS }).toBe(false)
  })
})
