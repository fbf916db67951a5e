// @ts-check
/**
 * Runs the client scenarios of the MCP conformance suite against the gateway as an MCP client (client.js), after a build: those
 * that 2025-11-25 and 2026-07-28 require, each at every revision it belongs to, and those of the extensions and the old revisions
 * that are ours. A scenario the suite adds one day runs by itself. Ends with status 1 when one fails.
 */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'

const execute = promisify(execFile)

const SERVER_REQUESTS = 'needs requests from a server to its client, which the gateway does not relay yet'
const NO_DPOP = 'DPoP: the gateway holds bearer tokens only'
const NO_SKILLS = 'skills extension: the gateway relays tools only'

/** Why a scenario is not ours. @type {Readonly<Record<string, string>>} */
const NOT_OURS = {
  'elicitation-sep1034-client-defaults': SERVER_REQUESTS,
  'sep-2322-client-request-state': SERVER_REQUESTS,
  'auth/dpop': NO_DPOP,
  'auth/dpop-nonce': NO_DPOP,
  'auth/enterprise-managed-authorization':
    'the login of an enterprise identity provider (ID-JAG) is not a grant the gateway has',
  'auth/wif-jwt-bearer': 'workload identity (RFC 7523 grant) is not a grant the gateway has',
  'sep-2640-client-no-prefetch': NO_SKILLS,
  'sep-2640-client-verify-digest': NO_SKILLS,
  'sep-2640-client-verify-size': NO_SKILLS,
  'sep-2640-client-verify-frontmatter': NO_SKILLS,
}

/**
 * What the gateway must refuse, and its reason. The suite takes any error of the client for a refusal here, even a crash; everywhere
 * else the client has to succeed.
 * @type {Readonly<Record<string, RegExp>>}
 */
const REFUSED = {
  'auth/scope-retry-limit': /too little scope, and asking again did not help: mcp:admin$/m,
  'auth/resource-mismatch': /^LOGIN_FAILED: \S+ describes the resource "https:\/\/evil\.example\.com\/mcp"/m,
  'auth/iss-supported-missing': /^LOGIN_FAILED: .*"iss" .* missing \(got none,/m,
  'auth/iss-wrong-issuer': /^LOGIN_FAILED: .*unexpected "iss" .*\(got "https:\/\/evil\.example\.com",/m,
  'auth/iss-unexpected': /^LOGIN_FAILED: .*unexpected "iss" .*\(got "https:\/\/evil\.example\.com",/m,
  'auth/iss-normalized': /^LOGIN_FAILED: .*unexpected "iss" .*\(got "http:\/\/localhost:\d+\/",/m,
  'auth/metadata-issuer-mismatch': /^LOGIN_FAILED: \S+ says that its issuer is "https:\/\/attacker\.example\.com"/m,
}

const REVISIONS = ['2025-11-25', '2026-07-28']
const SUITE_NODE = 22
const NODE_VERSION = '22.23.3'
// For one run of a scenario; the client has a limit of its own below the suite's.
const SUITE_LIMIT_MS = 60_000
const LIMIT_MS = 90_000
const MAX_BUFFER = 64 * 1024 * 1024

const here = dirname(fileURLToPath(import.meta.url))
const suite = join(
  dirname(createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json')),
  'dist',
  'index.js',
)

/** @typedef {{ scenario: string, revisions: readonly string[] }} Plan */
/** @typedef {{ revision: string, passed: boolean, checks: number, problems: string[], output: string }} Outcome */

/** @param {string} text */
const print = text => void process.stdout.write(`${text}\n`)

const { values: flags, positionals } = parseArgs({
  options: { verbose: { type: 'boolean' }, help: { type: 'boolean' } },
  allowPositionals: true,
})
if (flags.help) print('node test/conformance/run.js [--verbose] [SCENARIO …]   (needs a build)')
else {
  await main().catch(error => {
    process.stderr.write(`conformance: ${error.message}\n`)
    process.exitCode = 1
  })
}

async function main() {
  const started = Date.now()
  const node = await findNode()
  const plans = (await listScenarios(node)).filter(
    ({ scenario }) => positionals.length === 0 || positionals.includes(scenario),
  )
  if (plans.length === 0) throw new Error(`the suite has none of: ${positionals.join(', ')}`)
  const [ours, others] = [plans.filter(isOurs), plans.filter(plan => !isOurs(plan))]
  const failed = await runAll(ours, node)
  for (const { scenario } of others) print(`not ours  ${scenario}: ${NOT_OURS[scenario]}`)
  const seconds = ((Date.now() - started) / 1000).toFixed(0)
  print(`\n${ours.length - failed} scenarios passed, ${failed} failed, ${others.length} not ours (${seconds} s)`)
  if (failed > 0) process.exitCode = 1
}

/** @param {Plan} plan */
function isOurs({ scenario }) {
  return !Object.hasOwn(NOT_OURS, scenario)
}

/** The suite needs a newer Node than the gateway. */
async function findNode() {
  if (majorOf(process.versions.node) >= SUITE_NODE) return process.execPath
  const chosen = process.env.CONFORMANCE_NODE
  if (!chosen) return installNode()
  const { stdout } = await execute(chosen, ['--print', 'process.versions.node'])
  if (majorOf(stdout) >= SUITE_NODE) return chosen
  throw new Error(`CONFORMANCE_NODE is Node ${stdout.trim()}, the suite needs ${SUITE_NODE}`)
}

/** @param {string} version */
function majorOf(version) {
  return Number.parseInt(version, 10)
}

/** Node from npm, kept beside what else is installed and in no package.json. */
async function installNode() {
  const directory = join(here, '..', '..', 'node_modules', '.cache', `conformance-node-${NODE_VERSION}`)
  const system = process.platform === 'win32' ? 'win' : process.platform
  const name = `node-${system}-${process.arch}`
  const binary = join(directory, 'node_modules', name, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
  if (existsSync(binary)) return binary
  print(`installing ${name}@${NODE_VERSION} for the suite, which needs Node ${SUITE_NODE} (or set CONFORMANCE_NODE)`)
  await mkdir(directory, { recursive: true })
  const flags = ['--prefix', directory, '--ignore-scripts', '--no-save', '--no-audit', '--no-fund', '--loglevel=error']
  await execute('npm', ['install', ...flags, `${name}@${NODE_VERSION}`], {
    cwd: directory,
    shell: process.platform === 'win32',
  })
  return binary
}

/** @param {string} node @returns {Promise<Plan[]>} */
async function listScenarios(node) {
  const { stdout } = await execute(node, [suite, 'list', '--client'])
  const plans = [...stdout.matchAll(/^ {2}- (\S+) \[(.*)\]$/gm)].map(([, scenario = '', tags = '']) => ({
    scenario,
    revisions: revisionsOf(tags.split(',')),
  }))
  if (plans.length === 0) throw new Error(`the suite lists no scenarios:\n${stdout}`)
  return plans
}

/** The revisions that count; extensions belong to none, so to all, and what is older runs at its last. @param {string[]} tags */
function revisionsOf(tags) {
  if (tags.includes('extension')) return REVISIONS
  const counting = REVISIONS.filter(revision => tags.includes(revision))
  return counting.length > 0 ? counting : tags.slice(-1)
}

/** Runs as many at a time as there are processors; prints in the order of the plans. @param {Plan[]} plans @param {string} node @returns {Promise<number>} how many failed */
async function runAll(plans, node) {
  const inTurn = createLimit(availableParallelism())
  const running = plans.map(plan =>
    Promise.all(plan.revisions.map(revision => inTurn(() => runScenario(plan.scenario, revision, node)))),
  )
  let failed = 0
  for (const [index, outcomes] of running.entries()) {
    if (!report(plans[index]?.scenario ?? '', await outcomes)) failed++
  }
  return failed
}

/** @param {number} places */
function createLimit(places) {
  let free = places
  /** @type {(() => void)[]} */
  const waiting = []
  /** @template T @param {() => Promise<T>} task @returns {Promise<T>} */
  return async task => {
    if (free > 0) free--
    else await new Promise(resolve => waiting.push(() => resolve(undefined)))
    try {
      return await task()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free++
    }
  }
}

/** @param {string} scenario @param {string} revision @param {string} node @returns {Promise<Outcome>} */
async function runScenario(scenario, revision, node) {
  const client = [process.execPath, join(here, 'client.js')].map(part => `"${part}"`).join(' ')
  // One scenario at a time: a whole group starts every client at once, and does not look at their exit status. Extensions belong to
  // no revision, so they have to be forced.
  const chosen = ['--scenario', scenario, '--spec-version', revision, '--force']
  const args = [suite, 'client', '--verbose', '--timeout', String(SUITE_LIMIT_MS), ...chosen]
  const options = { timeout: LIMIT_MS, maxBuffer: MAX_BUFFER }
  const { stdout, stderr, failed } = await execute(node, [...args, '--command', client], options).then(
    output => ({ ...output, failed: false }),
    error => ({ stdout: String(error.stdout), stderr: String(error.stderr), failed: true }),
  )
  const checks = readChecks(stdout)
  const problems = checks
    .filter(({ status }) => status === 'FAILURE' || status === 'WARNING')
    .map(({ id, description, errorMessage }) => `${id}: ${errorMessage ?? description}`)
  const refused = REFUSED[scenario]
  const ended = refused ? refused.test(stderr) : !stderr.includes('Client exited with code')
  if (!ended) problems.push(refused ? `the client did not refuse with ${refused}` : 'the client failed')
  const succeeded = checks.filter(({ status }) => status === 'SUCCESS').length
  const passed = !failed && ended && succeeded > 0
  return { revision, passed, checks: succeeded, problems, output: flags.verbose ? `${stdout}\n${stderr}` : stderr }
}

/** @typedef {{ id: string, status: string, description: string, errorMessage?: string }} Check */

/** The checks are the one JSON document on stdout. @param {string} stdout @returns {Check[]} */
function readChecks(stdout) {
  try {
    return JSON.parse(stdout)
  } catch {
    return []
  }
}

/** @param {string} scenario @param {Outcome[]} outcomes @returns {boolean} whether all passed */
function report(scenario, outcomes) {
  const passed = outcomes.every(outcome => outcome.passed)
  const details = outcomes.map(
    ({ revision, passed, checks }) => `${revision}: ${passed ? `${checks} checks` : 'failed'}`,
  )
  print(`${passed ? 'passed  ' : 'FAILED  '}  ${scenario} (${details.join(', ')})`)
  for (const { revision, passed, problems, output } of outcomes) {
    if (passed) continue
    for (const problem of problems) print(`            ${revision}: ${problem}`)
    print(output.replace(/^/gm, '              '))
  }
  return passed
}
