import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, chown, copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { pgrep } from '../fixtures/process-trees.js'

const run = promisify(execFile)
const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const EXAMPLES = join(ROOT, 'docs', 'examples')
const NOBODY_ELSE = 1000

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-image-'))
  await chmod(directory, 0o755)
})
afterAll(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }))

describe('systemd', () => {
  test.each([
    ['agent-mcp-gateway.service', []],
    ['user/agent-mcp-gateway.service', ['--user']],
  ])('has nothing to say about %s', async (path, flags) => {
    const env = { ...process.env, XDG_RUNTIME_DIR: directory }
    const { stdout, stderr } = await run('systemd-analyze', [...flags, 'verify', join(EXAMPLES, path)], { env })
    expect([stdout, stderr]).toEqual(['', ''])
  })

  test('finds the one for a server hardly exposed', async () => {
    const unit = join(EXAMPLES, 'agent-mcp-gateway.service')
    const { stdout } = await run('systemd-analyze', [
      'security',
      '--offline=true',
      '--threshold=20',
      '--no-pager',
      unit,
    ])
    expect(stdout).toContain('OK')
  })
})

describe('what the Dockerfile puts together', () => {
  let node: string
  let variables: Record<string, string>
  let port: string

  beforeAll(async () => {
    const suite = (await import(new URL('../conformance/suite.js', import.meta.url).href)) as {
      findNode(): Promise<string>
    }
    node = join(directory, 'node') // where everybody may run it
    await copyFile(await suite.findNode(), node)

    const app = join(directory, 'app')
    await mkdir(app)
    const install = /^RUN (npm ci --omit.*)$/m.exec(await readFile(join(ROOT, 'Dockerfile'), 'utf8'))?.[1] ?? 'false'
    for (const file of ['package.json', 'package-lock.json']) await copyFile(join(ROOT, file), join(app, file))
    await run('sh', ['-c', install], { cwd: app })
    const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
    await run(process.execPath, [compiler, '-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(app, 'dist')])

    const server = join(app, 'shop.js')
    await cp(join(ROOT, 'test', 'fixtures', 'shop.js'), server)
    const config = join(directory, 'config')
    await mkdir(config)
    const servers = {
      shop: { command: 'sh', args: ['-c', `(sleep 0.7319 &); exec "$0" "$@"`, node, server] },
      secretive: { command: 'false', env: { KEY: '${NOT_SET}' } },
    }
    await writeFile(join(config, '.mcp.json'), JSON.stringify({ mcpServers: servers }))
    const rules = {
      agents: { default: { allow: { servers: ['*'] } } },
      defaults: { deny_on_missing_agent: false },
    }
    await writeFile(join(config, '.mcp-gateway-rules.json'), JSON.stringify(rules))
    const state = join(directory, 'state')
    const key = join(directory, 'key')
    await mkdir(state, { mode: 0o700 })
    await writeFile(key, Buffer.alloc(32, 7).toString('base64'), { mode: 0o400 })
    if (process.getuid?.() === 0) for (const path of [state, key]) await chown(path, NOBODY_ELSE, NOBODY_ELSE)
    port = await freePort()
    variables = {
      PATH: `${dirname(node)}:/usr/local/bin:/usr/bin:/bin`,
      HOME: state,
      GATEWAY_MCP_CONFIG: join(config, '.mcp.json'),
      GATEWAY_RULES: join(config, '.mcp-gateway-rules.json'),
      GATEWAY_STATE_DIR: state,
      GATEWAY_KEYCHAIN: 'off',
      GATEWAY_CREDENTIALS_KEY_FILE: key,
      MCP_SERVER_PORT: port,
    }
  })

  // As "docker run --cap-drop ALL --security-opt no-new-privileges" has it.
  const asNobodyElse =
    process.getuid?.() === 0
      ? [
          'setpriv',
          `--reuid=${NOBODY_ELSE}`,
          `--regid=${NOBODY_ELSE}`,
          '--clear-groups',
          '--bounding-set=-all',
          '--no-new-privs',
        ]
      : []
  const namespace = ['unshare', ...(asNobodyElse.length > 0 ? [] : ['-r']), '-pf', '--mount-proc']

  /** Outside the container's process namespace, as somebody with its files: what "docker exec" would run. */
  async function exec(...args: string[]): Promise<{ status: number | null; stdout: string }> {
    const [program = '', ...words] = [...asNobodyElse, node, ...args]
    const child = spawn(program, words, { env: variables, cwd: '/', stdio: ['ignore', 'pipe', 'inherit'] })
    const stdout = await text(child.stdout)
    return { status: child.exitCode ?? (await once(child, 'exit'))[0], stdout }
  }

  test('serves as an unprivileged process 1, keeps its secrets, leaves no zombies, and ends with 0', async () => {
    const main = join(directory, 'app', 'dist', 'main.js')
    const [program = '', ...args] = [...namespace, ...asNobodyElse, node, main, 'serve']
    const container = spawn(program, args, { env: variables, cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] })
    const ended = once(container, 'close')
    let log = ''
    container.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      log += chunk
    })
    await expect.poll(() => log, { timeout: 15_000 }).toContain('serving MCP over HTTP')
    const one = String((await pgrep('-P', String(container.pid)))[0])
    if (asNobodyElse.length > 0)
      expect(await readFile(`/proc/${one}/status`, 'utf8')).toMatch(
        /^Uid:\t1000\t[\s\S]*^CapEff:\t0+$[\s\S]*^NoNewPrivs:\t1$/m,
      )

    const healthCheck = / CMD (\["node".*\])$/m.exec(await readFile(join(ROOT, 'Dockerfile'), 'utf8'))?.[1] ?? '[]'
    const [, ...check] = JSON.parse(healthCheck) as string[]
    expect(await exec(...check)).toEqual({ status: 0, stdout: '' })

    const { stdout: token } = await exec(main, 'token', 'issue', '--agent', 'default')
    const call = (server: string) =>
      fetch(`http://127.0.0.1:${port}/mcp`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token.trim()}`,
          'content-type': 'application/json',
          accept: 'application/json, text/event-stream',
        },
        body: JSON.stringify({
          jsonrpc: '2.0',
          id: 1,
          method: 'tools/call',
          params: { name: 'get_server_tools', arguments: { server } },
        }),
      }).then(response => response.text())
    expect(await call('shop')).toContain('inputSchema')
    // One that lacks its secret is told by name, and takes nothing else down.
    expect(await call('secretive')).toContain('NOT_SET')

    await expect.poll(() => pgrep('-f', 'sleep 0.7319'), { timeout: 5_000 }).toEqual([])
    await expect.poll(() => pgrep('-r', 'Z', '-P', one)).toEqual([])
    process.kill(Number(one), 'SIGTERM')
    expect((await ended)[0]).toBe(0)
    expect(await exec(...check)).toEqual({ status: 1, stdout: '' })
  })
})

async function freePort(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  return String(typeof address === 'object' ? address?.port : address)
}
