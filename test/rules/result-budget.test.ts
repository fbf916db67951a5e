import { expect, test } from 'vitest'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'
import { compileRules, resultBudgetOf } from '../../src/rules/compile.js'

const budgetOf = (budgets: Record<string, number | undefined>, agent: string) => {
  const agents = Object.fromEntries(Object.entries(budgets).map(([name, max]) => [name, { max_result_tokens: max }]))
  const { rules, problems } = parseRulesFile(parseJsonDocument('r.json', JSON.stringify({ agents })))
  expect(problems).toEqual([])
  return resultBudgetOf(compileRules(rules, []), agent)
}

test.each<[string, Record<string, number | undefined>, string, number | undefined]>([
  ['off by default', { dev: undefined }, 'dev', undefined],
  ['its own', { dev: 100 }, 'dev', 100],
  ['its ancestor says it', { dev: 100, 'dev.a': undefined }, 'dev.a', 100],
  ['its ancestor says it, and it has no entry', { dev: 100 }, 'dev.a.b', 100],
  ['less than its ancestor', { dev: 100, 'dev.a': 50 }, 'dev.a', 50],
  ['never more than its ancestor', { dev: 100, 'dev.a': 5_000 }, 'dev.a', 100],
  ['the least of all of them', { dev: 100, 'dev.a': 20, 'dev.a.b': 50 }, 'dev.a.b', 20],
  ['not what a descendant says', { dev: undefined, 'dev.a': 50 }, 'dev', undefined],
  ['not what a name alike says', { dev: 100 }, 'develop', undefined],
  ['an unknown agent', {}, 'dev', undefined],
])('%s', (_, budgets, agent, expected) => {
  expect(budgetOf(budgets, agent)).toBe(expected)
})
