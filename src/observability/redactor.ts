/** Removes known secret values from any text that leaves the process sideways: logs, audit lines, a child's stderr in an error. */
export interface Redactor {
  /** Takes out everything that is known; for logs. */
  redact(text: string): string
  /**
   * Takes out what the configuration and one source know; for what is said about that source. What a server chose for a secret must
   * not black out words in what is said about others.
   */
  scopedTo(source: string): (text: string) => string
  /** Replaces what is known from one source: CONFIGURATION, or a server by its name. */
  learn(source: string, secrets: readonly string[]): void
}

/** No server has this name. */
export const CONFIGURATION = ''

const MARK = '[redacted]'
// Shorter values ("1", "true", "dev") are not secrets, and removing them would make a log unreadable.
const MIN_SECRET_LENGTH = 8

export function createRedactor(): Redactor {
  const known = new Map<string, readonly string[]>()
  const forms = new Map<string | undefined, readonly string[]>()

  function formsOf(source: string | undefined): readonly string[] {
    const remembered = forms.get(source)
    if (remembered) return remembered
    const sources = source === undefined ? [...known.keys()] : [CONFIGURATION, source]
    const found = toForms(sources.flatMap(name => known.get(name) ?? []))
    forms.set(source, found)
    return found
  }
  // Not by a regular expression of all of them: there is a limit to its size, and servers choose the size of tokens.
  const redactWith = (text: string, source?: string): string =>
    formsOf(source).reduce((rest, form) => (rest.includes(form) ? rest.replaceAll(form, () => MARK) : rest), text)
  return {
    redact: text => redactWith(text),
    scopedTo: source => text => redactWith(text, source),
    learn(source, secrets) {
      known.set(source, secrets)
      forms.clear()
    },
  }
}

/** The longest first: a secret that contains another one is removed whole. */
function toForms(secrets: readonly string[]): readonly string[] {
  const found = new Set(secrets.filter(secret => secret.length >= MIN_SECRET_LENGTH).flatMap(writtenForms))
  return [...found].sort((a, b) => b.length - a.length)
}

/** A secret as it is, as it stands inside JSON, and as it stands in a URL. */
const writtenForms = (secret: string): string[] => [
  secret,
  JSON.stringify(secret).slice(1, -1),
  encodeURIComponent(secret.replace(/\p{Surrogate}/gu, '\uFFFD')), // half a character has no URL form
]
