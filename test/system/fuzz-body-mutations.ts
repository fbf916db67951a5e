import type { Random } from './fuzz-random.js'
import type { BrokenRequest } from './fuzz-requests.js'

const NUMBERS = [0, -1, 1, 1.5, 2 ** 31, 2 ** 53, -(2 ** 63), 1e308, 5e-324]
const TEXTS = [
  '',
  ' ',
  '\u0000',
  '\ud800',
  '\udfff\ud800',
  '\u202e',
  '__proto__',
  'constructor',
  'toString',
  '../../etc/passwd',
  '*',
  '[a-',
  '${HOME}',
  '%00',
  '2026-07-28',
  '1',
  'null',
  '{"a":1}',
  '['.repeat(50_000),
  'a'.repeat(10_000),
  '(a+)+$'.repeat(20),
]

function oddValue(random: Random): unknown {
  return random.pick<() => unknown>([
    () => null,
    () => random.chance(0.5),
    () => random.pick(NUMBERS),
    () => random.pick(TEXTS),
    () => random.bytes(8).toString('latin1'),
    () => ({}),
    () => [],
    () => [random.pick(TEXTS), random.pick(NUMBERS), null],
    () => ({ toString: 1, valueOf: null, toJSON: 'x', length: 1e9 }),
    () => ({ toString: 'x', valueOf: 'y' }),
    () => ({ toString: 1, valueOf: 2 }),
    () => JSON.parse('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}'),
    () => deep(random.pick([10, 300, 900]), random),
    () => Array.from({ length: random.pick([2, 101, 2_000]) }, (_, index) => index),
    () => Object.fromEntries(Array.from({ length: 300 }, (_, index) => [`k${index}`, index])),
  ])()
}

function deep(depth: number, random: Random): unknown {
  const isList = random.chance(0.5)
  let value: unknown = 1
  for (let level = 0; level < depth; level++) value = isList ? [value] : { a: value }
  return value
}

const KEYS = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'id',
  'jsonrpc',
  'method',
  'params',
  '_meta',
  'name',
  'arguments',
  'args',
  'result',
  'error',
  'inputResponses',
  'requestState',
  'progressToken',
  'agent_id',
  'cursor',
  '',
  'x'.repeat(500),
]

type Container = Record<string, unknown> | unknown[]
interface Place {
  readonly within: Container
  readonly key: string
}

// Without these being right a request does not get far.
const SELDOM = /^(jsonrpc|method|_meta|io\.modelcontextprotocol.+)$/

/** What in a JSON value could be something else. */
function placesIn(value: unknown, random: Random, places: Place[] = []): Place[] {
  if (typeof value !== 'object' || value === null) return places
  for (const [key, inner] of Object.entries(value)) {
    if (SELDOM.test(key) && random.chance(0.8)) continue
    places.push({ within: value as Container, key })
    if (places.length < 200) placesIn(inner, random, places)
  }
  return places
}

/** Never `within[key] = value`, which would take `__proto__` for something else than a name. */
function put({ within, key }: Place, value: unknown): void {
  Object.defineProperty(within, key, { value, enumerable: true, configurable: true, writable: true })
}

const valueAt = ({ within, key }: Place): unknown => Reflect.get(within, key)
// A value that held itself would be no JSON.
const copyOf = (value: unknown): unknown => JSON.parse(JSON.stringify(value) ?? 'null')

/** Puts something else in one place of the JSON. */
export function mutateBody(request: BrokenRequest, random: Random): void {
  const root = { body: request.body }
  if (request.body === undefined) return
  const [whole, ...parts] = placesIn(root, random)
  const place = parts.length === 0 || random.chance(0.03) ? (whole as Place) : random.pick(parts)
  const before = valueAt(place)
  random.pick<() => void>([
    ...Array.from({ length: 6 }, () => () => put(place, oddValue(random))),
    () => void Reflect.deleteProperty(place.within, place.key),
    () => put({ within: place.within, key: random.pick(KEYS) }, before),
    () => put({ within: place.within, key: random.pick(KEYS) }, oddValue(random)),
    () => put(place, [before]),
    () => put(place, { [random.pick(KEYS)]: before }),
    () => put(place, JSON.stringify(before)),
    () => put(place, copyOf(valueAt(random.pick([place, ...parts])))),
    () => put(place, typeof before === 'string' ? before.toUpperCase() : String(JSON.stringify(before))),
  ])()
  request.body = root.body
}

export const textOf = ({ body, text }: BrokenRequest): Buffer =>
  text ?? Buffer.from(body === undefined ? '' : JSON.stringify(body))

const STRAY = ['\ufeff', '\u0000', '\n', ',', '"', '}', ']', '\\u', '\\ud83d', '1e99999', '-', '/**/']
const NO_UTF8 = [
  [0xc3, 0x28],
  [0xed, 0xa0, 0x80],
  [0xff, 0xfe],
  [0xf4, 0x90, 0x80, 0x80],
]
const NO_NUMBERS = ['1e400', '-1e400', '0.1e-400', '9'.repeat(400), '-0', '01', '+1', 'NaN', '0x1']
const TOO_LARGE = 4 * 2 ** 20 + 1

/** Makes something else of the text, whatever it means. */
export function mutateText(request: BrokenRequest, random: Random): void {
  const before = textOf(request)
  const text = before.toString('utf8')
  const at = random.below(before.length + 1)
  const insert = (bytes: Buffer | string) =>
    Buffer.concat([before.subarray(0, at), Buffer.from(bytes), before.subarray(at)])
  request.text = random.pick<() => Buffer>([
    () => before.subarray(0, at),
    () => before.subarray(at),
    () => flipped(before, random),
    () => insert(random.bytes(1 + random.below(8))),
    () => insert(random.pick(STRAY)),
    () => insert(Buffer.from(random.pick(NO_UTF8))),
    () => Buffer.from(text.replace('{', `{"${random.pick(KEYS)}":${JSON.stringify(oddValue(random))},`)),
    () => Buffer.from(text.replace(/"(\w)(\w*)":/, (_, first: string, rest: string) => `"${escaped(first)}${rest}":`)),
    () => Buffer.from(text.replace(/:(?=["{[\d])/, `:${'['.repeat(random.pick([1, 1_100, 100_000]))}`)),
    () => Buffer.from(text.replace(/":("[^"]*"|\d+)/, `":${'[{"a":'.repeat(random.pick([400, 700, 50_000]))}1`)),
    () => Buffer.from(nest(text, random.pick([990, 1_001, 60_000]))),
    () => Buffer.from(text.replace(/:(\d+|"[^"]*")/, `:${random.pick(NO_NUMBERS)}`)),
    () => Buffer.concat([before, before]),
    () => Buffer.from(text, 'utf16le'),
    () => Buffer.from(`\ufeff${text}`),
    () => Buffer.from(`${' '.repeat(20_000)}${text}${'\n'.repeat(20_000)}`),
    () => random.bytes(random.below(300)),
    () => Buffer.alloc(0),
    () => (random.chance(0.1) ? Buffer.alloc(TOO_LARGE + random.below(2 ** 20), `${text} `) : before.subarray(0, 1)),
  ])()
}

function flipped(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes)
  for (let left = 1 + random.below(4); left > 0 && copy.length > 0; left--)
    copy[random.below(copy.length)] = random.below(256)
  return copy
}

const escaped = (character: string): string => `\\u00${character.charCodeAt(0).toString(16)}`

/** The first value in a text inside many brackets, closed as they should be. */
const nest = (text: string, depth: number): string =>
  text.replace(/:("[^"]*"|\d+)/, (_, value: string) => `:${'['.repeat(depth)}${value}${']'.repeat(depth)}`)
