import { realpathSync } from 'node:fs'
import { expect, test } from 'vitest'
import { OWNER, openBackend, openDirectory } from '../fixtures/backend.js'
import { stdioServer } from '../fixtures/servers.js'

interface ProcessReport {
  readonly pid: number
  readonly cwd: string
  readonly env: Record<string, string>
}

test('50 concurrent first calls start one process', async () => {
  await using directory = await openDirectory()
  await using server = openBackend(stdioServer('rich-stdio', { env: { STARTS_FILE: directory.file('starts') } }))
  const reports = await Promise.all(Array.from({ length: 50 }, () => server.ask<ProcessReport>('process')))
  expect(new Set(reports.map(({ pid }) => pid)).size).toBe(1)
  expect(directory.lines('starts')).toHaveLength(1)
})

test('nothing is started before the first call', async () => {
  await using directory = await openDirectory()
  await using server = openBackend(stdioServer('rich-stdio', { env: { STARTS_FILE: directory.file('starts') } }))
  expect(server.backend.status()).toEqual({
    name: 'backend',
    transport: 'stdio',
    state: 'idle',
    auth: { kind: 'none' },
  })
  expect(server.backend.knownTools).toBeUndefined()
  expect(server.backend.freshTools(OWNER)).toBeUndefined()
  expect(directory.lines('starts')).toEqual([])
  await server.call('text')
  const [pid] = directory.lines('starts')
  expect(server.backend.status()).toMatchObject({ state: 'ready', era: 'legacy', pid: Number(pid) })
})

test('a child sees path, home, locale, temp, its own env and what inheritEnv names, and nothing else of ours', async () => {
  const env = {
    PATH: process.env.PATH,
    HOME: '/nowhere',
    LANG: 'C',
    CANARY: 'secret',
    WANTED: 'yes',
    NODE_OPTIONS: '--no-warnings',
  }
  const own = { OWN: '1', HOME: '/own' }
  await using server = openBackend(stdioServer('rich-stdio', { env: own, inheritEnv: ['WANTED', 'MISSING'] }), { env })
  const { env: seen } = await server.ask<ProcessReport>('process')
  expect(seen).toEqual({ PATH: process.env.PATH, LANG: 'C', HOME: '/own', OWN: '1', WANTED: 'yes' })
})

test('a server runs in its cwd', async () => {
  await using directory = await openDirectory()
  await using server = openBackend(stdioServer('rich-stdio', { cwd: directory.path }))
  expect((await server.ask<ProcessReport>('process')).cwd).toBe(realpathSync(directory.path))
})

test('a command that does not exist is named', async () => {
  await using server = openBackend({ command: 'no-such-command-anywhere' }, { name: 'ghost' })
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: expect.stringContaining('no-such-command-anywhere'),
    details: { server: 'ghost', retry_at: expect.any(String) },
  })
  expect(server.backend.status()).toMatchObject({
    state: 'cooling',
    last_error: expect.stringContaining('was not found'),
  })
})

test('a directory that does not exist is named', async () => {
  await using server = openBackend(stdioServer('rich-stdio', { cwd: '/no/such/directory' }))
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: expect.stringContaining('/no/such/directory'),
  })
})

test('banners and rubbish on stdout are tolerated', async () => {
  await using server = openBackend(stdioServer('noisy'))
  expect(await server.toolNames()).toEqual(['hello'])
  expect(await server.call('hello')).toEqual({ content: [] })
})

test('a server that exits is unavailable: its last words, when it is tried again, and until then no new start', async () => {
  await using directory = await openDirectory()
  await using server = openBackend(stdioServer('exiting', { env: { STARTS_FILE: directory.file('starts') } }), {
    name: 'db',
  })
  const first = await server.call('text').catch((error: unknown) => error)
  expect(first).toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: expect.stringContaining('exited with status 3'),
    details: { server: 'db', stderr: ['reading the settings', 'fatal: the database "main" does not exist'] },
  })
  const { retry_at: retryAt } = (first as { details: { retry_at: string } }).details
  expect(Date.parse(retryAt)).toBeGreaterThan(Date.now() - 1_000)
  const starts = directory.lines('starts').length
  expect(server.backend.status()).toMatchObject({ state: 'cooling', last_error: expect.stringContaining('status 3') })

  await expect(server.call('text')).rejects.toBe(first)
  expect(directory.lines('starts')).toHaveLength(starts)

  // Once the time has come it is tried again, and waits longer after each failure.
  const again = async () => {
    await server.call('text').catch(() => {})
    return directory.lines('starts').length
  }
  await expect.poll(again, { timeout: 10_000 }).toBeGreaterThan(starts)
  const second = (await server.call('text').catch((error: unknown) => error)) as { details: { retry_at: string } }
  expect(Date.parse(second.details.retry_at)).toBeGreaterThan(Date.parse(retryAt) + 1_000)
})

test.each([
  {
    session: 'shared',
    owners: [
      ['a', 'p'],
      ['b', 'p'],
      ['a', 'q'],
    ],
    processes: 1,
  },
  {
    session: 'per-agent',
    owners: [
      ['a', 'p'],
      ['b', 'p'],
      ['a', 'q'],
    ],
    processes: 2,
  },
  {
    session: 'per-user',
    owners: [
      ['a', 'p'],
      ['b', 'p'],
      ['a', 'q'],
      ['a', 'r'],
    ],
    processes: 3,
  },
] as const)('session: $session gives $processes process(es)', async ({ session, owners, processes }) => {
  await using server = openBackend(stdioServer('rich-stdio', { session }))
  const askFor = ([agent, principal]: readonly [string, string]) =>
    server.ask<ProcessReport>('process', {}, { owner: { agent, principal } })
  const first = await Promise.all(owners.map(askFor))
  const second = await Promise.all(owners.map(askFor))
  expect(new Set(first.map(({ pid }) => pid)).size).toBe(processes)
  expect(second.map(({ pid }) => pid)).toEqual(first.map(({ pid }) => pid))
})

test('a disabled server is not started', async () => {
  await using server = openBackend(stdioServer('rich-stdio', { disabled: true }), { name: 'off' })
  expect(server.backend.status().state).toBe('disabled')
  await expect(server.call('text')).rejects.toMatchObject({ code: 'SERVER_UNAVAILABLE', details: { server: 'off' } })
})

test('a misconfigured server is not started, and names the variable', async () => {
  await using server = openBackend(stdioServer('rich-stdio', { env: { KEY: `\${NOT_SET_ANYWHERE}` } }))
  expect(server.backend.status()).toMatchObject({
    state: 'misconfigured',
    last_error: expect.stringContaining('NOT_SET_ANYWHERE'),
  })
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: expect.stringContaining('NOT_SET_ANYWHERE'),
  })
})

test('a server that hangs while starting is given up after startupTimeoutMs', async () => {
  const hanging = {
    command: process.execPath,
    args: ['-e', 'process.stderr.write("waiting\\n"); setInterval(() => {}, 1000)'],
  }
  await using server = openBackend({ ...hanging, startupTimeoutMs: 300 })
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    details: { stderr: ['waiting'] },
  })
})

test('a server that never answers is started once, ended at its limit, and told so by name', async () => {
  await using directory = await openDirectory()
  const env = { STARTS_FILE: directory.file('starts') }
  const args = ['-c', 'echo started >> "$STARTS_FILE"; echo a banner; exec sleep 1000']
  await using server = openBackend({ command: 'sh', args, env, startupTimeoutMs: 500 })
  await expect(server.call('text')).rejects.toMatchObject({
    code: 'SERVER_UNAVAILABLE',
    message: expect.stringMatching(/within 500 ms \(startupTimeoutMs\); 1 lines/),
  })
  expect(directory.lines('starts')).toEqual(['started'])
})
