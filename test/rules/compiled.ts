import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'
import { type AccessRules, compileRules } from '../../src/rules/compile.js'

/** The rules of a file that has no mistake. */
export function compiled(file: Record<string, unknown>): AccessRules {
  const { rules, problems } = parseRulesFile(parseJsonDocument('r.json', JSON.stringify(file)))
  if (problems.length > 0) throw new Error(JSON.stringify(problems))
  return compileRules(rules, [])
}
