/** Environment variables as a plain record, so that tests hand in their own. */
export type Env = Readonly<Record<string, string | undefined>>

export interface Expansion {
  readonly text: string
  /** Values that came out of the environment: they are secrets until shown otherwise. */
  readonly values: readonly string[]
  /** Variables that are not set and have no default. */
  readonly missing: readonly string[]
}

// `$${` is a literal `${`; then ${VAR}, ${env:VAR}, ${VAR:-default}.
const REFERENCE = /\$\$\{|\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}/g

/** Expands the variables of one string. An unset variable stays as it is written and is reported, it never becomes ''. */
export function expandVariables(template: string, env: Env): Expansion {
  const values: string[] = []
  const missing: string[] = []
  const text = template.replace(REFERENCE, (reference, name: string | undefined, fallback: string | undefined) => {
    if (name === undefined) return '${'
    const value = Object.hasOwn(env, name) ? env[name] : undefined
    if (value !== undefined) {
      values.push(value)
      return value
    }
    if (fallback !== undefined) return fallback
    missing.push(name)
    return reference
  })
  return { text, values, missing }
}
