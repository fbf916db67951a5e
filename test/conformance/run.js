// @ts-check
/**
 * Runs the client scenarios of the MCP conformance suite against the gateway as an MCP client (client.js), after a build: those
 * that 2025-11-25 and 2026-07-28 require, each at every revision it belongs to, and those of the extensions and the old revisions
 * that are ours. A scenario the suite adds one day runs by itself. Ends with status 1 when one fails.
 */
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
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
} from './suite.js'

/** @typedef {import('./suite.js').Plan} Plan */
/** @typedef {import('./suite.js').Outcome} Outcome */

const NO_DPOP = 'DPoP: the gateway holds bearer tokens only'
const NO_SKILLS = 'skills extension: skills are loaded by the client of the gateway, which only relays their resources'

/** Why a scenario is not ours. @type {Readonly<Record<string, string>>} */
const NOT_OURS = {
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

const here = dirname(fileURLToPath(import.meta.url))

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
  const listed = await listScenarios(node, 'client')
  const plans = choosePlans(
    listed.map(({ scenario, tags }) => ({ scenario, revisions: revisionsOf(tags) })),
    positionals,
  )
  const [ours, others] = [plans.filter(isOurs), plans.filter(plan => !isOurs(plan))]
  const { length: failed } = await runAll(ours, (scenario, revision) => runScenario(node, scenario, revision))
  for (const { scenario } of others) print(`not ours  ${scenario}: ${NOT_OURS[scenario]}`)
  const seconds = ((Date.now() - started) / 1000).toFixed(0)
  print(`\n${ours.length - failed} scenarios passed, ${failed} failed, ${others.length} not ours (${seconds} s)`)
  if (failed > 0) process.exitCode = 1
}

/** @param {Plan} plan */
function isOurs({ scenario }) {
  return !Object.hasOwn(NOT_OURS, scenario)
}

/** The revisions that count; extensions belong to none, so to all, and what is older runs at its last. @param {string[]} tags */
function revisionsOf(tags) {
  if (tags.includes('extension')) return REVISIONS
  const counting = REVISIONS.filter(revision => tags.includes(revision))
  return counting.length > 0 ? counting : tags.slice(-1)
}

/** @param {string} node @param {string} scenario @param {string} revision @returns {Promise<Outcome>} */
async function runScenario(node, scenario, revision) {
  const client = [process.execPath, join(here, 'client.js')].map(part => `"${part}"`).join(' ')
  // One scenario at a time: a whole group starts every client at once, and does not look at their exit status. Extensions belong to
  // no revision, so they have to be forced. The client has a limit of its own below the suite's.
  const chosen = ['--scenario', scenario, '--spec-version', revision, '--force']
  const args = ['client', '--verbose', '--timeout', String(SUITE_LIMIT_MS), ...chosen, '--command', client]
  const { stdout, stderr, failed, checks } = await runSuite(node, args)
  const problems = checks.filter(isProblem).map(describeCheck)
  const refused = REFUSED[scenario]
  const ended = refused ? refused.test(stderr) : !stderr.includes('Client exited with code')
  if (!ended) problems.push(refused ? `the client did not refuse with ${refused}` : 'the client failed')
  const succeeded = countSuccesses(checks)
  const passed = !failed && ended && succeeded > 0
  return {
    label: revision,
    passed,
    checks: succeeded,
    problems,
    output: flags.verbose ? `${stdout}\n${stderr}` : stderr,
  }
}
