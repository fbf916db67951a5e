import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { loadConfig } from '../src/config/load.js'
import { BIN, isAlive } from './fixtures/cli.js'
import { nodeServer } from './fixtures/gateway.js'

const ROOT = fileURLToPath(new URL('../', import.meta.url))
const read = (path: string) => readFile(join(ROOT, path), 'utf8')

const guide = await read('docs/deployment.md')
const readme = await read('README.md')
const dockerfile = await read('Dockerfile')

interface Block {
  readonly section: string
  readonly language: string
  readonly text: string
}

const blocks: Block[] = []
for (const [, heading, language, text] of guide.matchAll(/^#+ (.*)$|^```(\w+)\n([\s\S]*?)^```/gm)) {
  const section = heading ?? blocks.at(-1)?.section ?? ''
  blocks.push({ section, language: language ?? '', text: text ?? '' })
}
const inLanguage = (wanted: string) => blocks.filter(({ language }) => language === wanted)
const only = (language: string) => inLanguage(language)[0]?.text ?? ''

let home: string
let bin: string
let env: Record<string, string>
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'gateway-deployment-'))
  bin = join(home, 'bin')
  env = {
    PATH: `${bin}:${process.env.PATH}`,
    HOME: home,
    GATEWAY_KEYCHAIN: 'off',
    MCP_SERVER_PORT: '0',
    CALLS: join(home, 'calls'),
  }
  for (const directory of [bin, join(home, 'clone'), join(home, 'npm'), ...ELSEWHERE.map(path => home + path)])
    await mkdir(directory, { recursive: true })
  await symlink(ROOT, join(home, 'npm', 'agent-mcp-gateway'))
  await writeConfig(join(home, 'clone'))
  for (const [name, script] of Object.entries(STAND_INS)) {
    await writeFile(join(bin, name), `#!/bin/sh\necho "${name} $*" >> "$CALLS"\n${script}\n`)
    await chmod(join(bin, name), 0o755)
  }
})
afterAll(() => rm(home, { recursive: true, force: true, maxRetries: 3 }))

// Places that only root may write to are below the home directory here.
const ELSEWHERE = ['/etc/agent-mcp-gateway', '/etc/systemd/system', '/var/lib/agent-mcp-gateway', '/srv']
const here = (text: string) =>
  [...ELSEWHERE, '/usr/local/bin/gateway-admin'].reduce(
    (moved, path) => moved.replaceAll(path, path.startsWith('/usr') ? join(bin, 'gateway-admin') : home + path),
    text,
  )

// Programs that change the machine, or are not there, only write down what they were asked to do; the rest is real.
const STAND_INS: Record<string, string> = {
  gateway: `exec '${process.execPath}' '${BIN}' "$@"`,
  npx: `shift; exec '${process.execPath}' '${BIN}' "$@"`,
  npm: 'case "$1" in root) echo "$HOME/npm" ;; pack) echo agent-mcp-gateway.tgz ;; esac',
  sudo: 'while :; do case "$1" in -u) shift 2 ;; -H) shift ;; *) break ;; esac; done; exec "$@"',
  docker: 'if [ "$1 $2" = "exec gateway" ]; then shift 2; exec "$@"; fi',
  ...Object.fromEntries(
    ['chown', 'curl', 'journalctl', 'launchctl', 'plutil', 'systemctl', 'tail', 'useradd'].map(name => [name, '']),
  ),
}

async function writeConfig(directory: string): Promise<void> {
  await writeFile(join(directory, '.mcp.json'), JSON.stringify({ mcpServers: { shop: nodeServer('shop.js') } }))
  const rules = {
    agents: { default: { allow: { servers: ['*'] } }, researcher: { allow: { servers: ['*'] } } },
    defaults: { deny_on_missing_agent: false },
  }
  await writeFile(join(directory, '.mcp-gateway-rules.json'), JSON.stringify(rules))
}

/** Runs lines of the guide as a person would paste them; resolves with the commands of which there is only a stand-in. */
async function follow(script: string, cwd: string): Promise<string[]> {
  await writeFile(env.CALLS ?? '', '')
  const child = spawn('sh', ['-euc', here(script)], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [[status], stdout, stderr] = await Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)])
  expect([status, status === 0 ? '' : `${stdout}${stderr}`]).toEqual([0, ''])
  return (await readFile(env.CALLS ?? '', 'utf8')).split('\n').slice(0, -1)
}

/** Starts what a service manager would; resolves once it serves. The end of the test is the end of it. */
async function start(command: readonly string[], variables: Record<string, string>) {
  const [program = '', ...args] = command
  const child = spawn(program, args, { env: variables, stdio: ['ignore', 'ignore', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    log += chunk
  })
  const port = await vi.waitFor(() => {
    const found = /"listening":"127\.0\.0\.1:(\d+)"/.exec(log)?.[1]
    if (found === undefined) throw new Error(`it does not listen: ${log}`)
    return found
  }, 15_000)
  return { port, stop: () => stopped(child) }
}

async function stopped(child: ChildProcess): Promise<number | null> {
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const [status] = (await ended) as [number | null]
  return status
}

const LAPTOP = 'A laptop: one gateway for all clients'

describe('the deployment guide', () => {
  const scripts = inLanguage('sh').filter(({ section }) => section !== LAPTOP)

  test('a laptop: two clients share the gateway that the first one starts', async () => {
    const [files = '', look = '', stop = ''] = inLanguage('sh').flatMap(({ section, text }) =>
      section === LAPTOP ? [text] : [],
    )
    const directory = join(home, '.config', 'agent-mcp-gateway')
    await follow(files, home)
    await writeConfig(directory) // what it wrote would be downloaded

    const { mcpServers } = JSON.parse(only('json').replaceAll('/home/you', home))
    const entry = mcpServers.gateway as { command: string; args: string[]; env: Record<string, string> }
    const clients = [0, 1].map(() => {
      // A client that is at home in some project.
      const child = spawn(entry.command, entry.args, { cwd: join(home, 'clone'), env: { ...env, ...entry.env } })
      onTestFinished(() => void child.kill('SIGKILL'))
      const clientInfo = { name: 'test', version: '1' }
      const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo }
      child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params })}\n`)
      return child
    })
    await Promise.all(clients.map(async ({ stdout }) => expect(String(await once(stdout, 'data'))).toContain('"id":1')))
    await follow(look, directory)
    const running = join(home, '.local', 'state', 'agent-mcp-gateway')
    expect((await readFile(join(running, 'serve.log'), 'utf8')).match(/serving MCP over HTTP/g)).toHaveLength(1)

    const { pid } = JSON.parse(await status(directory))
    expect(isAlive(pid)).toBe(true)
    await follow(stop, directory)
    await vi.waitFor(() => expect(isAlive(pid)).toBe(false), 15_000)
    for (const client of clients) client.stdin.end()
  })

  async function status(cwd: string): Promise<string> {
    const child = spawn('gateway', ['status', '--json'], { cwd, env, stdio: ['ignore', 'pipe', 'ignore'] })
    return text(child.stdout)
  }

  // In the order of the guide: each stands on what those before it did.
  test.each(scripts.map(({ section, text }, index) => [index, section, text] as const))(
    '%i %s',
    async (_, __, lines) => {
      const calls = await follow(lines, join(home, 'clone'))
      expect(calls).not.toEqual([])
      for (const call of calls.filter(line => line.startsWith('docker run'))) checkDockerRun(call.split(' ').slice(2))
    },
  )

  test('has commands for everything', () => expect(scripts.length).toBeGreaterThan(10))

  const WITH_VALUE = new Set(
    '--name --restart --network --tmpfs --cap-drop --security-opt --env --volume --publish'.split(' '),
  )

  function checkDockerRun(words: readonly string[]): void {
    const image = words.findIndex((word, index) => !word.startsWith('--') && !WITH_VALUE.has(words[index - 1] ?? ''))
    if (words[image] === 'caddy:2') return
    expect(words[image]).toBe('agent-mcp-gateway')
    const values = (name: string) => words.slice(0, image).filter((_, index) => words[index - 1] === name)
    const volumes = values('--volume').map(volume => volume.split(':').slice(1).join(':'))
    expect(volumes).toEqual(expect.arrayContaining(['/config:ro', '/state']))
    for (const volume of volumes)
      expect(['/config:ro', '/state', '/home/node/.npm', '/run/secrets/credentials_key:ro']).toContain(volume)
    expect(values('--network')[0] ?? 'none').toMatch(/^(host|container:proxy|none)$/)
    // Without these it would lead nowhere.
    const names = values('--env').map(variable => variable.split('=')[0])
    const needed = values('--publish').length > 0 ? ['MCP_SERVER_HOST', 'MCP_RESOURCE_URI', 'OAUTH_GATEWAY_URL'] : []
    expect(names).toEqual(expect.arrayContaining(needed))
    expect(['serve', 'stdio', 'credentials']).toContain(words[image + 1] ?? 'serve')
  }

  test('its entry for a client in a container', () => {
    const entry = JSON.parse(inLanguage('json')[1]?.text ?? '').mcpServers.gateway
    expect(entry.command).toBe('docker')
    expect(entry.args).toEqual(expect.arrayContaining(['--interactive', '--no-healthcheck']))
    checkDockerRun(entry.args.slice(1))
    expect(entry.args.at(-1)).toBe('stdio')
  })

  test('a server that reads its secret from a file', async () => {
    const shown = join(home, 'shown.json')
    await writeFile(shown, only('jsonc'))
    const { servers } = await loadConfig({ servers: shown, rules: join(home, 'clone', '.mcp-gateway-rules.json') }, {})
    expect(servers.map(({ misconfigured }) => misconfigured)).toEqual([[]])
    const [flag = '', script = ''] = JSON.parse(only('jsonc')).mcpServers.search.args as string[]
    await writeFile(join(home, 'search'), 's3cret\n')
    await writeFile(join(bin, 'npx'), '#!/bin/sh\necho "$API_KEY $*"\n')
    const child = spawn('sh', [flag, script.replace('/run/secrets', home)], {
      env,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    expect(await text(child.stdout)).toBe('s3cret -y some-search-server\n')
  })

  test('both proxies pass streams on, under the name of MCP_RESOURCE_URI', () => {
    const host = new URL(/MCP_RESOURCE_URI=(\S+)/.exec(guide)?.[1] ?? '').hostname
    expect(only('nginx')).toContain(`server_name ${host};`)
    for (const line of ['proxy_buffering off;', 'proxy_read_timeout 1h;', 'proxy_set_header Host $host;'])
      expect(only('nginx')).toContain(line)
    expect(only('caddyfile')).toContain(`${host} {`)
    expect(only('caddyfile')).toContain('flush_interval -1')
  })

  test('links to headings and files that exist, and the README to it', async () => {
    const slugs = (markdown: string) =>
      [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
        title
          .toLowerCase()
          .replace(/[^\w\s-]/g, '')
          .replaceAll(' ', '-'),
      )
    const links = [...guide.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)]
    expect(links.length).toBeGreaterThan(10)
    for (const [, path = '', anchor] of links) {
      const file = path === '' ? 'docs/deployment.md' : join('docs', path)
      const linked = await read(file)
      if (anchor !== undefined) expect(slugs(linked), `${file}#${anchor}`).toContain(anchor)
    }
    expect(readme).toContain('](docs/deployment.md)')
  })
})

describe('the systemd units', () => {
  /** Without sections: no key is in two. */
  async function readUnit(path: string) {
    const values = new Map<string, string[]>()
    for (const [, key = '', value = ''] of (await read(path)).matchAll(/^(\w+)=(.*)$/gm))
      values.set(key, [...(values.get(key) ?? []), value])
    return (key: string) => values.get(key) ?? []
  }

  const SYSTEM = 'docs/examples/agent-mcp-gateway.service'
  const USER = 'docs/examples/user/agent-mcp-gateway.service'

  test.each([SYSTEM, USER])('%s lets calls finish, and does not try a wrong configuration again', async path => {
    const unit = await readUnit(path)
    expect(unit('KillMode')).toEqual(['mixed'])
    expect(unit('Restart')).toEqual(['on-failure'])
    expect(unit('RestartPreventExitStatus')).toEqual(['2 78'])
    expect(Number(unit('TimeoutStopSec'))).toBeGreaterThan(10)
    expect(unit('NoNewPrivileges')).toEqual(['yes'])
    expect(unit('UMask')).toEqual(['0077'])
  })

  test('the one for a server holds it and leaves V8 its compiler', async () => {
    const unit = await readUnit(SYSTEM)
    expect(unit('User')).toEqual(['agent-mcp-gateway'])
    expect([unit('ProtectSystem'), unit('ProtectHome'), unit('CapabilityBoundingSet')]).toEqual([
      ['strict'],
      ['yes'],
      [''],
    ])
    expect(unit('MemoryDenyWriteExecute')).toEqual([])
    // The settings are those of the guide, in a form that systemd and a shell read alike.
    expect(unit('EnvironmentFile')).toEqual(['/etc/agent-mcp-gateway/env'])
    const [, settings = ''] = /env > \/dev\/null <<'END'\n([\s\S]*?)^END$/m.exec(guide) ?? []
    expect(settings).toMatch(/^(\w+=[\w./:-]+\n){5}$/)
    expect(settings).toContain(`GATEWAY_STATE_DIR=/var/lib/${unit('StateDirectory')}\n`)
  })

  test('the one for a login session serves the files of the guide', async () => {
    const unit = await readUnit(USER)
    const expand = (value: string) => value.replaceAll('%h', home)
    const variables = Object.fromEntries(unit('Environment').map(value => expand(value).split(/=(.*)/).slice(0, 2)))
    await mkdir(join(home, '.config', 'agent-mcp-gateway'), { recursive: true })
    await writeConfig(join(home, '.config', 'agent-mcp-gateway'))
    const service = await start((unit('ExecStart')[0] ?? '').split(' '), { ...env, ...variables })
    expect(await service.stop()).toBe(0)
  })
})

describe('the launchd agent', () => {
  type Plist = string | number | boolean | Plist[] | { [key: string]: Plist }

  /** The part of the format that is used. */
  function parsePlist(xml: string): Plist {
    const tokens = [...xml.replace(/<!--[\s\S]*?-->/g, '').matchAll(/<(\/?)(\w+)(\/?)>([^<]*)/g)]
    let at = 0 // the outermost element has an attribute and is not among them
    const next = () => tokens[at++] ?? []
    const ends = () => tokens[at]?.[1] === '/'
    const value = (): Plist => {
      const [, , name, empty, content = ''] = next()
      if (empty === '/') return name === 'true'
      if (name === 'dict') {
        const dict: Record<string, Plist> = {}
        while (!ends()) dict[String(value())] = value()
        at++
        return dict
      }
      if (name === 'array') {
        const array: Plist[] = []
        while (!ends()) array.push(value())
        at++
        return array
      }
      expect(['key', 'string', 'integer']).toContain(name)
      expect(next().slice(1, 3)).toEqual(['/', name])
      return name === 'integer' ? Number(content) : content
    }
    return value()
  }

  test('serves once the guide’s sed line has filled it in, and ends well', async () => {
    const fill = guide.split('\n').find(line => line.startsWith('sed -e "s|@HOME@'))
    const places = `examples='${join(ROOT, 'docs/examples')}' agent="$HOME/agent.plist"`
    await follow(`${places}\n${fill}`, home)
    const xml = await readFile(join(home, 'agent.plist'), 'utf8')
    expect(xml.replace(/<!--[\s\S]*?-->/g, '')).not.toMatch(/@[A-Z]+@/)
    const agent = parsePlist(xml) as Record<string, Plist> & {
      ProgramArguments: string[]
      EnvironmentVariables: Record<string, string>
    }
    expect(agent).toMatchObject({
      Label: 'com.example.agent-mcp-gateway',
      RunAtLoad: true,
      KeepAlive: { SuccessfulExit: false },
      ExitTimeOut: 20,
      Umask: 0o077,
      WorkingDirectory: home,
      StandardErrorPath: join(home, 'Library/Logs/agent-mcp-gateway.log'),
    })
    const service = await start(agent.ProgramArguments, { ...env, ...agent.EnvironmentVariables })
    expect(await service.stop()).toBe(0)
  })
})

describe('the Dockerfile', () => {
  const instructions = dockerfile
    .replaceAll('\\\n', ' ')
    .split('\n')
    .filter(line => /^[A-Z]/.test(line))
  const all = (name: string) =>
    instructions.flatMap(line => (line.startsWith(`${name} `) ? [line.slice(name.length + 1)] : []))

  test('begins with a Node that collects orphans as process 1', () => {
    const [, major = ''] = /^NODE=(\d+)-slim$/.exec(all('ARG')[0] ?? '') ?? []
    expect(Number(major)).toBeGreaterThanOrEqual(24) // process.execve() came with 22.15
    for (const image of all('FROM')) expect(image).toMatch(/^node:\$\{NODE\}( AS \w+)?$/)
    expect(dockerfile).not.toMatch(/^[A-Z].*\btini\b/m)
  })

  test('copies what exists and is not ignored', async () => {
    const ignored = (await read('.dockerignore')).split('\n').filter(line => line !== '' && !line.startsWith('#'))
    expect(ignored[0]).toBe('*')
    const sources = all('COPY').flatMap(line => (line.startsWith('--from') ? [] : line.split(' ').slice(0, -1)))
    expect(new Set(sources.map(source => `!${source.replace('./', '')}`))).toEqual(new Set(ignored.slice(1)))
    for (const source of sources) await stat(join(ROOT, source))
  })

  test('runs as somebody who is not root, with the places of the guide', () => {
    const [uid = ''] = (all('USER').at(-1) ?? '').split(':')
    expect(Number(uid)).toBeGreaterThan(0)
    expect(guide).toContain(`as the user ${uid}`)
    expect([all('ENTRYPOINT'), all('CMD')]).toEqual([['["node", "/app/dist/main.js"]'], ['["serve"]']])
    const variables = Object.fromEntries((all('ENV')[0] ?? '').split(/\s+/).map(pair => pair.split('=')))
    expect(variables).toEqual({
      HOME: '/home/node',
      GATEWAY_MCP_CONFIG: '/config/.mcp.json',
      GATEWAY_RULES: '/config/.mcp-gateway-rules.json',
      GATEWAY_STATE_DIR: '/state',
      GATEWAY_KEYCHAIN: 'off',
    })
    expect(all('VOLUME')).toEqual(['/state'])
    expect(all('RUN').at(-1)).toContain('install -d -o node -g node -m 700 /state /home/node/.npm')
  })

  test('its health check sees whether a gateway serves', async () => {
    const [, command = ''] = / CMD (\[.*\])$/.exec(all('HEALTHCHECK')[0] ?? '') ?? []
    const [program, ...args] = JSON.parse(command) as string[]
    expect(program).toBe('node')
    const healthy = async (port: string) => {
      const child = spawn(process.execPath, args, { env: { MCP_SERVER_PORT: port }, stdio: 'ignore' })
      const [status] = (await once(child, 'exit')) as [number]
      return status
    }
    const variables = { ...env, GATEWAY_MCP_CONFIG: join(home, 'clone', '.mcp.json') }
    const rules = join(home, 'clone', '.mcp-gateway-rules.json')
    const service = await start([process.execPath, BIN, 'serve', '--rules', rules], variables)
    expect(await healthy(service.port)).toBe(0)
    expect(await service.stop()).toBe(0)
    expect(await healthy(service.port)).toBe(1)
  })
})
