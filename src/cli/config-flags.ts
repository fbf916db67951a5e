/** What every command that reads the configuration takes. */
export interface ConfigFlags {
  readonly config?: string
  readonly rules?: string
}
