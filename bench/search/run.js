// Prints how often the right tool is among the first five, and how long a search takes: `node bench/search/run.js [--misses]`.
import { readFileSync } from 'node:fs'
import { rankTools } from '../../dist/gateway/rank-tools.js'
import { indexOf } from '../../dist/gateway/tool-index.js'
import { compileRules } from '../../dist/rules/compile.js'
import { decide } from '../../dist/rules/decide.js'

const ROUNDS = 20
const FIRST = 5

const read = name => JSON.parse(readFileSync(new URL(name, import.meta.url), 'utf8'))
const print = line => process.stdout.write(`${line}\n`)
const definitions = read('corpus.json')
const needs = read('queries.json')
const heldOut = read('held-out.json')

async function indexAll(tools) {
  const servers = new Map()
  for (const { server, ...definition } of tools) servers.set(server, [...(servers.get(server) ?? []), { definition }])
  const started = performance.now()
  const indexes = await Promise.all([...servers].map(([server, list]) => indexOf(server, { tools: list })))
  return { indexes, buildMs: performance.now() - started }
}

// Each tool is decided on, as in a call; these rules let everything through, so that all of it is searched.
const rules = compileRules(
  {
    agents: {
      all: { allow: { servers: ['*'], tools: { 'g*': ['get_*', '*'] } }, deny: { tools: { '*': ['no_such_*'] } } },
    },
    defaults: {},
  },
  [],
)
const isPermitted = (server, tool) => decide(rules, { agent: 'all', server, tool }).decision === 'allow'

const search = (indexes, query) =>
  rankTools(indexes, query, isPermitted).map(({ server, tool }) => `${server}/${tool.definition.name}`)

function printRecall(indexes, label, questions) {
  let first = 0
  let among = 0
  for (const { query, tools } of questions) {
    const found = search(indexes, query)
    const place = found.findIndex(tool => tools.includes(tool))
    if (place === 0) first++
    if (place >= 0 && place < FIRST) among++
    else if (process.argv.includes('--misses')) print(`missed: ${query}\n  ${found.slice(0, FIRST).join('\n  ')}`)
  }
  print(`${label}: recall@${FIRST} ${percent(among / questions.length)}, first ${percent(first / questions.length)}`)
}

function measureTime(indexes) {
  const times = []
  for (let round = 0; round < ROUNDS; round++) {
    for (const { query } of needs) {
      const started = performance.now()
      search(indexes, query)
      // The first rounds only warm up.
      if (round >= ROUNDS / 4) times.push(performance.now() - started)
    }
  }
  times.sort((a, b) => a - b)
  return { p50: times[Math.floor(times.length * 0.5)], p95: times[Math.floor(times.length * 0.95)] }
}

const percent = share => `${(share * 100).toFixed(0)} %`
const ms = time => `${time.toFixed(2)} ms`

const whole = await indexAll(definitions)
printRecall(whole.indexes, `${needs.length} needs, ${definitions.length} tools`, needs)
printRecall(whole.indexes, `${heldOut.length} needs that the ranking was not tuned on`, heldOut)
// Every n-th tool, so that all servers are there.
const part = at => Math.floor((at * 1000) / definitions.length)
const thousand = await indexAll(definitions.filter((_, at) => part(at) !== part(at - 1)))
for (const [tools, { indexes, buildMs }] of [
  [definitions.length, whole],
  [1000, thousand],
]) {
  const { p50, p95 } = measureTime(indexes)
  print(`${tools} tools: p50 ${ms(p50)}, p95 ${ms(p95)}; indexed in ${buildMs.toFixed(0)} ms`)
}
