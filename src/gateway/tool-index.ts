import type { BackendTool, ToolList } from '../backends/tool.js'
import { isJsonObject } from '../json.js'
import { actionsOf, toTerms } from './search-terms.js'

/** What a field counts, and how many terms it usually has: in a longer text each says less. */
const FIELDS = {
  name: { weight: 3, usual: 3 },
  server: { weight: 3, usual: 1 },
  title: { weight: 2, usual: 4 },
  summary: { weight: 1.5, usual: 10 },
  parameters: { weight: 0.5, usual: 6 },
  description: { weight: 0.3, usual: 30 },
} as const
type Fields = Readonly<Record<keyof typeof FIELDS, string>>

// How much is taken off in long fields.
const LENGTH = 0.6

// What a hostile list can make us read. Each tool's part of the index is bounded by these.
const MAX_DESCRIPTION = 1_000
const MAX_TITLE = 200
const MAX_PARAMETERS = 100
const MAX_PARAMETER_NAME = 64
// Different terms of one server. Typos are looked for among all of them; real servers have a few thousand.
const MAX_TERMS = 20_000
// Tools indexed before others get their turn.
const SLICE = 250

/** A tool in the index. */
export interface Entry {
  readonly server: string
  readonly tool: BackendTool
  /** What it does, as far as its name says. */
  readonly actions: readonly string[]
  readonly nameLength: number
}

/** A term at a tool. */
export interface Posting {
  /** Place of the tool in the index. */
  readonly at: number
  /** The bit of this term among those of the tool's name; 0 when it is not in the name. */
  readonly inName: number
  readonly weight: number
}

/** The tools of one server, by the terms that speak of them. */
export interface ToolIndex {
  readonly entries: readonly Entry[]
  readonly postings: ReadonlyMap<string, readonly Posting[]>
  /** All terms, sorted. */
  readonly vocabulary: readonly string[]
}

const indexes = new WeakMap<ToolList, Promise<ToolIndex>>()

/** The index of a tool list: made once, when it is first searched, and gone with the list. */
export function indexOf(server: string, list: ToolList): Promise<ToolIndex> {
  const known = indexes.get(list)
  if (known) return known
  const index = buildIndex(server, list)
  indexes.set(list, index)
  return index
}

async function buildIndex(server: string, { tools }: ToolList): Promise<ToolIndex> {
  const entries: Entry[] = []
  const postings = new Map<string, Posting[]>()
  for (const [at, tool] of tools.entries()) {
    if (at > 0 && at % SLICE === 0) await new Promise(resolve => setImmediate(resolve))
    const nameTerms = [...new Set(toTerms(tool.definition.name))]
    entries.push({ server, tool, actions: actionsOf(nameTerms), nameLength: nameTerms.length })
    for (const [term, weight] of weigh(fieldsOf(server, tool))) {
      const inName = nameTerms.indexOf(term)
      const posting = { at, inName: inName < 0 ? 0 : 1 << (inName % 32), weight }
      const others = postings.get(term)
      if (others) others.push(posting)
      else if (postings.size < MAX_TERMS) postings.set(term, [posting])
    }
  }
  const vocabulary = [...postings.keys()].sort(compare)
  return { entries, postings, vocabulary }
}

function fieldsOf(server: string, { definition }: BackendTool): Fields {
  const { name, inputSchema, annotations } = definition
  const { properties } = inputSchema
  const parameters = isJsonObject(properties) ? Object.keys(properties).slice(0, MAX_PARAMETERS) : []
  const description = textOf(definition.description, MAX_DESCRIPTION)
  return {
    name,
    server,
    title: textOf(definition.title ?? annotations?.title, MAX_TITLE),
    summary: firstSentence(description),
    parameters: parameters.map(parameter => parameter.slice(0, MAX_PARAMETER_NAME)).join(' '),
    description,
  }
}

const textOf = (value: unknown, length: number): string => (typeof value === 'string' ? value.slice(0, length) : '')

const firstSentence = (text: string): string => /^.*?(?:[.:!?](?=\s)|\n|$)/.exec(text.trimStart())?.[0] ?? ''

/** How much each term says about a tool, all fields together. */
function weigh(fields: Fields): Map<string, number> {
  const weights = new Map<string, number>()
  for (const [field, { weight, usual }] of Object.entries(FIELDS)) {
    const terms = toTerms(fields[field as keyof Fields])
    const each = weight / (1 - LENGTH + (LENGTH * terms.length) / usual)
    for (const term of terms) weights.set(term, (weights.get(term) ?? 0) + each)
  }
  return weights
}

/** By code units: the same everywhere, whatever the locale. */
export const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
