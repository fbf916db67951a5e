// @ts-check
/**
 * Lets a gateway work for long, and looks at what it keeps: heap after a collection, sessions that clients began and never ended,
 * child processes. Fails when the heap has grown. See README.md.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

/** @typedef {{ rss: number, heap: number, sessions: number }} Kept */
/** @typedef {{ url: string, pid: number, headers: Record<string, string>, look: () => Promise<Kept> }} Gateway */
/** @typedef {import('node:child_process').ChildProcess} ChildProcess */

const MODERN = '2026-07-28'
const LEGACY = '2025-11-25'
const MESSAGE = 'The quick brown fox jumps over the lazy dog.'
const STEPS = 10
const CONCURRENCY = 16
// Until the code is compiled, every connection open, and as many sessions begun as one principal may have.
const WARM_UP = { calls: 8_000, sessions: 200 }
const MAX_GROWTH = 0.1
const START_MS = 30_000
const MEGABYTE = 1024 * 1024

/** @param {string} name */
const here = name => fileURLToPath(new URL(name, import.meta.url))
/** @param {string} text */
const print = text => void process.stdout.write(`${text}\n`)

if (process.env.SOAK_PROBE) await answerFromWithin()
else await main()

/** Loaded into the gateway's process: tells its parent what is left after a collection. */
async function answerFromWithin() {
  const [{ queryObjects }, { WebStandardStreamableHTTPServerTransport: Session }] = await Promise.all([
    import('node:v8'),
    import('@modelcontextprotocol/server'),
  ])
  process.on('message', () => {
    // Twice: what finalizers let go of is collected by the second one.
    for (let times = 0; times < 2; times++) globalThis.gc?.()
    const { rss, heapUsed: heap } = process.memoryUsage()
    const sessions = /** @type {unknown} */ (queryObjects(Session, { format: 'count' }))
    process.send?.({ rss, heap, sessions })
  })
  process.channel?.unref()
}

async function main() {
  const { values: flags } = parseArgs({
    options: { calls: { type: 'string' }, sessions: { type: 'string' }, help: { type: 'boolean' } },
  })
  if (flags.help) return print('node bench/soak.js [--calls 200000] [--sessions 10000]   (needs a build)')
  const { Processes } = await import('./processes.js')
  const processes = new Processes()
  const directory = await mkdtemp(join(tmpdir(), 'gateway-soak-'))
  const stopped = new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => reject(new Error(signal)))
  })
  try {
    const plan = { calls: countIn(flags.calls, 200_000), sessions: countIn(flags.sessions, 10_000) }
    process.exitCode = await Promise.race([soak(processes, directory, plan), stopped])
  } catch (error) {
    process.stderr.write(`soak: ${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  } finally {
    await processes.stop()
    await rm(directory, { recursive: true, force: true, maxRetries: 3 })
  }
  // What was cut short may still wait for something.
  process.exit()
}

/** @param {string | undefined} text @param {number} otherwise */
function countIn(text, otherwise) {
  const count = text === undefined ? otherwise : Number(text)
  if (!Number.isInteger(count) || count < 0) throw new Error(`"${text}" is not a number of calls or sessions`)
  return count
}

/**
 * @param {import('./processes.js').Processes} processes @param {string} directory @param {{ calls: number, sessions: number }} plan
 * @returns {Promise<number>} the exit status
 */
async function soak(processes, directory, plan) {
  const { nextMessage } = await import('./processes.js')
  const backend = processes.start({ args: [here('backend.js')] })
  const { port } = await nextMessage(backend)
  const gateway = await startGateway(processes, directory, `http://127.0.0.1:${port}/mcp`)
  const generator = processes.start({ args: [here('load.js')] })

  /** @param {number} calls */
  const callAll = async calls => {
    for (const server of ['over-http', 'over-stdio']) {
      for (const era of [MODERN, LEGACY]) {
        const job = { ...toCall(server, era, gateway.headers), url: gateway.url, expected: MESSAGE }
        generator.send({ ...job, concurrency: CONCURRENCY, calls: Math.ceil(calls / 4) })
        const { error } = await nextMessage(generator)
        if (error !== undefined) throw new Error(error)
      }
    }
  }
  /** @param {number} count */
  const beginAll = async count => {
    let begun = 0
    const oneAfterAnother = async () => {
      while (begun++ < count) await beginSession(gateway)
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, oneAfterAnother))
  }

  print(`Node ${process.version}: ${plan.calls} calls and ${plan.sessions} sessions that nobody ends\n`)
  print('|             | RSS, MB | heap after gc, MB | live sessions | child processes |')
  print('| ----------- | ------- | ----------------- | ------------- | --------------- |')
  /** @param {string} when */
  const report = async when => {
    const { rss, heap, sessions } = await gateway.look()
    const children = childrenOf(gateway.pid)
    const cells = [(rss / MEGABYTE).toFixed(0), (heap / MEGABYTE).toFixed(1), sessions, children ?? 'unknown']
    print(`| ${[when, ...cells].join(' | ')} |`)
    return { heap, children }
  }
  await report('cold')
  await callAll(WARM_UP.calls)
  await beginAll(WARM_UP.sessions)
  const start = await report('start')
  let end = start
  for (let step = 1; step <= STEPS; step++) {
    await callAll(plan.calls / STEPS)
    await beginAll(Math.round(plan.sessions / STEPS))
    end = await report(step === STEPS ? 'end' : `${(100 * step) / STEPS} %`)
  }
  const growth = end.heap / start.heap - 1
  const isGrown = growth > MAX_GROWTH
  const hasMore = (end.children ?? 0) > (start.children ?? 0)
  print(`\nheap: ${growth < 0 ? '' : '+'}${(100 * growth).toFixed(1)} % since the start${isGrown ? ': too much' : ''}`)
  if (hasMore) print(`child processes: ${end.children} instead of ${start.children}`)
  return isGrown || hasMore ? 1 : 0
}

/**
 * @param {import('./processes.js').Processes} processes @param {string} directory @param {string} backendUrl
 * @returns {Promise<Gateway>}
 */
async function startGateway(processes, directory, backendUrl) {
  const { nextMessage } = await import('./processes.js')
  const config = join(directory, 'servers.json')
  const rules = join(directory, 'rules.json')
  const stdio = { command: process.execPath, args: [here('stdio-backend.js')] }
  await writeFile(config, JSON.stringify({ mcpServers: { 'over-http': { url: backendUrl }, 'over-stdio': stdio } }))
  await writeFile(rules, JSON.stringify({ agents: { soak: { allow: { servers: ['over-*'] } } } }))
  const env = { PATH: process.env.PATH, HOME: directory, GATEWAY_STATE_DIR: directory, GATEWAY_KEYCHAIN: 'off' }
  const bin = here('../dist/main.js')
  const child = processes.start({
    args: [
      '--expose-gc',
      '--import',
      import.meta.url,
      bin,
      'serve',
      '--port',
      '0',
      '--config',
      config,
      '--rules',
      rules,
    ],
    env: { ...env, SOAK_PROBE: '1' },
    cwd: directory,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  })
  const url = await urlIn(child)
  const issuing = [bin, 'token', 'issue', '--agent', 'soak', '--ttl', '1d']
  const token = execFileSync(process.execPath, issuing, { env, encoding: 'utf8' }).trim()
  const headers = {
    authorization: `Bearer ${token}`,
    'content-type': 'application/json',
    accept: 'application/json, text/event-stream',
  }
  /** @returns {Promise<Kept>} */
  const look = async () => {
    const answer = nextMessage(child)
    child.send('look')
    return answer
  }
  return { url, pid: Number(child.pid), headers, look }
}

/** Where it says that it listens; the rest of what it says is read and dropped. @param {ChildProcess} child @returns {Promise<string>} */
function urlIn(child) {
  return new Promise((resolve, reject) => {
    if (!child.stderr) return reject(new Error('the gateway has no stderr'))
    /** @type {string[]} */
    const seen = []
    const fail = () => reject(new Error(`the gateway does not serve: ${seen.join('\n')}`))
    const timer = setTimeout(fail, START_MS)
    child.once('exit', fail)
    createInterface({ input: child.stderr }).on('line', line => {
      if (seen.length < 20) seen.push(line)
      if (!line.includes('serving MCP over HTTP')) return
      clearTimeout(timer)
      resolve(JSON.parse(line).url)
    })
  })
}

/** @param {string} server @param {string} era @param {Record<string, string>} common */
function toCall(server, era, common) {
  const name = 'execute_tool'
  const isModern = era === MODERN
  const envelope = {
    'io.modelcontextprotocol/protocolVersion': era,
    'io.modelcontextprotocol/clientInfo': { name: 'soak', version: '1.0.0' },
    'io.modelcontextprotocol/clientCapabilities': {},
  }
  const args = { server, tool: 'echo', args: { message: MESSAGE } }
  const params = { name, arguments: args, ...(isModern && { _meta: envelope }) }
  return {
    headers: {
      ...common,
      'mcp-protocol-version': era,
      ...(isModern && { 'mcp-method': 'tools/call', 'mcp-name': name }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  }
}

/** As clients do: `initialize`, a call in the session, and never a word again. @param {Gateway} gateway */
async function beginSession({ url, headers }) {
  const clientInfo = { name: 'soak', version: '1.0.0' }
  const params = { protocolVersion: LEGACY, capabilities: {}, clientInfo }
  const initialize = JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params })
  const opened = await fetch(url, { method: 'POST', headers, body: initialize })
  await opened.text()
  const session = opened.headers.get('mcp-session-id')
  if (opened.status !== 200 || !session) throw new Error(`initialize was answered with HTTP ${opened.status}`)
  const { headers: own, body } = toCall('over-stdio', LEGACY, headers)
  const called = await fetch(url, { method: 'POST', headers: { ...own, 'mcp-session-id': session }, body })
  const text = await called.text()
  if (!text.includes(MESSAGE)) throw new Error(`a call in a session was answered with HTTP ${called.status}: ${text}`)
}

/** How many processes it has; undefined without /proc. @param {number} pid */
function childrenOf(pid) {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).length
  } catch {
    return undefined
  }
}
