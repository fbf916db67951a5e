// @ts-check
/**
 * Runs the server scenarios of the MCP conformance suite through the gateway, after a build: a server that has all they ask for
 * (everything-server.js) speaks one era, the suite the other or the same. With --direct it runs them against that server itself,
 * which shows that what fails through the gateway is the gateway's doing. Ends with status 1 when one fails.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { openProxy } from './proxy.js'
import {
  choosePlans,
  countSuccesses,
  describeCheck,
  findNode,
  isProblem,
  listScenarios,
  print,
  REVISIONS,
  runAll,
  runSuite,
  SUITE_LIMIT_MS,
  suiteDirectory,
} from './suite.js'

/** @typedef {import('./suite.js').Plan} Plan */
/** @typedef {import('./suite.js').Check} Check */
/** @typedef {import('./suite.js').Outcome} Outcome */
/** @typedef {{ readonly name: string, readonly era: string, readonly revision?: string }} Combination */

/** The era of the server, and the revision the suite speaks to the gateway. @type {readonly Combination[]} */
const COMBINATIONS = [
  { name: 'legacy-legacy', era: 'legacy', revision: '2025-11-25' },
  { name: 'modern-modern', era: 'modern', revision: '2026-07-28' },
  { name: 'legacy-modern', era: 'legacy', revision: '2026-07-28' },
  { name: 'modern-legacy', era: 'modern', revision: '2025-11-25' },
]
/** @type {Combination} */
const DIRECT = { name: 'direct', era: 'both' }

/**
 * Checks that cannot pass where one era is translated into the other, and why: combination, scenario, check. One that passes after
 * all is an error too. @type {Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, string>>>>>>}
 */
const CROSSED = {
  'legacy-modern': {
    'server-stateless': {
      'sep-2575-server-rejects-undeclared-capability':
        'a client of 2025 declares at initialize what it can do, and no error is set for a tool that needs more: the server answers an isError result that says so, as its SDK does, where 2026 wants the error -32021',
      'sep-2575-missing-capability-http-400': 'it is about the status of that error -32021, which does not come',
    },
    'input-required-result-basic-elicitation': {
      'sep-2322-elicitation-incomplete':
        'it wants the key "user_name" in inputRequests: a server of 2025 sends its questions as requests, which have no such names, so the gateway makes the keys up',
    },
    'input-required-result-ignore-extra-params': {
      'sep-2322-ignore-unexpected-params':
        'it answers "user_name" before it was asked anything: a server of 2025 cannot be told an answer ahead of its question, so the gateway ignores it with the others, and asks',
    },
  },
}

// A server that answers in JSON, or has no sessions, is not asked for more by some scenarios.
const NOTHING_CHECKED = { id: 'nothing-checked', status: 'FAILURE', description: 'the scenario has checked nothing' }

const SERVER = 'everything'
const AGENT = 'conformance'
const START_LIMIT_MS = 15_000

const here = dirname(fileURLToPath(import.meta.url))
const gatewayBin = join(here, '..', '..', 'dist', 'main.js')
const usage = `node test/conformance/server.js [--direct | --combination NAME …] [--verbose] [SCENARIO …]   (needs a build)
combinations (server-suite): ${COMBINATIONS.map(({ name }) => name).join(', ')}`

const { values: flags, positionals } = parseArgs({
  options: {
    direct: { type: 'boolean' },
    combination: { type: 'string', multiple: true, default: [] },
    verbose: { type: 'boolean' },
    help: { type: 'boolean' },
  },
  allowPositionals: true,
})
if (flags.help) print(usage)
else {
  await main().catch(error => {
    process.stderr.write(`conformance: ${error.message}\n`)
    process.exitCode = 1
  })
}

async function main() {
  const started = Date.now()
  const node = await findNode()
  const plans = choosePlans(await planScenarios(node), positionals)
  const totals = { passed: 0, crossed: 0, failed: 0 }
  for (const combination of chooseCombinations()) {
    const { passed, crossed, failed } = await runCombination(combination, plans, node)
    totals.passed += passed
    totals.crossed += crossed
    totals.failed += failed
  }
  const seconds = ((Date.now() - started) / 1000).toFixed(0)
  const but = totals.crossed > 0 ? `${totals.crossed} more but for checks that cannot pass, ` : ''
  print(`\n${totals.passed} scenarios passed, ${but}${totals.failed} failed (${seconds} s)`)
  if (totals.failed > 0) process.exitCode = 1
}

/** Every scenario that is not of an extension, whether its revision requires it or not yet. @param {string} node @returns {Promise<Plan[]>} */
async function planScenarios(node) {
  const listed = await listScenarios(node, 'server')
  return listed
    .map(({ scenario, tags }) => ({ scenario, revisions: REVISIONS.filter(revision => tags.includes(revision)) }))
    .filter(({ revisions }) => revisions.length > 0)
}

function chooseCombinations() {
  if (flags.direct) return [DIRECT]
  const unknown = flags.combination.find(name => !COMBINATIONS.some(combination => combination.name === name))
  if (unknown !== undefined) throw new Error(`no combination is called ${unknown}\n${usage}`)
  return COMBINATIONS.filter(({ name }) => flags.combination.length === 0 || flags.combination.includes(name))
}

/** @param {Combination} combination @param {readonly Plan[]} allPlans @param {string} node */
async function runCombination({ name, era, revision }, allPlans, node) {
  const plans = allPlans
    .map(({ scenario, revisions }) => ({ scenario, revisions: revisions.filter(own => own === (revision ?? own)) }))
    .filter(({ revisions }) => revisions.length > 0)
  if (plans.length === 0) return { passed: 0, crossed: 0, failed: 0 }
  print(`\n${name}: ${revision ? `a server of the ${era} era, the suite at ${revision}` : 'without a gateway'}`)
  const world = revision ? await openWorld(era) : await startServer(era)
  /** @type {Map<string, Set<string>>} */
  const passed = new Map(REVISIONS.map(revision => [revision, new Set()]))
  let crossed = 0
  try {
    const failed = await runAll(plans, async (scenario, revision) => {
      const outcome = await runScenario({
        node,
        url: world.url,
        scenario,
        revision,
        expected: CROSSED[name]?.[scenario],
      })
      if (outcome.passed && outcome.known.length > 0) crossed++
      else if (outcome.passed) passed.get(revision)?.add(scenario)
      return outcome
    })
    for (const at of revision ? [revision] : REVISIONS) await printRequired(at, passed.get(at) ?? new Set())
    return { passed: plans.length - crossed - failed.length, crossed, failed: failed.length }
  } finally {
    await world.close()
  }
}

/** How many of those that the revision requires. @param {string} revision @param {ReadonlySet<string>} passed */
async function printRequired(revision, passed) {
  if (positionals.length > 0) return
  const text = await readFile(join(suiteDirectory, 'requirements', `${revision}.yaml`), 'utf8')
  const [, list = ''] = /^server:\n((?: {2}- .*\n)+)/m.exec(text) ?? []
  const required = [...list.matchAll(/^ {2}- (\S+)$/gm)].map(([, scenario = '']) => scenario)
  const met = required.filter(scenario => passed.has(scenario))
  print(
    `          ${revision}: ${met.length} of ${required.length} required scenarios, ${passed.size - met.length} others`,
  )
}

/**
 * @param {{ node: string, url: string, scenario: string, revision: string, expected: Readonly<Record<string, string>> | undefined }} run
 * @returns {Promise<Outcome & { known: string[] }>}
 */
async function runScenario({ node, url, scenario, revision, expected = {} }) {
  const chosen = ['--scenario', scenario, '--spec-version', revision]
  const args = ['server', '--url', url, '--verbose', '--timeout', String(SUITE_LIMIT_MS), ...chosen]
  const { stdout, stderr, failed, checks } = await runSuite(node, args)
  const succeeded = countSuccesses(checks)
  const failing = checks.filter(isProblem)
  if (failing.length === 0 && failed) failing.push({ id: 'suite', status: 'FAILURE', description: 'the suite failed' })
  else if (failing.length + succeeded === 0) failing.push(NOTHING_CHECKED)
  const surprises = Object.keys(expected).filter(id => !failing.some(check => check.id === id))
  const problems = [
    ...failing.filter(({ id }) => !Object.hasOwn(expected, id)).map(describeCheck),
    ...surprises.map(id => `${id}: passes, though it should not (${expected[id]})`),
  ]
  return {
    label: revision,
    passed: problems.length === 0,
    checks: succeeded,
    problems,
    known: failing.filter(({ id }) => Object.hasOwn(expected, id)).map(({ id }) => `${id}: ${expected[id]}`),
    output: flags.verbose ? `${stdout}\n${stderr}` : stderr,
  }
}

/** The server, a gateway in front of it, and the proxy that has a token. @param {string} era */
async function openWorld(era) {
  const directory = await mkdtemp(join(tmpdir(), 'gateway-conformance-'))
  /** @type {(() => Promise<void> | void)[]} */
  const closing = [() => rm(directory, { recursive: true, force: true, maxRetries: 3 })]
  const close = async () => {
    for (const step of closing.splice(0).reverse()) await step()
  }
  try {
    const server = await startServer(era)
    closing.push(server.close)
    const gateway = await startGateway(directory, server.url)
    closing.push(gateway.close)
    const proxy = await openProxy({ gatewayUrl: gateway.url, server: SERVER, token: gateway.token })
    closing.push(proxy.close)
    return { url: proxy.url, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** @param {string} era */
function startServer(era) {
  return start([join(here, 'everything-server.js'), '--era', era], { from: 'stdout' })
}

/** @param {string} directory @param {string} serverUrl */
async function startGateway(directory, serverUrl) {
  await writeFile(join(directory, '.mcp.json'), JSON.stringify({ mcpServers: { [SERVER]: { url: serverUrl } } }))
  const rules = { agents: { [AGENT]: { allow: { servers: ['*'] } } } }
  await writeFile(join(directory, '.mcp-gateway-rules.json'), JSON.stringify(rules))
  // Of the environment nothing else: what is set on a developer's machine must not change a result.
  const env = {
    PATH: process.env.PATH,
    HOME: directory,
    XDG_STATE_HOME: join(directory, 'state'),
    XDG_CONFIG_HOME: join(directory, 'config'),
    GATEWAY_KEYCHAIN: 'off',
    LOG_LEVEL: flags.verbose ? 'debug' : 'info',
  }
  const issue = ['token', 'issue', '--agent', AGENT]
  const { stdout } = await promisify(execFile)(process.execPath, [gatewayBin, ...issue], { cwd: directory, env })
  const gateway = await start([gatewayBin, 'serve', '--port', '0'], { from: 'stderr', cwd: directory, env })
  return { ...gateway, token: stdout.trim() }
}

/**
 * A process that says in a line of JSON where it listens.
 * @param {readonly string[]} args @param {{ from: 'stdout' | 'stderr', cwd?: string, env?: NodeJS.ProcessEnv }} options
 */
async function start(args, { from, ...options }) {
  const child = spawn(process.execPath, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close')
  if (flags.verbose) child.stderr.pipe(process.stderr)
  const close = async () => {
    child.kill()
    await ended
  }
  try {
    return { url: await readUrl(child[from]), close }
  } catch (error) {
    await close()
    throw error
  }
}

/** @param {import('node:stream').Readable} output @returns {Promise<string>} */
async function readUrl(output) {
  const said = []
  const lines = createInterface(output)
  const late = setTimeout(() => lines.close(), START_LIMIT_MS)
  try {
    for await (const line of lines) {
      const url = /"url":"([^"]+)"/.exec(line)?.[1]
      if (url !== undefined) return url
      said.push(line)
    }
  } finally {
    clearTimeout(late)
    output.resume()
  }
  throw new Error(`a server does not listen: ${said.join('\n')}`)
}
