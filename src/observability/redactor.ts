/** Removes known secret values from any text that leaves the process sideways: logs, audit lines, a child's stderr in an error. */
export interface Redactor {
  redact(text: string): string
  /** Replaces what is known from one source: the configuration, the login of one server. */
  learn(source: string, secrets: readonly string[]): void
}

const MARK = '[redacted]'
// Shorter values ("1", "true", "dev") are not secrets, and removing them would make a log unreadable.
const MIN_SECRET_LENGTH = 8

export function createRedactor(): Redactor {
  const known = new Map<string, readonly string[]>()
  let pattern: RegExp | undefined
  return {
    redact: text => (pattern === undefined ? text : text.replace(pattern, MARK)),
    learn(source, secrets) {
      known.set(source, secrets)
      const forms = new Set(
        [...known.values()]
          .flat()
          .filter(secret => secret.length >= MIN_SECRET_LENGTH)
          .flatMap(writtenForms),
      )
      // The longest first: a secret that contains another one is removed whole.
      const alternatives = [...forms].sort((a, b) => b.length - a.length).map(escapeRegExp)
      pattern = alternatives.length > 0 ? new RegExp(alternatives.join('|'), 'g') : undefined
    },
  }
}

/** A secret as it is, as it stands inside JSON, and as it stands in a URL. */
const writtenForms = (secret: string): string[] => [
  secret,
  JSON.stringify(secret).slice(1, -1),
  encodeURIComponent(secret.replace(/\p{Surrogate}/gu, '\uFFFD')), // half a character has no URL form
]

const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
