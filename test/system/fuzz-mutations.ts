import { mutateBody, mutateText, textOf } from './fuzz-body-mutations.js'
import { badCredential, type Header, type Tokens } from './fuzz-credentials.js'
import { mutateHeaders, mutateMethod, mutateTarget } from './fuzz-head-mutations.js'
import type { Random } from './fuzz-random.js'
import { type BrokenRequest, type DraftRequest, FRAMINGS } from './fuzz-requests.js'

/** A request in bytes, and what may be expected of its answer. */
export interface WireRequest {
  readonly kind: string
  readonly target: string
  /** Its body, however that is framed; one character a byte. */
  readonly text: string
  readonly bytes: Buffer
  readonly isHead: boolean
  readonly mayStayOpen: boolean
  readonly isRaw: boolean
  readonly hangsUp: boolean
}

export interface MutationOptions {
  readonly random: Random
  readonly tokens: Tokens
  readonly host: string
}

/** Puts a request into bytes, with a few things changed that should not be; some are left as they are. */
export function mutate(draft: DraftRequest, { random, tokens, host }: MutationOptions): WireRequest {
  const isLetIn = random.chance(0.65)
  const credential: Header[] = isLetIn
    ? [['Authorization', `Bearer ${tokens.attacker}`]]
    : badCredential(random, tokens)
  const headers: Header[] = [['Host', host], ...credential, ...draft.headers]
  const request: BrokenRequest = { ...draft, headers, text: undefined, framing: 'length', isRaw: false, hangsUp: false }
  const isPlain = random.chance(isLetIn ? 0.2 : 0.5)
  const count = isPlain ? 0 : random.pick([1, 1, 1, 2, 3])
  const kinds = Array.from({ length: count }, () => random.pick(MUTATIONS))
  // What is JSON is changed before its text is.
  kinds.sort((a, b) => MUTATIONS.indexOf(a) - MUTATIONS.indexOf(b))
  for (const change of kinds) change(request, random)
  const kind = `${isLetIn ? 'let in' : 'kept out'}, ${isPlain ? 'plain' : 'mutated'}: ${request.kind}`
  return { kind, ...toBytes(request, random) }
}

const MUTATIONS: readonly ((request: BrokenRequest, random: Random) => void)[] = [
  ...Array.from({ length: 7 }, () => mutateBody),
  mutateText,
  mutateHeaders,
  mutateHeaders,
  mutateTarget,
  mutateMethod,
  mutateFraming,
]

function mutateFraming(request: BrokenRequest, random: Random): void {
  request.framing = random.pick(FRAMINGS)
  request.isRaw ||= request.framing !== 'chunked' && request.framing !== 'length'
  request.hangsUp = request.framing === 'long' || random.chance(0.1)
  request.isRaw ||= request.hangsUp
}

function toBytes(request: BrokenRequest, random: Random): Omit<WireRequest, 'kind'> {
  const { method, target, headers, framing, hangsUp } = request
  const body = textOf(request)
  const hasBody = request.body !== undefined || request.text !== undefined
  const length = (bytes: number | string): Header => ['Content-Length', String(bytes)]
  const chunked: Header = ['Transfer-Encoding', 'chunked']
  const framings: Record<BrokenRequest['framing'], Header[]> = {
    length: hasBody ? [length(body.length)] : [],
    chunked: [chunked],
    short: [length(Math.floor(body.length / 2))],
    long: [length(body.length + random.pick([1, 100, 10_000_000]))],
    both: [length(body.length), chunked],
    twice: [length(body.length), length(random.pick(['0', '-1', `${body.length}, ${body.length}`, '1e1']))],
    none: [],
    pipelined: [length(body.length)],
  }
  const isChunked = framing === 'chunked' || framing === 'both'
  const lines = [...headers, ...framings[framing]].map(([name, value]) => `${name}: ${value}\r\n`)
  const head = `${method} ${target} HTTP/1.1\r\n${lines.join('')}\r\n`
  const bytes = Buffer.concat([Buffer.from(head, 'latin1'), isChunked ? toChunks(body, random) : body])
  const sent = framing === 'pipelined' ? Buffer.concat([bytes, bytes]) : bytes
  const text = body.toString('latin1')
  return {
    target,
    text,
    bytes: hangsUp && random.chance(0.5) ? sent.subarray(0, random.below(sent.length)) : sent,
    isHead: method === 'HEAD',
    mayStayOpen: method === 'GET' || text.includes('subscriptions/listen'),
    isRaw: request.isRaw,
    hangsUp,
  }
}

function toChunks(body: Buffer, random: Random): Buffer {
  const middle = random.below(body.length + 1)
  const chunks = [body.subarray(0, middle), body.subarray(middle)].filter(({ length }) => length > 0)
  const parts = chunks.flatMap(chunk => [Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n')])
  return Buffer.concat([...parts, Buffer.from('0\r\n\r\n')])
}
