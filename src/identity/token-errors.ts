/** A token that is not good here. `description` says what was got and what was wanted, and never contains the token. */
export class InvalidTokenError extends Error {
  override readonly name = 'InvalidTokenError'
  readonly description: string

  constructor(description: string, options: { cause?: unknown } = {}) {
    super(description, options)
    this.description = description
  }
}

/** The issuer cannot be asked now. That is not the token's fault, which may be good. */
export class IssuerUnavailableError extends Error {
  override readonly name = 'IssuerUnavailableError'
  readonly retryAfterSeconds: number
  /** True when there was no answer at all: others of that origin have none either. */
  readonly isSilent: boolean

  constructor(
    message: string,
    options: { cause?: unknown; retryAfterSeconds?: number; isSilent?: boolean | undefined } = {},
  ) {
    super(message, { cause: options.cause })
    this.retryAfterSeconds = options.retryAfterSeconds ?? 5
    this.isSilent = options.isSilent ?? false
  }
}
