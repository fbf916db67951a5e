import { distance } from 'fastest-levenshtein'
import type { BackendTool } from '../backends/tool.js'
import { actionsOf, isQuestion, synonymsOf, toCompounds, toProperNames, toTerms } from './search-terms.js'
import { compare, type Entry, type ToolIndex } from './tool-index.js'

// How soon saying it again says nothing new; how much rare words count more; a verb says less than what it is done to.
const SATURATION = 1.2
const RARITY = 0.5
const VERB = 0.7
// What a term counts that is not the one that was asked for.
const SYNONYM = 0.7
const LONGER_WORD = 0.3
const TYPO = 0.7
// How much depends on what share of the request was found, what share of the name was asked for, and on doing what was asked.
const COVERAGE = 0.25
const NAMED = 0.5
const OTHER_ACTION = 0.7

const MAX_QUERY_TERMS = 32

export interface Hit {
  readonly server: string
  readonly tool: BackendTool
  readonly score: number
}

/**
 * The tools that fit a request best, best first, equal ones by server and name. An index library would count every document in
 * how rare a word is; here tools that are not permitted count in nothing, so that no score tells of them.
 */
export function rankTools(
  within: readonly ToolIndex[],
  request: string,
  isPermitted: (server: string, tool: BackendTool['definition']) => boolean,
): Hit[] {
  const shelf = new Shelf(within, isPermitted)
  const terms = [...new Set(toTerms(request))].slice(0, MAX_QUERY_TERMS)
  const names = toProperNames(request)
  const matches = [
    ...terms.map(term => shelf.match(term, { mayBeTypo: !names.has(term) })),
    ...toCompounds(request)
      .slice(0, MAX_QUERY_TERMS)
      .map(term => shelf.matchExactly(term)),
  ].filter(({ size }) => size > 0)
  const action = isQuestion(request) ? ['read'] : actionsOf(terms)
  return rank(shelf, matches, action)
}

function rank(shelf: Shelf, matches: readonly Match[], action: readonly string[]): Hit[] {
  const found = [...shelf.entries.keys()].filter(id => matches.some(({ weights }) => (weights[id] ?? 0) > 0))
  const rarities = matches.map(
    ({ size, importance }) => importance * Math.log(1 + (found.length - size + 0.5) / (size + 0.5)) ** RARITY,
  )
  const whole = rarities.reduce((sum, rarity) => sum + rarity, 0)
  const hits = found.flatMap(id => {
    const entry = shelf.entries[id]
    if (!entry) return []
    let sum = 0
    let covered = 0
    let named = 0
    for (const [at, { weights, inName }] of matches.entries()) {
      const weight = weights[id] ?? 0
      if (weight === 0) continue
      const rarity = rarities[at] ?? 0
      sum += (rarity * weight * (SATURATION + 1)) / (weight + SATURATION)
      covered += rarity
      named |= inName[id] ?? 0
    }
    const coverage = (covered / whole) ** COVERAGE
    const naming = 1 - NAMED + (NAMED * countBits(named)) / Math.max(1, entry.nameLength)
    const doing = isOther(entry.actions, action) ? OTHER_ACTION : 1
    return [{ server: entry.server, tool: entry.tool, score: sum * coverage * naming * doing }]
  })
  return hits.sort(
    (a, b) =>
      b.score - a.score || compare(a.server, b.server) || compare(a.tool.definition.name, b.tool.definition.name),
  )
}

const isOther = (actions: readonly string[], wanted: readonly string[]): boolean =>
  actions.length > 0 && wanted.length > 0 && !actions.some(action => wanted.includes(action))

function countBits(bits: number): number {
  let count = 0
  for (let rest = bits; rest !== 0; rest &= rest - 1) count++
  return count
}

/** What one term of a request found, by place on the shelf. */
interface Match {
  readonly weights: Float64Array
  readonly inName: Int32Array
  readonly importance: number
  /** How many tools it found. */
  size: number
}

/** All indexes of one search side by side, so that a number tells a tool. A tool is decided on when a term first finds it. */
class Shelf {
  readonly entries: readonly Entry[]
  readonly #rows: readonly { readonly index: ToolIndex; readonly start: number }[]
  readonly #visible: (boolean | undefined)[]
  readonly #isPermitted: (server: string, tool: BackendTool['definition']) => boolean

  constructor(within: readonly ToolIndex[], isPermitted: (server: string, tool: BackendTool['definition']) => boolean) {
    let start = 0
    this.#rows = within.map(index => {
      const row = { index, start }
      start += index.entries.length
      return row
    })
    this.entries = within.flatMap(({ entries }) => entries)
    this.#visible = new Array(start)
    this.#isPermitted = isPermitted
  }

  matchExactly(term: string): Match {
    const match: Match = {
      weights: new Float64Array(this.entries.length),
      inName: new Int32Array(this.entries.length),
      importance: actionsOf([term]).length > 0 ? VERB : 1,
      size: 0,
    }
    this.#add(match, term, 1)
    return match
  }

  /** The term itself, what means the same and what begins with it; if there is none of these, what it may be a typo of. */
  match(term: string, { mayBeTypo }: { mayBeTypo: boolean }): Match {
    const match = this.matchExactly(term)
    for (const other of synonymsOf(term)) this.#add(match, other, SYNONYM)
    if (term.length >= 4) {
      for (const word of this.#wordsWith(term)) {
        if (word !== term) this.#add(match, word, (LONGER_WORD * term.length) / word.length)
      }
    }
    if (match.size === 0 && mayBeTypo) this.#addTypos(match, term)
    return match
  }

  #addTypos(match: Match, term: string): void {
    const mayDiffer = term.length < 4 ? 0 : term.length < 6 ? 1 : 2
    const words = new Map<number, string[]>()
    for (const word of this.#wordsWith(term.charAt(0))) {
      if (Math.abs(word.length - term.length) > mayDiffer) continue
      const edits = isSwap(term, word) ? 1 : distance(term, word)
      if (edits <= mayDiffer) words.set(edits, [...(words.get(edits) ?? []), word])
    }
    for (let edits = 1; edits <= mayDiffer && match.size === 0; edits++) {
      for (const word of words.get(edits) ?? []) this.#add(match, word, TYPO ** edits)
    }
  }

  /** Every term in use that begins like this. */
  #wordsWith(prefix: string): ReadonlySet<string> {
    const words = new Set<string>()
    for (const { index } of this.#rows) {
      const { vocabulary } = index
      for (let at = firstFrom(vocabulary, prefix); vocabulary[at]?.startsWith(prefix); at++) {
        words.add(vocabulary[at] ?? '')
      }
    }
    return words
  }

  #add(match: Match, term: string, factor: number): void {
    for (const { index, start } of this.#rows) {
      for (const posting of index.postings.get(term) ?? []) {
        const id = start + posting.at
        const weight = posting.weight * factor
        const before = match.weights[id] ?? 0
        if (weight <= before || !this.#isVisible(id)) continue
        if (before === 0) match.size++
        match.weights[id] = weight
        match.inName[id] = posting.inName
      }
    }
  }

  #isVisible(id: number): boolean {
    const entry = this.entries[id]
    if (!entry) return false
    this.#visible[id] ??= this.#isPermitted(entry.server, entry.tool.definition)
    return this.#visible[id] === true
  }
}

/** Where in a sorted list the first word stands that is not before this one. */
function firstFrom(sorted: readonly string[], word: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if ((sorted[middle] ?? '') < word) low = middle + 1
    else high = middle
  }
  return low
}

/** Two neighbouring letters the wrong way round. */
function isSwap(a: string, b: string): boolean {
  if (a.length !== b.length) return false
  let at = 0
  while (at < a.length && a[at] === b[at]) at++
  return a[at] === b[at + 1] && a[at + 1] === b[at] && a.slice(at + 2) === b.slice(at + 2)
}
