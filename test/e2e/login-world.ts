import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { type GatewayProcess, gateway, type Ran, type RunOptions, serveGateway, spawnGateway } from '../fixtures/cli.js'
import { type TestResult, writeFiles } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { openProtectedServer } from '../fixtures/protected-server.js'

const ANYBODY = { agents: { default: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } }

/** A login command that waits for a person. */
export interface OpenLogin {
  readonly process: GatewayProcess
  /** The address it printed. */
  readonly url: string
  readonly ended: Promise<Ran>
}

/** A gateway that runs, and how an agent calls it. */
export interface Front {
  readonly process: GatewayProcess
  call(tool: string, args: Record<string, unknown>): Promise<TestResult>
  stop(): Promise<void>
}

/** A machine of its own: configuration, state, a key, and the gateway's commands run there by hand. */
export async function openWorld(servers: Record<string, unknown>, extra: Readonly<Record<string, string>> = {}) {
  const files = await writeFiles({ servers, rules: ANYBODY })
  const key = { GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64') }
  const env: Readonly<Record<string, string | undefined>> = { ...files.env, ...key, ...extra }
  const cwd = files.directory
  const started: GatewayProcess[] = []
  const keep = (child: GatewayProcess) => {
    started.push(child)
    return child
  }
  const options = (own: RunOptions) => ({ ...own, cwd, env: { ...env, ...own.env } })

  const run = (args: readonly string[], own: RunOptions = {}): Promise<Ran> => gateway(args, options(own))

  const startLogin = async (name: string, args: readonly string[] = [], own: RunOptions = {}): Promise<OpenLogin> => {
    const child = keep(spawnGateway(['login', name, ...args], options(own)))
    const ended = once(child, 'close').then(([status]) => ({ status, ...child.output }))
    const url = await new Promise<string>((resolve, reject) => {
      child.stderr.on('data', () => {
        const found = urlIn(child.output.stderr)
        if (found !== undefined) resolve(found)
      })
      child.once('close', status => reject(new Error(`no address, status ${status}: ${child.output.stderr}`)))
    })
    return { process: child, url, ended }
  }

  /** Logs in with a browser that follows where it is led; toy servers approve at once. */
  const logIn = async (name: string, args: readonly string[] = []): Promise<Ran> => {
    const { url, ended } = await startLogin(name, args)
    await (await fetch(url)).text()
    return ended
  }

  const call = async (server: string, tool = 'echo', args: Record<string, unknown> = { text: 'hello' }) => {
    const { status, stdout, stderr } = await run(['call', server, tool, '--args', JSON.stringify(args)])
    return { status, stderr, stdout, result: JSON.parse(stdout || 'null') as TestResult }
  }

  const serve = async (extraEnv: Readonly<Record<string, string>> = {}): Promise<Front> => {
    const own = options({ env: extraEnv })
    const { process: child, url } = await serveGateway([], own)
    keep(child)
    const token = (await gateway(['token', 'issue', '--agent', 'default'], own)).stdout.trim()
    return {
      process: child,
      async call(name, args) {
        const answer = await ask(url, mcpRequest('legacy', token, 'tools/call', { name, arguments: args }))
        return answer.json().result as unknown as TestResult
      },
      stop: () => stopped(child),
    }
  }

  const stdio = (extraEnv: Readonly<Record<string, string>> = {}): Front => {
    const child = keep(spawnGateway(['stdio'], options({ env: { LOG_LEVEL: 'info', ...extraEnv } })))
    const waiting = new Map<number, (result: TestResult) => void>()
    createInterface({ input: child.stdout }).on('line', line => {
      const { id, result } = JSON.parse(line) as { id: number; result: TestResult }
      waiting.get(id)?.(result)
    })
    const send = (message: object) => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
    let last = 0
    const request = (method: string, params: object) =>
      new Promise<TestResult>((resolve, reject) => {
        const id = ++last
        waiting.set(id, resolve)
        child.once('exit', status => reject(new Error(`the gateway ended with ${status}: ${child.output.stderr}`)))
        send({ id, method, params })
      })
    child.setMaxListeners(0)
    const clientInfo = { name: 'test', version: '1' }
    const ready = request('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo })
    return {
      process: child,
      async call(name, args) {
        await ready
        return request('tools/call', { name, arguments: args })
      },
      stop: () => stopped(child),
    }
  }

  /** A program that plays the browser: writes down how it was called, and goes there. */
  const installBrowser = async (follows = true) => {
    const script = join(cwd, 'browser')
    const log = join(cwd, 'browser.log')
    const visit = follows ? 'fetch(process.argv[2]).then(response => response.text())' : ''
    const record = `require('node:fs').appendFileSync(${JSON.stringify(log)}, JSON.stringify(process.argv.slice(2)) + '\\n')`
    await writeFile(script, `#!${process.execPath}\n${record}\n${visit}\n`, { mode: 0o755 })
    const calls = async (): Promise<string[][]> => {
      const text = await readFile(log, 'utf8').catch(() => '')
      return text.split('\n').flatMap(line => (line === '' ? [] : [JSON.parse(line) as string[]]))
    }
    return { script, calls }
  }

  const close = async () => {
    await Promise.all(started.map(stopped))
    await files.close()
  }

  return {
    directory: cwd,
    env,
    run,
    startLogin,
    logIn,
    call,
    serve,
    stdio,
    installBrowser,
    keep,
    auditLines: files.auditLines,
    /** The credentials file as it is on disk. */
    credentials: () => readFile(join(cwd, 'state', 'credentials.json'), 'utf8'),
    setServers: (changed: Record<string, unknown>) => writeFile(files.config, JSON.stringify({ mcpServers: changed })),
    close,
    [Symbol.asyncDispose]: close,
  }
}

export type World = Awaited<ReturnType<typeof openWorld>>

/** A toy authorization server, a server that takes its tokens, and a machine that has the server under the name "notes". */
export async function openScene() {
  const authorizationServer = await openAuthorizationServer()
  const server = await openProtectedServer({ authorizationServer })
  const notes = await withOwnPort(server.url)
  const worlds = [await openWorld({ notes: { url: server.url } })]
  const [world] = worlds as [World]
  const close = async () => {
    await Promise.all(worlds.map(each => each.close()))
    await server.close()
    await authorizationServer.close()
  }
  return {
    authorizationServer,
    server,
    world,
    /** One more machine, with a key of its own; both log in by the same port. */
    async another(): Promise<World> {
      const machine = await openWorld({ notes })
      worlds.push(machine)
      return machine
    },
    [Symbol.asyncDispose]: close,
  }
}

/**
 * A server entry whose logins all come back to one port of their own. The usual port may be taken at any time by a login of another
 * test file, and a login that comes back elsewhere needs another registration.
 */
export async function withOwnPort(url: string): Promise<{ url: string; oauth: { callbackPort: number } }> {
  const probe = createServer()
  await new Promise<void>(resolve => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise(resolve => probe.close(resolve))
  return { url, oauth: { callbackPort: port } }
}

/** An address alone on its line. */
export const urlIn = (text: string): string | undefined => /^https?:\/\/\S+(?=\n)/m.exec(text)?.[0]

export const executing = (server: string, tool = 'echo', args: Record<string, unknown> = { text: 'hello' }) =>
  ['execute_tool', { server, tool, args }] as const

/** The state of a server as an agent sees it; asking for it calls nothing. */
export async function stateOf(front: Front, name: string): Promise<unknown> {
  const { structuredContent } = await front.call('list_servers', {})
  const servers = structuredContent.servers as { name: string; state: string }[]
  return servers.find(server => server.name === name)?.state
}

async function stopped(child: GatewayProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGKILL')
  await ended
}
