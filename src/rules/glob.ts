/** A compiled pattern: does this name match? */
export type Matcher = (name: string) => boolean

/** A piece of a pattern: any run of items, or one of a kind. */
export type Part = { readonly kind: 'many' } | { readonly kind: 'one'; readonly matches: (item: string) => boolean }

/** Text that may be a glob, or text that stands for itself whatever it looks like. */
export type GlobPiece = string | { readonly literal: string }

/** True when the text means more than itself. */
export const isGlob = (text: string): boolean => /[*?[]/.test(text)

/**
 * Compiles a glob over names: `*` any run of characters, `?` one, `[abc]`, `[a-z]`, `[!a]` one of a set; case-sensitive.
 *
 * Not a path glob on purpose: the libraries for paths let `*` stop at `/`, `..` and line breaks, which a hostile backend
 * could put into a tool name to slip past a deny rule. Matching is O(pattern × name), so a name cannot stall it either.
 */
export function compileGlob(pattern: string): Matcher {
  if (!isGlob(pattern)) return name => name === pattern
  return matcherOf(parse(pattern))
}

/** The same of several pieces. */
export function compilePieces(pieces: readonly GlobPiece[]): Matcher {
  if (pieces.every(piece => typeof piece !== 'string' || !isGlob(piece))) {
    const text = pieces.map(piece => (typeof piece === 'string' ? piece : piece.literal)).join('')
    return name => name === text
  }
  return matcherOf(pieces.flatMap(piece => (typeof piece === 'string' ? parse(piece) : literally(piece.literal))))
}

function matcherOf(parts: readonly Part[]): Matcher {
  return parts.every(part => part.kind === 'many') ? () => true : name => matchesInOrder(parts, [...name])
}

const literally = (text: string): Part[] =>
  [...text].map(character => ({ kind: 'one', matches: candidate => candidate === character }))

function parse(pattern: string): Part[] {
  const characters = [...pattern]
  const parts: Part[] = []
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] ?? ''
    const end = character === '[' ? endOfSet(characters, at) : -1
    if (character === '*') parts.push({ kind: 'many' })
    else if (character === '?') parts.push({ kind: 'one', matches: () => true })
    else if (end > 0) {
      parts.push({ kind: 'one', matches: compileSet(characters.slice(at + 1, end)) })
      at = end
    } else parts.push({ kind: 'one', matches: candidate => candidate === character })
  }
  return parts
}

/** The index of the `]` that ends the set, or -1 when the `[` is a character like any other. A `]` in first place is a member. */
function endOfSet(characters: readonly string[], start: number): number {
  const negated = characters[start + 1] === '!' || characters[start + 1] === '^'
  return characters.indexOf(']', start + (negated ? 3 : 2))
}

function compileSet(set: readonly string[]): (character: string) => boolean {
  const negated = set[0] === '!' || set[0] === '^'
  const members = negated ? set.slice(1) : set
  const ranges: [from: string, to: string][] = []
  for (let at = 0; at < members.length; at++) {
    const from = members[at] ?? ''
    const to = members[at + 1] === '-' ? members[at + 2] : undefined
    ranges.push([from, to ?? from])
    if (to !== undefined) at += 2
  }
  return character => ranges.some(([from, to]) => from <= character && character <= to) !== negated
}

/** Greedy with one step back: only the last `*` is ever reconsidered. */
export function matchesInOrder(parts: readonly Part[], name: readonly string[]): boolean {
  let part = 0
  let at = 0
  let star = -1
  let resume = 0
  while (at < name.length) {
    const current = parts[part]
    if (current?.kind === 'many') {
      star = part++
      resume = at
    } else if (current?.matches(name[at] ?? '')) {
      part++
      at++
    } else if (star >= 0) {
      part = star + 1
      at = ++resume
    } else return false
  }
  while (parts[part]?.kind === 'many') part++
  return part === parts.length
}
