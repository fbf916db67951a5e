import { isUtf8 } from 'node:buffer'
import { segmentsOf } from '../config/condition-syntax.js'
import { compilePieces, type GlobPiece, matchesInOrder, type Part } from './glob.js'

/** A path as far as its text tells: without `.`, `..` and empty segments. */
export interface PlainPath {
  readonly kind: 'relative' | 'absolute' | 'url'
  /** Of a URL the scheme and the authority come first, in lower case. */
  readonly segments: readonly string[]
}

/**
 * Compiles a pattern for paths: `*`, `?` and sets stay within a segment, `**` is any number of segments, none included. One that
 * begins with `**` matches wherever a path begins.
 */
export function compilePath(pieces: readonly GlobPiece[]): (path: PlainPath) => boolean {
  const shape = pieces.map(piece => (typeof piece === 'string' ? piece : 'x')).join('')
  const kind = URL_PATTERN.test(shape) ? 'url' : shape.startsWith('/') ? 'absolute' : 'relative'
  const segments = segmentsOf(pieces)
  const parts = kind === 'url' ? toUrlParts(segments, NO_AUTHORITY.test(shape)) : segments.map(toPart)
  const isAnywhere = kind === 'relative' && parts[0]?.kind === 'many'
  return path => (isAnywhere || path.kind === kind) && matchesInOrder(parts, path.segments)
}

const URL_PATTERN = /^[\w+.:*?[\]!-]*:\/\//
const NO_AUTHORITY = /:\/\/(?:\/|$)/

type Segment = readonly GlobPiece[]

const isMany = (segment: Segment): boolean => segment.length === 1 && segment[0] === '**'

const toPart = (segment: Segment): Part =>
  isMany(segment) ? { kind: 'many' } : { kind: 'one', matches: compilePieces(segment) }

function toUrlParts([scheme = [], ...others]: readonly Segment[], hasNoAuthority: boolean): Part[] {
  const [authority = [], ...path] = hasNoAuthority ? [[], ...others] : others
  const host: Part = isMany(authority) ? { kind: 'many' } : { kind: 'one', matches: compileAuthority(authority) }
  return [toPart(inLowerCase(scheme)), host, ...path.map(toPart)]
}

/** Its wildcards stand for what names are made of: a `#`, `@`, `:` or `\` among it may end the host, or begin it. */
function compileAuthority(segment: Segment): (authority: string) => boolean {
  const matches = compilePieces(inLowerCase(segment))
  const plain = segment.map(piece => (typeof piece === 'string' ? piece.replace(WILDCARDS, '') : piece.literal))
  const delimiters = delimitersIn(plain.join(''))
  return authority => delimitersIn(authority) === delimiters && matches(authority)
}

const WILDCARDS = /\[[^\]]*\]|[*?]/g

const delimitersIn = (authority: string): number => authority.replace(/[\w.~-]/g, '').length

const inLowerCase = (segment: Segment): Segment =>
  segment.map(piece => (typeof piece === 'string' ? piece.toLowerCase() : { literal: piece.literal.toLowerCase() }))

/**
 * Where a path leads, in each way that a server may read it: as it is written, and with blanks around it taken off, percent
 * escapes decoded and backslashes as slashes. Undefined where that cannot be told: it climbs above where it begins, hides a `..`
 * in one of these ways, is a URL with a `..` or one that cannot be parsed, has control characters in it, or escapes that are no
 * UTF-8 or are encoded over and over.
 */
export function readingsOf(text: string): readonly [PlainPath, ...PlainPath[]] | undefined {
  const written = readPath(text)
  const revealed = decode(text)
  if (!written || ESCAPE.test(revealed)) return undefined
  if (revealed === text) return [written]
  const other = readPath(revealed)
  return other && climbsIn(text) === climbsIn(revealed) ? [written, other] : undefined
}

/** With those that only some servers have of it: a URL as a browser takes it, however it is spelled, and what a `file:` URL names. */
export function allReadingsOf(text: string): readonly PlainPath[] | undefined {
  const readings = readingsOf(text)
  return (
    readings && [...readings, ...readings.flatMap(readAuthorityLoosely), ...[text, decode(text)].flatMap(asFetched)]
  )
}

/** Whether a `..` is a segment of the text, however it is written. */
export function hasClimb(text: string): boolean {
  if (!text.includes('..') && !text.includes('%')) return false
  const decoded = decode(text)
  return climbsIn(decoded) > 0 || HIDDEN.test(decoded)
}

export function toText({ kind, segments }: PlainPath): string {
  const [scheme = '', ...others] = segments
  if (kind === 'url') return `${scheme}//${others.join('/')}`
  return (kind === 'absolute' ? '/' : '') + segments.join('/')
}

const URL_TEXT = /^([a-z][a-z0-9+.:-]*:)\/\/([^/]*)(.*)$/is
// One letter is a drive.
const SCHEME = /^[a-z][a-z0-9+.-]+:/i
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const CONTROL = /[\x00-\x1f\x7f]/

function readPath(text: string): PlainPath | undefined {
  if (CONTROL.test(text)) return undefined
  const url = URL_TEXT.exec(text)
  // What a `..` does to a URL is for whoever fetches it to say.
  if ((url || SCHEME.test(text)) && URL_CLIMB.test(text)) return undefined
  if (url) return readUrl(url)
  const isAbsolute = text.startsWith('/')
  const segments: string[] = []
  for (const segment of text.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment !== '..') segments.push(segment)
    else if (segments.pop() === undefined && !isAbsolute) return undefined
  }
  return { kind: isAbsolute ? 'absolute' : 'relative', segments }
}

const URL_CLIMB = /(?:^|[/\\?#:])\.\.(?:$|[/\\?#;])/

function readUrl([text, scheme = '', authority = '', path = '']: RegExpExecArray): PlainPath | undefined {
  if (!URL.canParse(text)) return undefined
  return { kind: 'url', segments: [scheme.toLowerCase(), authority.toLowerCase(), ...segmentsIn(path)] }
}

const segmentsIn = (path: string): string[] => path.split('/').filter(segment => segment !== '' && segment !== '.')

/** A host without who logs in there, and a URL taken for a path. */
function readAuthorityLoosely({ kind, segments }: PlainPath): PlainPath[] {
  if (kind !== 'url') return []
  const [scheme = '', authority = '', ...path] = segments
  return [
    { kind, segments: [scheme, authority.slice(authority.lastIndexOf('@') + 1), ...path] },
    { kind: 'relative', segments: segments.filter(segment => segment !== '') },
  ]
}

/** As the URL standard has it (https://url.spec.whatwg.org), which takes `https:\host` and full-width dots too. */
function asFetched(text: string): PlainPath[] {
  if (!URL.canParse(text)) return []
  const { protocol, host, pathname, search, hash } = new URL(text)
  const path = segmentsIn(decode(pathname + search + hash))
  const url: PlainPath = { kind: 'url', segments: [protocol, host.replace(/\.(?=:|$)/, ''), ...path] }
  return protocol === 'file:' ? [url, { kind: 'absolute', segments: path }] : [url]
}

// Servers decode once, some of them twice.
const MAX_DECODINGS = 4
const ESCAPES = /%[0-7][0-9a-f]|(?:%[89a-f][0-9a-f]){2,}/gi
const ESCAPE = /%(?:[0-9a-f]{2}|u[0-9a-f]{4})/i
/** An ASCII character that is still escaped, or takes more bytes than it has. */
const HIDDEN = /%(?:[0-7][0-9a-f]|c[01]%[89ab]|e0%[89]|f[08c]%8)/i

function decode(text: string): string {
  let decoded = text.trim()
  for (let round = 0; round < MAX_DECODINGS && decoded.includes('%'); round++) {
    decoded = decoded.replace(ESCAPES, unescaped)
  }
  return decoded.replaceAll('\\', '/')
}

/** What is no UTF-8 stays as it is. */
function unescaped(escapes: string): string {
  if (escapes.length === 3) return String.fromCharCode(Number.parseInt(escapes.slice(1), 16))
  const bytes = Buffer.from(escapes.replaceAll('%', ''), 'hex')
  return isUtf8(bytes) ? bytes.toString() : escapes
}

const climbsIn = (text: string): number => text.split('/').filter(segment => segment === '..').length
