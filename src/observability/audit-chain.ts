import { hash } from 'node:crypto'
import { isJsonObject, parseJson } from '../json.js'

/** The last line of a log, as the next one names it. */
export interface Link {
  readonly seq: number
  /** Of the line's bytes, without the line break; null before the first line of all. */
  readonly hash: string | null
}

export const START: Link = { seq: 0, hash: null }

export const hashOf = (line: string | Buffer): string => hash('sha256', line, 'base64url')

/** What a line may say beside its event. */
export interface Remarks {
  /** It is the first of a file that goes on where another one ended. */
  readonly continues?: boolean
  /** So many lines before it were given up, because they could not be written for too long. */
  readonly lost?: number
}

/** An event, which is a JSON object, as the line that follows `last`. */
export function chain(event: string, last: Link, { continues, lost }: Remarks = {}): { line: string; link: Link } {
  const seq = last.seq + 1
  const remarks = `${continues ? ',"continues":true' : ''}${lost ? `,"lost":${lost}` : ''}`
  const line = `${event.slice(0, -1)},"seq":${seq},"prev":${JSON.stringify(last.hash)}${remarks}}`
  return { line, link: { seq, hash: hashOf(line) } }
}

export interface ChainedLine {
  readonly seq: number
  readonly prev: string | null
  readonly continues: boolean
}

/** What a line says about its place; `unchained` for one from before there was a chain, undefined for what is no line of a log. */
export function readChained(text: string): ChainedLine | 'unchained' | undefined {
  const value = parseJson(text)?.value
  if (!isJsonObject(value)) return undefined
  const { seq, prev, continues } = value
  if (seq === undefined && prev === undefined && typeof value.operation === 'string') return 'unchained'
  if (!Number.isSafeInteger(seq) || (prev !== null && typeof prev !== 'string')) return undefined
  return { seq: seq as number, prev, continues: continues === true }
}
