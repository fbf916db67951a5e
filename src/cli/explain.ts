import { loadConfig } from '../config/load.js'
import { locateConfigFiles } from '../config/locate.js'
import { compileRules } from '../rules/compile.js'
import { decide, type Wanted } from '../rules/decide.js'
import type { ConfigFlags } from './config-flags.js'
import { print, printJson } from './output.js'

export async function explain(
  wanted: Wanted,
  { json, ...flags }: ConfigFlags & { readonly json?: boolean },
): Promise<number> {
  const config = await loadConfig(locateConfigFiles({ ...flags, env: process.env, cwd: process.cwd() }), process.env)
  const decision = decide(compileRules(config.rules, config.servers), wanted)
  if (json) printJson(decision)
  else {
    print(`${decision.decision}: ${decision.reason}`)
    print(`rule: ${decision.rule}`)
    if (!config.servers.some(({ name }) => name === wanted.server))
      print(`note: the server "${wanted.server}" is not configured`)
  }
  return decision.decision === 'allow' ? 0 : 1
}
