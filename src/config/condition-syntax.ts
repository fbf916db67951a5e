/** One step into the arguments of a call, or into the claims of a token. */
export type Step = { readonly key: string } | { readonly index: number } | 'each'

/** What of the caller a pattern may name. */
export type Placeholder =
  | { readonly of: 'name' | 'id' }
  | { readonly of: 'claims'; readonly path: readonly [Step, ...Step[]] }

/** A pattern for a value: text that may be a glob, and places for what is known of the caller. */
export type Template = readonly (string | Placeholder)[]

/** A value in `when`: one pattern or several, of which one has to fit. */
export type ArgumentPattern = string | number | boolean

const STEP = /\.?([^.[\]"]+)|\[(\d+)\]|\[(\*)\]|\[("(?:[^"\\]|\\.)*")\]/y

/** `labels[0]`, `a.b`, `items[*].path`, `["a.b"].c`; a text says what is wrong. */
export function parseArgumentPath(text: string): readonly [Step, ...Step[]] | string {
  const steps: Step[] = []
  STEP.lastIndex = 0
  for (let at = 0; at < text.length; at = STEP.lastIndex) {
    const found = STEP.exec(text)
    const hasDot = text[at] === '.'
    const isKey = found?.[1] !== undefined
    if (!found || hasDot !== (isKey && steps.length > 0)) return NOT_A_PATH
    const step = toStep(found)
    if (step === undefined) return NOT_A_PATH
    steps.push(step)
  }
  const [first, ...rest] = steps
  return first === undefined ? NOT_A_PATH : [first, ...rest]
}

const NOT_A_PATH = 'is not a path into the arguments, like "repo", "a.b", "labels[0]", "labels[*]" or ["a.b"]'

function toStep([, key, index, each, quoted]: RegExpExecArray): Step | undefined {
  if (key !== undefined) return { key }
  if (index !== undefined) return { index: Number(index) }
  if (each !== undefined) return 'each'
  try {
    return { key: JSON.parse(quoted ?? '') }
  } catch {
    return undefined
  }
}

/** Takes `${principal.…}` apart; `$${` is a literal `${`. A text says what is wrong. */
export function parseTemplate(text: string): Template | string {
  const pieces: (string | Placeholder)[] = []
  let literal = ''
  let rest = text
  for (;;) {
    const at = rest.indexOf('${')
    if (at < 0) break
    if (at > 0 && rest[at - 1] === '$') {
      literal += `${rest.slice(0, at - 1)}\${`
      rest = rest.slice(at + 2)
      continue
    }
    const end = rest.indexOf('}', at)
    const placeholder = end < 0 ? undefined : toPlaceholder(rest.slice(at + 2, end))
    if (!placeholder) return `has a placeholder nobody knows: there are ${PLACEHOLDERS}, and $\${ for a literal \${`
    literal += rest.slice(0, at)
    if (literal !== '') pieces.push(literal)
    pieces.push(placeholder)
    literal = ''
    rest = rest.slice(end + 1)
  }
  literal += rest
  if (literal !== '') pieces.push(literal)
  return problemWithPath(pieces) ?? pieces
}

const PLACEHOLDERS = '$' + '{principal.name}, $' + '{principal.id} and $' + '{principal.claims.NAME}'

function toPlaceholder(text: string): Placeholder | undefined {
  if (text === 'principal.name') return { of: 'name' }
  if (text === 'principal.id') return { of: 'id' }
  const path = /^principal\.claims(?:\.(?!\[)|(?=\[))(.+)$/s.exec(text)?.[1]
  const steps = path === undefined ? NOT_A_PATH : parseArgumentPath(path)
  return typeof steps === 'string' || steps.includes('each') ? undefined : { of: 'claims', path: steps }
}

/** A pattern with a slash is one for paths: there a star stays within its segment. */
export const isPathTemplate = (template: Template): boolean =>
  template.some(piece => typeof piece === 'string' && piece.includes('/'))

/** The segments of a pattern for paths, empty ones and `.` left out as they are in what it is compared with. */
export function segmentsOf<Other extends object>(
  pieces: readonly (string | Other)[],
): readonly (readonly (string | Other)[])[] {
  const segments: (string | Other)[][] = [[]]
  for (const piece of pieces) {
    const [first, ...others] = typeof piece === 'string' ? piece.split('/') : [piece]
    if (first !== undefined && first !== '') segments.at(-1)?.push(first)
    for (const other of others) segments.push(other === '' ? [] : [other])
  }
  return segments.filter(segment => segment.length > 0 && !(segment.length === 1 && segment[0] === '.'))
}

function problemWithPath(template: Template): string | undefined {
  if (!isPathTemplate(template)) return undefined
  for (const segment of segmentsOf(template)) {
    if (segment.length === 1 && segment[0] === '..') return 'can never match: paths are compared without ".."'
    const isWhole = segment.length === 1 && segment[0] === '**'
    if (!isWhole && segment.some(piece => typeof piece === 'string' && piece.includes('**')))
      return '"**" stands for whole segments of a path: put a slash around it, or write "*"'
  }
  return undefined
}
