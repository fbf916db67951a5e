// @ts-check
/** From rounds to the tables that are printed. */

/**
 * @typedef {import('./load.js').Measured & Sampled} Round
 * @typedef {{ elapsedMs: number, used: { cpuMs: number, waitedMs: number } | undefined }} Sampled
 * @typedef {{ era: string, concurrency: number, target: string, rounds: Round[] }} Cell
 */

const GOALS = { ratio: 0.6, addedMs: 0.4, idleMb: 110 }

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/**
 * The median over the rounds of a comparison made inside each round: what disturbed one round disturbed both sides of it.
 * @param {Cell} cell @param {Cell} base @param {(ours: Round, theirs: Round) => number} compare
 */
const medianPerRound = (cell, base, compare) =>
  median(
    cell.rounds.flatMap((round, index) => {
      const other = base.rounds[index]
      return other ? [compare(round, other)] : []
    }),
  )

/** @param {Cell[]} cells */
export function toLoadTable(cells) {
  return toTable(
    ['era', 'at once', 'target', 'req/s', 'of proxy', 'p50 ms', 'p99 ms', 'CPU ms/req', 'CPU of proxy', 'core busy'],
    cells.map(cell => {
      const proxy = sibling(cells, cell, 'proxy')
      const cpu = cpuPerCall(cell)
      const proxyCpu = cpuPerCall(proxy)
      return [
        cell.era,
        String(cell.concurrency),
        cell.target,
        median(cell.rounds.map(round => round.requestsPerSecond)).toFixed(0),
        ratioTo(proxy, cell).toFixed(2),
        median(cell.rounds.map(round => round.p50)).toFixed(2),
        median(cell.rounds.map(round => round.p99)).toFixed(2),
        cpu?.toFixed(3) ?? '-',
        cpu !== undefined && proxyCpu !== undefined ? (cpu / proxyCpu).toFixed(2) : '-',
        busy(cell),
      ]
    }),
  )
}

/** What one call alone takes longer than the same call to the backend itself, or through the proxy. @param {Cell[]} cells */
export function toAddedTable(cells) {
  return toTable(
    ['era', 'target', 'added p50 over the backend, ms', 'added p50 over the proxy, ms'],
    cells
      .filter(({ concurrency, target }) => concurrency === 1 && target !== 'backend')
      .map(cell => [
        cell.era,
        cell.target,
        addedMs(sibling(cells, cell, 'backend'), cell).toFixed(2),
        cell.target === 'proxy' ? '-' : addedMs(sibling(cells, cell, 'proxy'), cell).toFixed(2),
      ]),
  )
}

// What undisturbed runs stay below.
const QUIET_PERCENT = 5

/** The proxy has one busy thread and its core to itself: what it waits for is somebody else. @param {Cell[]} cells */
export function toWaited(cells) {
  const shares = cells
    .filter(({ target }) => target === 'proxy')
    .flatMap(({ rounds }) => rounds.map(({ used, elapsedMs }) => (100 * (used?.waitedMs ?? Number.NaN)) / elapsedMs))
  const usual = median(shares)
  if (Number.isNaN(usual)) return ''
  const waited = `The proxy waited ${usual.toFixed(1)} % of the time for its core (worst round: ${Math.max(...shares).toFixed(0)} %).`
  if (usual <= QUIET_PERCENT) return waited
  return `${waited} TOO NOISY: something else is running, compare the CPU and measure the rest again.`
}

/** @param {Cell[]} cells @param {number | undefined} idleMb */
export function toGoals(cells, idleMb) {
  const ofGateway = cells.filter(({ target }) => target === 'gateway, HTTP')
  const goals = ofGateway.map(cell => {
    const { era, concurrency } = cell
    if (concurrency === 1) {
      const added = addedMs(sibling(cells, cell, 'backend'), cell)
      const goal = `(goal: under ${GOALS.addedMs} ms)`
      return {
        isMet: added < GOALS.addedMs,
        what: `${era}, 1 at once: p50 + ${added.toFixed(2)} ms over the backend ${goal}`,
      }
    }
    const ratio = ratioTo(sibling(cells, cell, 'proxy'), cell)
    const goal = `(goal: at least ${GOALS.ratio * 100} %)`
    const percent = (ratio * 100).toFixed(0)
    return { isMet: ratio >= GOALS.ratio, what: `${era}, ${concurrency} at once: ${percent} % of the proxy ${goal}` }
  })
  if (idleMb !== undefined) {
    const what = `idle memory after the first calls: ${idleMb.toFixed(0)} MB (goal: under ${GOALS.idleMb} MB)`
    goals.push({ isMet: idleMb < GOALS.idleMb, what })
  }
  return goals.map(({ what, isMet }) => `- ${isMet ? 'met' : 'NOT MET'}: ${what}`).join('\n')
}

/** @param {Cell[]} cells @param {Cell} cell @param {string} target */
function sibling(cells, { era, concurrency }, target) {
  const found = cells.find(other => other.era === era && other.concurrency === concurrency && other.target === target)
  if (!found) throw new Error(`nothing was measured for the target "${target}"`)
  return found
}

/** @param {Cell} base @param {Cell} cell */
const ratioTo = (base, cell) =>
  medianPerRound(cell, base, (ours, theirs) => ours.requestsPerSecond / theirs.requestsPerSecond)

/** @param {Cell} base @param {Cell} cell */
const addedMs = (base, cell) => medianPerRound(cell, base, (ours, theirs) => ours.p50 - theirs.p50)

/** Over all rounds together: one round is short beside the kernel's tick. @param {Cell} cell */
function cpuPerCall({ rounds }) {
  const calls = rounds.reduce((sum, round) => sum + round.calls, 0)
  const cpu = sumOfCpu(rounds)
  return cpu === undefined ? undefined : cpu / calls
}

/** Near 100 % the target is the bottleneck; far below, something else is, and the ratio says little. @param {Cell} cell */
function busy({ rounds }) {
  const cpu = sumOfCpu(rounds)
  const elapsed = rounds.reduce((sum, round) => sum + round.elapsedMs, 0)
  return cpu === undefined ? '-' : `${((100 * cpu) / elapsed).toFixed(0)} %`
}

/** @param {Round[]} rounds @returns {number | undefined} */
const sumOfCpu = rounds =>
  rounds.reduce(
    (/** @type {number | undefined} */ sum, { used }) => (sum === undefined || !used ? undefined : sum + used.cpuMs),
    0,
  )

/** Markdown, so that it can be read in a terminal and pasted into a document. @param {string[]} header @param {string[][]} rows */
function toTable(header, rows) {
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map(row => row[column]?.length ?? 0)))
  /** @param {string[]} cells */
  const line = cells => `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [line(header), line(widths.map(width => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
