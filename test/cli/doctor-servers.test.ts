import { once } from 'node:events'
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { openExamination } from '../../src/cli/doctor/examine.js'
import { isAlive } from '../fixtures/cli.js'
import { nodeServer } from '../fixtures/gateway.js'
import { createServer } from '../fixtures/servers/by-hand.js'
import { listen, openByHand, openOldSse, stdioServer } from '../fixtures/servers.js'
import { quietPort } from '../oauth/scene.js'
import { SELF_SIGNED } from './doctor-certificate.js'
import { openPatient, openSilence } from './doctor-patient.js'

const hello = () => createServer({ tools: [{ name: 'hello', inputSchema: { type: 'object' } }] })

/** The findings about one server. */
async function examineOne(entry: Record<string, unknown>, limitMs?: number) {
  const patient = await openPatient({ one: entry })
  const findings = await patient.examine({ limitMs })
  return {
    course: findings.course('server/one'),
    of: (check: string) => findings.one('server/one', check),
    text: JSON.stringify(findings.all),
  }
}

describe('a local server', () => {
  test('that is well', async () => {
    const { course, of } = await examineOne(nodeServer('shop.js'))
    expect(course).toEqual(['command: ok', 'command for apps: ok', 'initialize: ok', 'tools: ok'])
    expect(of('command').found).toBe(process.execPath)
    expect(of('initialize').found).toMatch(/^in \d+ ms, legacy era, shop 1\.0\.0$/)
    expect(of('tools').found).toBe('14 tools')
  })

  test.each<[string, Record<string, unknown>, string, RegExp, RegExp]>([
    [
      'a command that is not there',
      { command: 'no-such-command' },
      'command',
      /"no-such-command" is not in PATH/,
      /install/,
    ],
    ['a path that is not there', { command: '/no/such/command' }, 'command', /does not exist/, /full path/],
    ['no directory', nodeServer('shop.js', { cwd: '/no/such' }), 'working directory', /\/no\/such/, /cwd/],
    [
      'a crash',
      stdioServer('exiting'),
      'initialize',
      /exited with status 3.*fatal: the database "main" does not exist/,
      /last words/,
    ],
    [
      'silence',
      stdioServer('silent-start', { startupTimeoutMs: 600 }),
      'initialize',
      /did not answer/,
      /startupTimeoutMs/,
    ],
  ])('%s', async (_, entry, check, found, advice) => {
    const { course, of } = await examineOne(entry)
    expect(of(check)).toMatchObject({
      status: 'failed',
      found: expect.stringMatching(found),
      advice: expect.stringMatching(advice),
    })
    expect(course.filter(step => step.endsWith('failed'))).toHaveLength(1)
    const after = course.slice(course.indexOf(`${check}: failed`) + 1)
    expect(after.length).toBeGreaterThan(0)
    expect(after.every(step => step.endsWith('skipped'))).toBe(true)
  })

  test('last words come without secrets', async () => {
    const { of, text } = await examineOne(nodeServer('leaky.js', { env: { API_KEY: 'canary-4b1f77/&"' } }))
    expect(of('initialize').found).toContain('started with key [redacted]')
    expect(text).not.toContain('canary')
  })

  test('tools that are held back are named', async () => {
    const tools = [
      { name: 'good', inputSchema: { type: 'object' } },
      { name: 'bad', inputSchema: { type: 'nonsense' } },
    ]
    await using http = await openByHand(createServer({ tools }))
    expect((await examineOne({ url: http.url })).of('tools')).toMatchObject({
      status: 'warning',
      found: expect.stringMatching(/^1 tool; held back: bad \(.+\)$/),
    })
  })

  test('none is left behind, not even one that does not want to go', async () => {
    const patient = await openPatient({})
    const pidFile = join(patient.files.directory, 'pid')
    const stubborn = stdioServer('stubborn', { env: { PID_FILE: pidFile } })
    await writeFile(patient.files.config, JSON.stringify({ mcpServers: { stubborn } }))
    const { one } = await patient.examine()
    expect(one('server/stubborn', 'tools').status).toBe('ok')
    expect(isAlive(Number(await readFile(pidFile, 'utf8')))).toBe(false)
  })

  test('disabled, and misconfigured', async () => {
    const patient = await openPatient({
      off: { command: 'x', disabled: true },
      unset: { command: 'x', args: ['${NOT_SET_ANYWHERE}'] },
    })
    const { course, one } = await patient.examine()
    expect(course('server/off')).toEqual(['configuration: skipped'])
    expect(one('server/unset', 'configuration')).toMatchObject({
      status: 'failed',
      found: expect.stringContaining('NOT_SET_ANYWHERE'),
    })
  })
})

test('servers are looked at all at once, and told in the order of the file', async () => {
  const patient = await openPatient({
    slow: stdioServer('silent-start', { startupTimeoutMs: 1_500 }),
    quick: { command: 'no-such-command' },
  })
  const { cwd, env } = { cwd: patient.files.directory, env: { ...patient.files.env, MCP_SERVER_PORT: '0' } }
  const examination = await openExamination({ cwd, env, desktopPath: undefined })
  const servers = examination.sections.slice(-2)
  expect(await Promise.race(servers)).toMatchObject({ subject: 'server/quick' })
  await examination.close()
  expect((await Promise.all(servers)).map(({ subject }) => subject)).toEqual(['server/slow', 'server/quick'])
})

describe('a command as apps find it', () => {
  /** A directory that only the shell's PATH has, with a script in it that `interpreter` runs. */
  async function openShell(interpreter: string) {
    const patient = await openPatient({ one: { command: 'my-tool' } })
    const bin = join(patient.files.directory, 'bin')
    await mkdir(bin)
    await writeFile(join(bin, 'my-tool'), `#!${interpreter}\nimport '${nodeServer('shop.js').args[0]}'\n`)
    await writeFile(join(bin, 'package.json'), '{ "type": "module" }')
    await chmod(join(bin, 'my-tool'), 0o755)
    const env = { PATH: `${bin}:${process.env.PATH}` }
    return { bin, ...patient, examine: (desktopPath: string) => patient.examine({ env, desktopPath }) }
  }

  test('only the shell has it: the full path', async () => {
    const { bin, examine } = await openShell(process.execPath)
    const { one } = await examine('/usr/bin:/bin')
    expect(one('server/one', 'command').found).toBe(`${bin}/my-tool, run by ${process.execPath}`)
    expect(one('server/one', 'command for apps')).toMatchObject({
      status: 'warning',
      found: '"my-tool" is not in the PATH of apps (2 places)',
      advice: `write "command": "${bin}/my-tool"`,
    })
    expect(one('server/one', 'tools').status).toBe('ok')
  })

  test('its interpreter is not there either: the full path and a PATH', async () => {
    const { bin, examine } = await openShell('/usr/bin/env node')
    const { advice } = (await examine('/nowhere')).one('server/one', 'command for apps')
    expect(advice).toMatch(`write "command": "${bin}/my-tool" and "env": { "PATH": "`)
    expect(advice).toMatch(/:\/nowhere" \}: it is a script, run by "node"$/)
  })

  test('an interpreter that is nowhere', async () => {
    const { examine } = await openShell('/usr/bin/env no-such-node')
    expect((await examine('/usr/bin')).one('server/one', 'command')).toMatchObject({
      status: 'failed',
      found: expect.stringContaining('is run by "no-such-node", which is not in PATH'),
    })
  })

  test('a PATH in "env" holds everywhere', async () => {
    const patient = await openPatient({ one: { command: 'node', args: [], env: { PATH: '/nowhere' } } })
    expect((await patient.examine()).one('server/one', 'command')).toMatchObject({
      status: 'failed',
      found: '"node" is not in the PATH of its "env"',
    })
  })
})

describe('a remote server', () => {
  test('that wants no login', async () => {
    await using http = await openByHand(hello())
    const { course, of } = await examineOne({ url: http.url, headers: { 'X-Key': 'canary-1234' } })
    expect(course).toEqual(['headers: ok', 'DNS: ok', 'connection: ok', 'HTTP: ok', 'initialize: ok', 'tools: ok'])
    expect(of('headers').found).toBe('its own: X-Key')
  })

  test('of the old HTTP+SSE transport, behind a URL that says http', async () => {
    await using http = await openOldSse(hello())
    const { course } = await examineOne({ url: http.url })
    expect(course).toEqual(['DNS: ok', 'connection: ok', 'HTTP: ok', 'initialize: ok', 'tools: ok'])
  })

  test('a name that nobody knows', async () => {
    const { course, of } = await examineOne({ url: 'https://no-such-host.invalid/mcp' })
    expect(course).toEqual([
      'DNS: failed',
      'connection: skipped',
      'HTTP: skipped',
      'initialize: skipped',
      'tools: skipped',
    ])
    expect(of('DNS')).toMatchObject({
      found: expect.stringContaining('no-such-host.invalid has no address'),
      advice: expect.stringContaining('check the host name'),
    })
  })

  test('nobody listens', async () => {
    const { course, of } = await examineOne({ url: `http://127.0.0.1:${await quietPort()}/mcp` })
    expect(course.slice(0, 3)).toEqual(['DNS: ok', 'connection: failed', 'HTTP: skipped'])
    expect(of('connection').found).toContain('nothing listens there (ECONNREFUSED)')
  })

  test('a certificate that nobody vouches for', async () => {
    const server = createTlsServer(SELF_SIGNED).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const { of } = await examineOne({ url: `https://127.0.0.1:${port}/mcp` })
    expect(of('connection')).toMatchObject({
      status: 'failed',
      found: expect.stringContaining('signed by itself'),
      advice: expect.stringContaining('NODE_EXTRA_CA_CERTS'),
    })
  })

  test('https: where there is no TLS', async () => {
    await using http = await openByHand(hello())
    const { of } = await examineOne({ url: http.url.replace('http:', 'https:') })
    expect(of('connection')).toMatchObject({ status: 'failed', found: expect.stringContaining('does not speak TLS') })
  })

  test('takes connections and never answers', async () => {
    const { course, of } = await examineOne({ url: `http://127.0.0.1:${await openSilence()}/mcp` }, 500)
    expect(course).toEqual(['DNS: ok', 'connection: ok', 'HTTP: failed', 'initialize: skipped', 'tools: skipped'])
    expect(of('HTTP').found).toBe('no answer within 0.5 s')
  })

  test.each<[number, Record<string, string>, RegExp, RegExp]>([
    [404, {}, /^HTTP 404/, /no MCP at this path/],
    [403, {}, /^HTTP 403/, /refuses/],
    [
      307,
      { location: 'https://elsewhere.example/mcp?key=canary' },
      /to https:\/\/elsewhere.example\/mcp$/,
      /into "url"/,
    ],
    [429, {}, /^HTTP 429/, /limits the rate/],
    [503, {}, /^HTTP 503/, /in trouble/],
  ])('HTTP %i', async (status, headers, found, advice) => {
    await using http = await listen((_, response) => response.writeHead(status, headers).end())
    const { course, of, text } = await examineOne({ url: http.url })
    expect(course.slice(2)).toEqual(['HTTP: failed', 'initialize: skipped', 'tools: skipped'])
    expect(of('HTTP')).toMatchObject({
      found: expect.stringMatching(found),
      advice: expect.stringMatching(advice),
    })
    expect(text).not.toContain('canary')
  })

  test('a web page', async () => {
    await using http = await listen((_, response) =>
      response.writeHead(200, { 'content-type': 'text/html' }).end('<h1>Welcome</h1>'),
    )
    const { course, of } = await examineOne({ url: http.url })
    expect(course.slice(2)).toEqual(['HTTP: ok', 'initialize: failed', 'tools: skipped'])
    expect(of('HTTP').found).toContain('text/html')
    expect(of('initialize').advice).toContain('check the path')
  })

  test('does not take the header of the servers file', async () => {
    await using http = await listen((_, response) => response.writeHead(401, { 'www-authenticate': 'Bearer' }).end())
    const { course, of, text } = await examineOne({ url: http.url, headers: { Authorization: 'Bearer canary-5678' } })
    expect(course.slice(3)).toEqual(['HTTP: failed', 'initialize: skipped', 'tools: skipped'])
    expect(of('HTTP').advice).toContain('does not take the Authorization header')
    expect(text).not.toContain('canary')
  })
})
