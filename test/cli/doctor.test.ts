import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { openSection } from '../../src/cli/doctor/section.js'
import { linesOf, styleFor } from '../../src/cli/doctor.js'
import { gateway, isAlive, type RunOptions, spawnGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'
import { stdioServer } from '../fixtures/servers.js'
import { quietPort } from '../oauth/scene.js'
import { SELF_SIGNED } from './doctor-certificate.js'
import { RULES, toFindings } from './doctor-patient.js'

/** `gateway doctor` on a machine with these servers. */
async function openMachine(servers: Record<string, unknown>) {
  const files = await writeFiles({ servers, rules: RULES })
  onTestFinished(() => files.close())
  const env = { ...files.env, MCP_SERVER_PORT: '0' }
  const run = (args: readonly string[], options: RunOptions = {}) =>
    gateway(['doctor', ...args], { cwd: files.directory, ...options, env: { ...env, ...options.env } })
  return { files, env, run }
}

test('all is well: exit 0, a heading for each subject, a line for each check', async () => {
  const { run } = await openMachine({ shop: nodeServer('shop.js') })
  const { status, stdout, stderr } = await run([])
  expect([status, stderr]).toEqual([0, ''])
  const headings = stdout.split('\n').filter(line => /^\w+(\/\w+)?$/.test(line))
  expect(headings).toEqual(['environment', 'network', 'files', 'credentials', 'issuer', 'server/shop'])
  expect(stdout).toMatch(/^ {2}ok {7}Node {2,}\d+\.\d+\.\d+ \(needs 20\.19\)$/m)
  expect(stdout).toMatch(/^ {2}ok {7}tools {2,}14 tools$/m)
  expect(stdout).toMatch(/^\d+ checks: 0 failed, \d+ warnings, \d+ skipped$/m)
  expect(stdout).not.toContain('\u001b')
})

test('--json: the same as objects; exit 1 when a check failed', async () => {
  const { run } = await openMachine({ gone: { command: 'no-such-command' }, off: { command: 'x', disabled: true } })
  const { status, stdout } = await run(['--json'])
  expect(status).toBe(1)
  const { checks } = JSON.parse(stdout)
  expect(Object.keys(JSON.parse(stdout))).toEqual(['checks'])
  for (const check of checks) {
    expect(Object.keys(check).filter(key => !['subject', 'check', 'status', 'found', 'advice'].includes(key))).toEqual(
      [],
    )
    expect(['ok', 'warning', 'failed', 'skipped']).toContain(check.status)
    expect('advice' in check).toBe(['warning', 'failed'].includes(check.status))
  }
  const { course } = toFindings(checks)
  expect(course('server/gone')).toEqual([
    'command: failed',
    'command for apps: skipped',
    'initialize: skipped',
    'tools: skipped',
  ])
  expect(course('server/off')).toEqual(['configuration: skipped'])
})

test('NAME: that server alone; one that is not there is a mistake in the configuration', async () => {
  const { run } = await openMachine({ one: { command: 'no-such-command' }, two: { command: 'x', disabled: true } })
  const two = await run(['two', '--json'])
  expect(two.status).toBe(0)
  const subjects = JSON.parse(two.stdout).checks.map(({ subject }: { subject: string }) => subject)
  expect(new Set(subjects)).toEqual(new Set(['environment', 'network', 'files', 'credentials', 'issuer', 'server/two']))
  expect(await run(['three'])).toMatchObject({
    status: 78,
    stdout: '',
    stderr: 'there is no server "three" (there are: one, two)\n',
  })
})

test('files that cannot be loaded: 78, and all the rest is looked at', async () => {
  const { run, files } = await openMachine({})
  await writeFile(files.config, '{ "mcpServers": ')
  const { status, stdout } = await run([])
  expect(status).toBe(78)
  expect(stdout).toMatch(/failed {3}servers file .*is not valid JSON/)
  expect(stdout).toMatch(/^ {11}→ mend it, then run: gateway check$/m)
  expect(stdout).toMatch(/ok {7}Node/)
  expect(stdout).toMatch(/ok {7}address/)
})

test('no secret of any kind is shown, whatever goes wrong', async () => {
  const { run } = await openMachine({
    leaky: nodeServer('leaky.js', { env: { API_KEY: 'canary-in-env' }, inheritEnv: ['INHERITED'] }),
    args: { command: 'no-such-command-${SECRET}', args: ['--key', '${SECRET}'] },
    query: { url: `http://127.0.0.1:${await quietPort()}/mcp?key=canary-in-query` },
    header: { url: 'https://host.invalid/mcp', headers: { Authorization: 'Bearer canary-in-header' } },
    client: { url: 'https://host.invalid/mcp', oauth: { clientId: 'me', clientSecret: 'canary-of-client' } },
  })
  const env = {
    SECRET: 'canary-in-variable',
    INHERITED: 'canary-inherited',
    GATEWAY_CREDENTIALS_KEY: 'canary-that-is-no-key',
    GATEWAY_PASSPHRASE: 'canary-passphrase',
    HTTPS_PROXY: 'http://user:canary-of-proxy@proxy.example',
  }
  for (const args of [[], ['--json']]) {
    const { status, stdout, stderr } = await run(args, { env })
    expect(status).toBe(1)
    expect(stdout).toContain('last words')
    expect(stdout + stderr).not.toContain('canary')
  }
})

test('what it advises about a certificate works', async () => {
  const server = createServer(SELF_SIGNED, (_, response) => response.writeHead(404).end()).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const { port } = server.address() as AddressInfo
  const { run, files } = await openMachine({ own: { url: `https://localhost:${port}/mcp` } })
  const connection = async (env = {}) => {
    const { stdout } = await run(['own', '--json'], { env })
    return toFindings(JSON.parse(stdout).checks).one('server/own', 'connection')
  }
  expect(await connection()).toMatchObject({
    status: 'failed',
    advice: expect.stringContaining('NODE_EXTRA_CA_CERTS=FILE'),
  })
  const file = join(files.directory, 'authority.pem')
  await writeFile(file, SELF_SIGNED.cert)
  expect(await connection({ NODE_EXTRA_CA_CERTS: file })).toMatchObject({
    status: 'ok',
    found: expect.stringMatching(/TLSv1\.[23], certificate by Nobody until /),
  })
})

test('interrupted, it leaves no process behind', async () => {
  const { files, env } = await openMachine({})
  const pidFile = join(files.directory, 'pid')
  const servers = {
    stubborn: stdioServer('stubborn', { env: { PID_FILE: pidFile } }),
    silent: stdioServer('silent-start'),
  }
  await writeFile(files.config, JSON.stringify({ mcpServers: servers }))
  const child = spawnGateway(['doctor'], { cwd: files.directory, env })
  const ended = once(child, 'exit')
  const pid = await vi.waitFor(
    async () => Number(await readFile(pidFile, 'utf8')) || Promise.reject(new Error('not yet')),
    15_000,
  )
  child.kill('SIGINT')
  expect(await ended).toEqual([1, null])
  await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
})

describe('how it is written', () => {
  const section = openSection('server/one')
  section.ok('DNS', 'fine')
  section.failed('connection', 'a line\nthat \u001b[31mgoes on', 'do that')

  test('in columns, with what to do below', () => {
    expect(linesOf(section, (_, text) => text)).toEqual([
      'server/one',
      '  ok       DNS         fine',
      '  failed   connection  a line that  [31mgoes on',
      '           → do that',
      '',
    ])
  })

  test('marks have colours on a terminal that wants them', () => {
    const [, first, second] = linesOf(section, styleFor({ isTTY: true }, {}))
    expect(first).toBe('  \u001b[32mok     \u001b[39m  DNS         fine')
    expect(second).toContain('\u001b[31mfailed \u001b[39m')
    expect(second?.split('\u001b')).toHaveLength(3) // none of the server's
  })

  test.each([
    [{ isTTY: false }, {}],
    [{ isTTY: true }, { NO_COLOR: '1' }],
    [{ isTTY: true }, { TERM: 'dumb' }],
  ])('%o %o: none', (stream, env) => expect(styleFor(stream, env)('ok', 'ok')).toBe('ok'))
})
