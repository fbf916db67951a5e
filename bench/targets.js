// @ts-check
/** What is measured: where each target is, and the one request that is sent to it again and again. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { nextMessage, nodeOn } from './processes.js'

/** @typedef {import('./processes.js').Processes} Processes */
/** @typedef {'2026-07-28' | '2025-11-25'} Era */
/** @typedef {{ system: number, load: number } | undefined} Cores */

/**
 * @typedef {object} Target
 * @property {string} name
 * @property {string} url
 * @property {number} pid of the process whose CPU is counted
 * @property {(era: Era) => { headers: Record<string, string>, body: string }} request
 */

export const MESSAGE = 'The quick brown fox jumps over the lazy dog. '.repeat(4).trim()
/** @type {readonly Era[]} */
export const ERAS = ['2026-07-28', '2025-11-25']

const AGENT = 'bench'
const OVER_HTTP = 'over-http'
const OVER_STDIO = 'over-stdio'
const START_MS = 30_000

/** @param {string} name */
const here = name => fileURLToPath(new URL(name, import.meta.url))
const gatewayBin = here('../dist/main.js')

/** @param {Processes} processes @param {Cores} cores */
export async function startBackendAndProxy(processes, cores) {
  const backend = processes.start({ args: [here('backend.js')], core: cores?.load })
  const { port } = await nextMessage(backend)
  const proxy = processes.start({ args: [here('proxy.js'), String(port)], core: cores?.system })
  const { port: proxyPort } = await nextMessage(proxy)
  const simple = processes.start({ args: [here('proxy.js'), String(port), 'new-connections'], core: cores?.system })
  const { port: simplePort } = await nextMessage(simple)
  const request = toRequest('echo', { message: MESSAGE })
  return {
    backend: toTarget({ name: 'backend', url: `http://127.0.0.1:${port}/mcp`, pid: pidOf(backend), request }),
    simple: toTarget({
      name: 'proxy, new conn.',
      url: `http://127.0.0.1:${simplePort}/mcp`,
      pid: pidOf(simple),
      request,
    }),
    proxy: toTarget({ name: 'proxy', url: `http://127.0.0.1:${proxyPort}/mcp`, pid: pidOf(proxy), request }),
  }
}

/** @param {Processes} processes @param {Cores} cores */
export const startGenerator = (processes, cores) => processes.start({ args: [here('load.js')], core: cores?.load })

/**
 * A gateway as it is meant to be run: a token it issued itself, an agent that may call what is written for it, the audit log on.
 * @param {Processes} processes @param {Cores} cores @param {{ directory: string, backendUrl: string }} options
 */
export async function startGateway(processes, cores, { directory, backendUrl }) {
  const config = join(directory, 'servers.json')
  const rules = join(directory, 'rules.json')
  const state = join(directory, 'state')
  await mkdir(state)
  // A child inherits its parent's core, and the stdio backend belongs to the other side.
  const mcpServers = { [OVER_HTTP]: { url: backendUrl }, [OVER_STDIO]: nodeOn(cores?.load, [here('stdio-backend.js')]) }
  await writeFile(config, JSON.stringify({ mcpServers }))
  const tools = { [OVER_HTTP]: ['echo', 'list_*'], [OVER_STDIO]: ['echo', 'list_*'] }
  const access = { allow: { servers: ['over-*'], tools }, deny: { tools: { '*': ['delete_*'] } } }
  await writeFile(rules, JSON.stringify({ agents: { [AGENT]: access } }))

  // Nothing of this machine's configuration: only what the two processes need.
  // One file for all lines, which are counted in the end.
  const env = {
    PATH: process.env.PATH,
    HOME: directory,
    GATEWAY_STATE_DIR: state,
    GATEWAY_AUDIT_MAX_BYTES: String(2 ** 31),
  }
  const run = { env, cwd: directory }
  const gateway = processes.start({
    ...run,
    args: [gatewayBin, 'serve', '--port', '0', '--config', config, '--rules', rules],
    core: cores?.system,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const { url } = JSON.parse(await firstLine(gateway.stderr, line => line.includes('serving MCP over HTTP')))
  const issuing = processes.start({
    ...run,
    args: [gatewayBin, 'token', 'issue', '--agent', AGENT],
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const token = await firstLine(issuing.stdout, () => true)
  const pid = pidOf(gateway)
  const authorization = { authorization: `Bearer ${token}` }
  /** @param {string} server */
  const request = server =>
    toRequest('execute_tool', { server, tool: 'echo', args: { message: MESSAGE } }, authorization)
  return {
    pid,
    audit: join(state, 'audit.jsonl'),
    http: toTarget({ name: 'gateway, HTTP', url, pid, request: request(OVER_HTTP) }),
    stdio: toTarget({ name: 'gateway, stdio', url, pid, request: request(OVER_STDIO) }),
  }
}

/** @param {Target} target */
const toTarget = target => target

/** A `tools/call` as a client of each era sends it. @param {string} name @param {object} args @param {Record<string, string>} [extra] */
const toRequest = (name, args, extra) => (/** @type {Era} */ era) => {
  const isModern = era === '2026-07-28'
  const envelope = {
    'io.modelcontextprotocol/protocolVersion': era,
    'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
    'io.modelcontextprotocol/clientCapabilities': {},
  }
  const params = { name, arguments: args, ...(isModern && { _meta: envelope }) }
  return {
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': era,
      ...(isModern && { 'mcp-method': 'tools/call', 'mcp-name': name }),
      ...extra,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/call', params }),
  }
}

/** @param {import('node:child_process').ChildProcess} child */
function pidOf({ pid }) {
  if (pid === undefined) throw new Error('a process of the bench could not be started')
  return pid
}

/**
 * The first line that fits; the rest of the stream is read and dropped, so that nobody blocks on a full pipe.
 * @param {import('node:stream').Readable | null} stream @param {(line: string) => boolean} fits @returns {Promise<string>}
 */
function firstLine(stream, fits) {
  if (!stream) throw new Error('the process has no such stream')
  /** @type {string[]} */
  const seen = []
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: stream })
    const timer = setTimeout(() => reject(new Error(`nothing after ${START_MS} ms but: ${seen.join('\n')}`)), START_MS)
    lines.on('line', line => {
      seen.push(line)
      if (!fits(line)) return
      clearTimeout(timer)
      lines.removeAllListeners('line')
      resolve(line)
    })
    lines.once('close', () => {
      clearTimeout(timer)
      reject(new Error(`the process ended with: ${seen.join('\n')}`))
    })
  })
}
