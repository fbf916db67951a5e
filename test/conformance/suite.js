// @ts-check
/** The MCP conformance suite as a program: a Node it runs on, what it lists, and one run of it after the other, reported. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const execute = promisify(execFile)

export const REVISIONS = ['2025-11-25', '2026-07-28']
const SUITE_NODE = 22
const NODE_VERSION = '22.23.3'
// For one run of a scenario.
export const SUITE_LIMIT_MS = 60_000
const LIMIT_MS = 90_000
const MAX_BUFFER = 64 * 1024 * 1024

const here = dirname(fileURLToPath(import.meta.url))
const cache = join(here, '..', '..', 'node_modules', '.cache')
// It starts anew for each scenario, which takes a quarter less without compiling its code again.
const SUITE_ENV = { ...process.env, NODE_COMPILE_CACHE: join(cache, 'conformance') }
export const suiteDirectory = dirname(
  createRequire(import.meta.url).resolve('@modelcontextprotocol/conformance/package.json'),
)
const suite = join(suiteDirectory, 'dist', 'index.js')

/** @typedef {{ scenario: string, revisions: readonly string[] }} Plan */
/**
 * What is known not to pass is no problem.
 * @typedef {{ label: string, passed: boolean, checks: number, problems: string[], known?: string[], output: string }} Outcome
 */
/** @typedef {{ id: string, status: string, description: string, errorMessage?: string }} Check */

/** @param {string} text */
export const print = text => void process.stdout.write(`${text}\n`)

/** The suite needs a newer Node than the gateway. */
export async function findNode() {
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
  const directory = join(cache, `conformance-node-${NODE_VERSION}`)
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

/** @param {string} node @param {'client' | 'server'} leg @returns {Promise<{ scenario: string, tags: string[] }[]>} */
export async function listScenarios(node, leg) {
  const { stdout } = await execute(node, [suite, 'list', `--${leg}`])
  const listed = [...stdout.matchAll(/^ {2}- (\S+) \[(.*)\]$/gm)].map(([, scenario = '', tags = '']) => ({
    scenario,
    tags: tags.split(','),
  }))
  if (listed.length === 0) throw new Error(`the suite lists no scenarios:\n${stdout}`)
  return listed
}

/** @param {readonly Plan[]} plans @param {readonly string[]} scenarios those to keep; none keeps all */
export function choosePlans(plans, scenarios) {
  const chosen = plans.filter(({ scenario }) => scenarios.length === 0 || scenarios.includes(scenario))
  if (chosen.length === 0) throw new Error(`the suite has none of: ${scenarios.join(', ')}`)
  return chosen
}

/**
 * Runs as many at a time as there are processors; prints in the order of the plans.
 * @param {readonly Plan[]} plans @param {(scenario: string, revision: string) => Promise<Outcome>} run
 * @returns {Promise<string[]>} the scenarios that failed
 */
export async function runAll(plans, run) {
  const inTurn = createLimit(availableParallelism())
  const running = plans.map(({ scenario, revisions }) =>
    Promise.all(revisions.map(revision => inTurn(() => run(scenario, revision)))),
  )
  const failed = []
  for (const [index, { scenario }] of plans.entries()) {
    if (!report(scenario, (await running[index]) ?? [])) failed.push(scenario)
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

/** @param {string} node @param {readonly string[]} args */
export async function runSuite(node, args) {
  const options = { timeout: LIMIT_MS, maxBuffer: MAX_BUFFER, env: SUITE_ENV }
  const { stdout, stderr, failed } = await execute(node, [suite, ...args], options).then(
    output => ({ ...output, failed: false }),
    error => ({ stdout: String(error.stdout), stderr: String(error.stderr), failed: true }),
  )
  return { stdout, stderr, failed, checks: readChecks(stdout) }
}

/** The checks are the one JSON document on stdout, with --verbose. @param {string} stdout @returns {Check[]} */
function readChecks(stdout) {
  try {
    return JSON.parse(/^\[$.*?^\]$/ms.exec(stdout)?.[0] ?? '[]')
  } catch {
    return []
  }
}

/** A warning is what the specification says one should do. @param {Check} check */
export const isProblem = ({ status }) => status === 'FAILURE' || status === 'WARNING'

/** @param {Check} check */
export const describeCheck = ({ id, description, errorMessage }) => `${id}: ${errorMessage ?? description}`

/** @param {readonly Check[]} checks */
export const countSuccesses = checks => checks.filter(({ status }) => status === 'SUCCESS').length

/** @param {string} scenario @param {readonly Outcome[]} outcomes @returns {boolean} whether all passed */
function report(scenario, outcomes) {
  const passed = outcomes.every(outcome => outcome.passed)
  const details = outcomes.map(({ label, passed, checks }) => `${label}: ${passed ? `${checks} checks` : 'failed'}`)
  print(`${passed ? 'passed  ' : 'FAILED  '}  ${scenario} (${details.join(', ')})`)
  for (const { label, passed, problems, known = [], output } of outcomes) {
    for (const check of known) print(`            ${label}: cannot pass: ${check}`)
    if (passed) continue
    for (const problem of problems) print(`            ${label}: ${problem}`)
    print(output.replace(/^/gm, '              '))
  }
  return passed
}
