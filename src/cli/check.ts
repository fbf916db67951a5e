import { loadConfig } from '../config/load.js'
import { locateConfigFiles } from '../config/locate.js'
import { ConfigError, formatProblem } from '../config/problem.js'
import { toExitStatus } from '../errors/faces.js'
import { findUnreachable } from '../rules/unreachable.js'
import type { ConfigFlags } from './config-flags.js'
import { print } from './output.js'

/** One problem a line on stdout; warnings do not fail the check. */
export async function check(flags: ConfigFlags): Promise<number> {
  try {
    const { files, servers, rules, warnings } = await loadConfig(
      locateConfigFiles({ ...flags, env: process.env, cwd: process.cwd() }),
      process.env,
    )
    const unreachable = findUnreachable(rules, servers).map(found => ({ file: files.rules, ...found }))
    for (const warning of [...warnings, ...unreachable])
      print(formatProblem({ ...warning, message: `warning: ${warning.message}` }))
    const problems = servers.flatMap(({ misconfigured }) => misconfigured)
    if (problems.length > 0) throw new ConfigError(problems)
    print(
      `ok: ${servers.length} servers in ${files.servers}, ${Object.keys(rules.agents).length} agents in ${files.rules}`,
    )
    return 0
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems) print(formatProblem(problem))
    return toExitStatus(error)
  }
}
