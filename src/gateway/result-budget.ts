import type { CallToolResult } from '@modelcontextprotocol/server'
import { isJsonObject, parseJson } from '../json.js'
import type { RenderedResult } from './kept-results.js'

// Models that see an image pay for its pixels, scaled down to about this at most; its bytes say little.
const IMAGE_COST = 160_000
// Base64 read as text, per character.
const BASE64_COST = 70

const NAMED_ITEMS = 5

const META = 'agent-mcp-gateway/truncated'

/** The arguments that read_result takes to read a kept result. */
export interface Ticket {
  readonly handle: string
  readonly agent_id?: string
}

/** Keeps a whole result; undefined when it is too large for that. */
export type Keep = (result: RenderedResult) => Ticket | undefined

/**
 * The result itself when it costs no more than `maxTokens` (undefined: no limit); else its beginning, with a notice of how to read
 * on, and the whole is kept.
 *
 * What counts is what a client may show a model: `content`, and `structuredContent` unless it says the same as the text, since
 * clients show one or the other. `_meta` and unknown fields are neither counted nor cut. Images count as what models pay for their
 * pixels; audio and blobs as base64, because what clients make of those is anybody's guess, pasting it included. Text is promised
 * half the budget, or less when it needs less; `structuredContent` and the other blocks have the rest, each whole or not at all.
 *
 * `structuredContent` that does not fit becomes a pointer with the same preview and notice (several clients show a model nothing
 * but `structuredContent`). No pointer can match the tool's `outputSchema`, and to leave it out would not either: SDK clients
 * throw in both cases. Only `isError` would calm them, and would make a model repeat what succeeded. So a tool whose results may
 * be cut must be listed without its `outputSchema`.
 *
 * A budget that is smaller than the notice buys the notice alone.
 */
export function withinBudget(result: CallToolResult, maxTokens: number | undefined, keep: Keep): CallToolResult {
  if (maxTokens === undefined) return result
  const budget = maxTokens * 100
  const content = readContent(result.content)
  const structured = readStructured(result.structuredContent, content.length > 0)
  const all = structured ? [...content, structured] : content
  if (costOf(all, budget) <= budget) return result
  const isRepeated = structured !== undefined && repeats(content, structured)
  if (isRepeated && costOf(content, budget) <= budget) return result

  const parts = isRepeated ? content : all
  const items = parts.filter(isItem)
  const rendered = toRendered(parts)
  const cut = { maxTokens, ticket: keep(rendered), total: rendered.text.length }
  const longest = describeCut({ ...cut, nextOffset: cut.total, leftOut: [...items.keys()] })
  const overhead = structured ? JSON.stringify(toPointer(longest, '')) : longest.notice
  const { blocks, preview, nextOffset, kept } = shorten(
    parts,
    Math.max(0, budget - costOfText(overhead, Number.POSITIVE_INFINITY)),
  )
  const leftOut = items.flatMap((item, index) => (kept.has(item) ? [] : [index]))
  const description = describeCut({ ...cut, nextOffset, leftOut })
  const isReplaced = structured && (isRepeated ? nextOffset !== null : !kept.has(structured))
  const { notice, ...forPrograms } = description
  return {
    ...result,
    content: [...blocks, { type: 'text', text: notice }] as CallToolResult['content'],
    ...(isReplaced && { structuredContent: toPointer(description, preview) }),
    _meta: { ...result._meta, [META]: forPrograms },
  }
}

/** One block of a result, or its `structuredContent`. */
interface Part {
  /** text: may be cut; whole: text that may not; item: binary or unknown, read by its number; structured: JSON that may be cut. */
  readonly kind: 'text' | 'whole' | 'item' | 'structured'
  /** What stands before the text in pages: what the block says beside it, or what stands for all of it. */
  readonly lead: string
  readonly text: string
  /** As it came. */
  readonly block: unknown
  /** Characters to keep beside lead and text. */
  readonly weight: number
  /** Of the block as it is, in hundredths of a token; or something over the limit. */
  cost(limit: number): number
  /** A block with less text. */
  cutTo(text: string): unknown
}

const isItem = ({ kind }: Part): boolean => kind === 'item'

function readContent(content: unknown): Part[] {
  let items = 0
  return (Array.isArray(content) ? content : []).map(block => {
    const part = readBlock(block, items)
    if (isItem(part)) items++
    return part
  })
}

function readStructured(value: unknown, isBesideContent: boolean): Part | undefined {
  if (value === undefined) return undefined
  const json = JSON.stringify(value)
  return {
    kind: 'structured',
    lead: isBesideContent ? 'structuredContent:\n' : '',
    text: json,
    block: value,
    weight: 0,
    cost: limit => costOfText(json, limit),
    cutTo: text => ({ type: 'text', text }),
  }
}

function readBlock(block: unknown, index: number): Part {
  const fields = isJsonObject(block) ? block : {}
  const { type, text, data, mimeType } = fields
  const resource = isJsonObject(fields.resource) ? fields.resource : {}
  if (type === 'text' && typeof text === 'string') {
    return toText(block, { lead: '', text, cutTo: shorter => ({ ...fields, text: shorter }) })
  }
  if (type === 'resource' && typeof resource.text === 'string' && resource.blob === undefined) {
    const cutTo = (shorter: string) => ({ ...fields, resource: { ...resource, text: shorter } })
    return toText(block, { lead: `resource ${JSON.stringify(resource.uri ?? '')}:\n`, text: resource.text, cutTo })
  }
  if (type === 'resource_link') {
    return { ...toText(block, { lead: JSON.stringify(block), text: '', cutTo: () => block }), kind: 'whole' }
  }
  if ((type === 'image' || type === 'audio') && typeof data === 'string') {
    const asText = data.length * BASE64_COST
    const cost = type === 'image' ? Math.min(IMAGE_COST, asText) : asText
    return toItem(block, index, { label: label(type, mimeType), length: data.length, cost: () => cost })
  }
  if (type === 'resource' && typeof resource.blob === 'string' && resource.text === undefined) {
    const { uri, blob } = resource
    const cost = () => blob.length * BASE64_COST
    return toItem(block, index, { label: label(type, uri, resource.mimeType), length: blob.length, cost })
  }
  const json = JSON.stringify(block)
  const cost = (limit: number) => costOfText(json, limit)
  return toItem(block, index, { label: label('content', type), length: json.length, cost })
}

function toText(block: unknown, { lead, text, cutTo }: Pick<Part, 'lead' | 'text' | 'cutTo'>): Part {
  const cost = (limit: number) => {
    const before = costOfText(lead, limit)
    return before + costOfText(text, limit - before)
  }
  return { kind: 'text', lead, text, block, weight: 0, cost, cutTo }
}

function toItem(
  block: unknown,
  index: number,
  { label, length, cost }: { label: string; length: number; cost: Part['cost'] },
): Part {
  const lead = `[item ${index}: ${label}, ${length} characters, read whole with "item": ${index}]`
  return { kind: 'item', lead, text: '', block, weight: length, cost, cutTo: () => ({ type: 'text', text: lead }) }
}

/** What a server calls a block, quoted and short. */
const label = (type: string, ...names: readonly unknown[]): string =>
  [type, ...names.filter(name => typeof name === 'string').map(name => JSON.stringify(name.slice(0, 100)))].join(' ')

/** The sum, or something over the limit. */
function costOf(parts: readonly Part[], limit: number): number {
  let sum = 0
  for (const part of parts) {
    sum += part.cost(limit - sum)
    if (sum > limit) break
  }
  return sum
}

/** True when the text is that JSON, or what stands under its only key `result`, as servers do that have to return an object. */
function repeats(content: readonly Part[], { block, text: json }: Part): boolean {
  const texts = content.filter(({ kind }) => kind === 'text').map(({ text }) => text)
  const result = isJsonObject(block) && Object.keys(block).length === 1 ? block.result : undefined
  if (typeof result === 'string') return texts.join('\n') === result
  const [text = ''] = texts
  if (texts.length !== 1 || !/^\s*[[{]/.test(text)) return false
  const parsed = parseJson(text)
  if (!parsed) return false
  const normal = JSON.stringify(parsed.value)
  return normal === json || (result !== undefined && normal === JSON.stringify(result))
}

/** The whole result as text, with a line for every item. */
function toRendered(parts: readonly Part[]): RenderedResult {
  const text = parts.map(({ lead, text }) => lead + text).join('\n')
  const length = parts.reduce((sum, { weight }) => sum + weight, text.length)
  return { text, items: parts.filter(isItem).map(({ block }) => block), length }
}

interface Shortened {
  readonly blocks: readonly unknown[]
  /** The text among them. */
  readonly preview: string
  /** Where in the rendered text the preview ends; null when nothing of it is missing. */
  readonly nextOffset: number | null
  /** What is there whole of the items and `structuredContent`. */
  readonly kept: ReadonlySet<Part>
}

/** What fits, in order. */
function shorten(parts: readonly Part[], budget: number): Shortened {
  const kept = choose(parts, budget)
  let left = budget - costOf([...kept], budget)
  const blocks: unknown[] = []
  const shown: string[] = []
  let nextOffset: number | null = null
  let start = 0
  for (const part of parts) {
    const { kind, lead, text, block, cutTo } = part
    if (kept.has(part)) {
      if (isItem(part)) blocks.push(block)
    } else if (nextOffset === null) {
      const before = measure(lead, 0, left)
      const { end, cost } = before.end < lead.length ? NOTHING : measure(text, 0, left - before.cost)
      const isWhole = before.end === lead.length && end === text.length
      left -= before.cost + cost
      if (isWhole || end > 0) {
        blocks.push(isWhole && (kind === 'text' || kind === 'whole') ? block : cutTo(text.slice(0, end)))
        shown.push(lead + text.slice(0, end))
      }
      if (!isWhole) nextOffset = end > 0 ? start + lead.length + end : start
    }
    start += lead.length + text.length + 1
  }
  return { blocks, preview: shown.join('\n'), nextOffset, kept }
}

const NOTHING = { end: 0, cost: 0 }

/** What is kept whole beside the text: `structuredContent` first, then items in order. */
function choose(parts: readonly Part[], budget: number): ReadonlySet<Part> {
  const spoken = parts.filter(({ kind }) => kind === 'text' || kind === 'whole')
  let room = budget - Math.min(costOf(spoken, budget), Math.floor(budget / 2))
  const kept = new Set<Part>()
  for (const part of [...parts.filter(({ kind }) => kind === 'structured'), ...parts.filter(isItem)]) {
    const cost = part.cost(room)
    if (cost > room) continue
    room -= cost
    kept.add(part)
  }
  return kept
}

interface Cut {
  readonly maxTokens: number
  readonly ticket: Ticket | undefined
  readonly total: number
  readonly nextOffset: number | null
  /** Numbers of items. */
  readonly leftOut: readonly number[]
}

function describeCut({ maxTokens, ticket, total, nextOffset, leftOut }: Cut) {
  const read = (position: object) => `read_result ${JSON.stringify({ ...ticket, ...position })}`
  const sentences = [
    `The whole result has ${total} characters, more than the ${maxTokens} tokens this agent may be given.`,
  ]
  if (!ticket) sentences.push('It is too large to be kept, so the rest cannot be read: call again and ask for less.')
  else {
    if (nextOffset !== null) sentences.push(`Read on with ${read({ offset: nextOffset })}.`)
    const [item] = leftOut
    const more = leftOut.length > NAMED_ITEMS ? ` and ${leftOut.length - NAMED_ITEMS} more` : ''
    const named = `${leftOut.slice(0, NAMED_ITEMS).join(', ')}${more}`
    if (item !== undefined) sentences.push(`Left out whole: item ${named}; read one with ${read({ item })}.`)
  }
  return {
    handle: ticket?.handle ?? null,
    total_characters: total,
    next_offset: ticket ? nextOffset : null,
    notice: `[agent-mcp-gateway cut this result. ${sentences.join(' ')}]`,
  }
}

const toPointer = (description: ReturnType<typeof describeCut>, preview: string) => ({
  truncated: true,
  ...description,
  preview,
})

/**
 * About how many tokens (o200k) a text costs as part of a JSON document: between 0.84 and 1.4 times that for the usual kinds of text,
 * more for capitals and indentation. The tokenizer itself takes 0.2 s for a megabyte of prose and 8 s for one of Chinese; this, 5 ms.
 */
export const estimateTokens = (text: string): number => Math.ceil(costOfText(text, Number.POSITIVE_INFINITY) / 100)

/** How far from `from` so many tokens reach; never into the middle of a surrogate pair. */
export const reachOf = (text: string, from: number, tokens: number): number => measure(text, from, tokens * 100).end

/** True when a text is cut there in the middle of a surrogate pair. */
export const splitsPair = (text: string, at: number): boolean =>
  at > 0 &&
  at < text.length &&
  (text.charCodeAt(at - 1) & 0xfc00) === 0xd800 &&
  (text.charCodeAt(at) & 0xfc00) === 0xdc00

const [SPACE, CONTROL, DIGIT, LOWER, UPPER, QUOTE, SIGN] = [0, 1, 2, 3, 4, 5, 6] as const
// Latin with accents to Arabic; the scripts of India and others; arrows and boxes; East Asia; halves of pairs.
const [NEAR, FAR, SYMBOL, EASTERN, SURROGATE] = [7, 8, 9, 10, 11] as const

// Hundredths of a token for a character after one of another class, and after one of its own: fitted to 48 kinds of text.
const STARTS = [5, 170, 130, 50, 45, 60, 55, 80, 105, 105, 105, 105]
const CONTINUES = [3, 150, 35, 13, 40, 150, 56, 36, 50, 88, 88, 95]
const AFTER_CAPITAL = 130 // Ab
const MIXED = 95 // a1, 1a, A1, 1A: hardly a word

const ASCII = Uint8Array.from({ length: 128 }, (_, code) => {
  if (code === 0x20) return SPACE
  if (code < 0x20 || code === 0x7f) return CONTROL
  if (code >= 0x30 && code <= 0x39) return DIGIT
  if (code >= 0x61 && code <= 0x7a) return LOWER
  if (code >= 0x41 && code <= 0x5a) return UPPER
  return code === 0x22 || code === 0x5c ? QUOTE : SIGN
})

function classOf(code: number): number {
  if (code < 0x80) return ASCII[code] ?? SIGN
  if (code < 0x900) return NEAR
  if (code < 0x2000) return FAR
  if (code < 0x3000) return SYMBOL
  return code >= 0xd800 && code < 0xe000 ? SURROGATE : EASTERN
}

// By the class before (the last row: none) and the class of the character.
const NONE = STARTS.length
const PRICES = Uint8Array.from({ length: (NONE + 1) * NONE }, (_, at) => priceOf(at % NONE, Math.floor(at / NONE)))

function priceOf(kind: number, before: number): number {
  const start = STARTS[kind] ?? 0
  if (before === kind) return CONTINUES[kind] ?? start
  if (before === UPPER && kind === LOWER) return AFTER_CAPITAL
  const isMixed = isAlphanumeric(before) && isAlphanumeric(kind) && (before === DIGIT || kind === DIGIT)
  return isMixed ? MIXED : start
}

function isAlphanumeric(kind: number): boolean {
  return kind === DIGIT || kind === LOWER || kind === UPPER
}

function costOfText(text: string, limit: number): number {
  const { end, cost } = measure(text, 0, limit)
  return end < text.length ? limit + 1 : cost
}

/** Hundredths of a token from `from` on, up to the last character that keeps within the limit. */
function measure(text: string, from: number, limit: number): { end: number; cost: number } {
  let cost = 0
  let before: number = NONE
  let at = from
  for (; at < text.length; at++) {
    const kind = classOf(text.charCodeAt(at))
    const more = PRICES[before * NONE + kind] as number
    if (cost + more > limit) break
    cost += more
    before = kind
  }
  return { end: splitsPair(text, at) ? at - 1 : at, cost }
}
