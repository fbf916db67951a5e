import { compilePieces, type GlobPiece, matchesInOrder, type Part } from './glob.js'

/** A path as far as its text tells: without `.`, `..` and empty segments. */
export interface PlainPath {
  readonly segments: readonly string[]
  readonly isAbsolute: boolean
}

/**
 * Compiles a pattern for paths: `*`, `?` and sets stay within a segment, `**` is any number of segments, none included. One that
 * begins with `**` matches wherever a path begins.
 */
export function compilePath(
  segments: readonly (readonly GlobPiece[])[],
  isAbsolute: boolean,
): (path: PlainPath) => boolean {
  const parts = segments.map(
    (segment): Part =>
      segment.length === 1 && segment[0] === '**' ? { kind: 'many' } : { kind: 'one', matches: compilePieces(segment) },
  )
  const isAnywhere = !isAbsolute && parts[0]?.kind === 'many'
  return path => (isAnywhere || path.isAbsolute === isAbsolute) && matchesInOrder(parts, path.segments)
}

/**
 * Where a path leads, in each way that a server may read it: as it is written, and with blanks around it taken off, percent
 * escapes decoded and backslashes as slashes. Undefined where that cannot be told: it climbs above where it begins, hides a `..`
 * in one of these ways, is a URL with a `..`, or has control characters in it.
 */
export function readingsOf(text: string): readonly [PlainPath, ...PlainPath[]] | undefined {
  const written = readPath(text)
  const revealed = reveal(text)
  if (!written || revealed === text) return written && [written]
  const other = readPath(revealed)
  return other && climbsIn(text) === climbsIn(revealed) ? [written, other] : undefined
}

/** Whether a `..` is a segment of the text, however it is written. */
export const hasClimb = (text: string): boolean =>
  text.includes('..') || text.includes('%') ? climbsIn(reveal(text)) > 0 : false

export const toText = ({ segments, isAbsolute }: PlainPath): string => (isAbsolute ? '/' : '') + segments.join('/')

const URL_LIKE = /^[a-z][a-z0-9+.-]*:\/\//i
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const CONTROL = /[\x00-\x1f\x7f]/

function readPath(text: string): PlainPath | undefined {
  if (CONTROL.test(text)) return undefined
  if (URL_LIKE.test(text)) return readUrl(text)
  const isAbsolute = text.startsWith('/')
  const segments: string[] = []
  for (const segment of text.split('/')) {
    if (segment === '' || segment === '.') continue
    if (segment !== '..') segments.push(segment)
    else if (segments.pop() === undefined && !isAbsolute) return undefined
  }
  return { segments, isAbsolute }
}

/** What a `..` does to a URL is for whoever fetches it to say. */
function readUrl(text: string): PlainPath | undefined {
  const [path = ''] = text.split(/[?#]/, 1)
  if (path.split(/[/\\]/).some(segment => segment === '..' || segment.startsWith('..;'))) return undefined
  return { segments: text.split('/').filter(segment => segment !== '' && segment !== '.'), isAbsolute: false }
}

// Servers decode once, some of them twice.
const MAX_DECODINGS = 4

function reveal(text: string): string {
  let revealed = text.trim()
  for (let round = 0; round < MAX_DECODINGS && revealed.includes('%'); round++) {
    revealed = revealed.replace(/%([0-7][0-9a-f])/gi, (_, code: string) =>
      String.fromCharCode(Number.parseInt(code, 16)),
    )
  }
  return revealed.replaceAll('\\', '/')
}

const climbsIn = (text: string): number => text.split('/').filter(segment => segment === '..').length
