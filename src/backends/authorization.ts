/** A request that the backend refused for want of authorization. */
export interface Refusal {
  readonly status: 401 | 403
  /** `WWW-Authenticate`, as it came. */
  readonly challenge: string | undefined
  /** The token it was sent with. */
  readonly token: string | undefined
}

export interface AuthorizationStatus {
  readonly kind: 'none' | 'header' | 'logged in' | 'login needed'
  /** When the access token ends (ISO 8601); it is renewed before, where the server allows that. */
  readonly expires_at?: string
}

/**
 * The bearer token of one backend: the SDK's AuthProvider, with what both lanes need beyond it. Requests ask for the token each
 * time; at once when it is at hand, which is nearly always.
 */
export interface BackendAuthorization {
  token(): string | undefined | Promise<string | undefined>
  /** A request with this token was not refused. */
  onAccepted(token: string | undefined): void
  /** Resolves when another token is there, so that the request may be repeated once. Rejects with a GatewayError otherwise. */
  onUnauthorized(refusal: Refusal): Promise<void>
  /** True when a token is there that the backend has not refused yet: somebody has logged in. */
  hasUntriedToken(): Promise<boolean>
  /** Starts a login for somebody who will open the URL that this resolves with; undefined when none can be started. */
  offerLogin(): Promise<string | undefined>
  status(): AuthorizationStatus
  /** Why the token could not be renewed when that was last tried; undefined when it could. */
  readonly problem: string | undefined
  close(): void
}

/** Whether a refusal is about authorization at all; a 403 is so only when it says so (RFC 6750, section 3.1). */
export const isRefusal = (status: number, challenge: string | undefined): status is 401 | 403 =>
  status === 401 || (status === 403 && challenge !== undefined && /insufficient_scope/i.test(challenge))

/** The request was refused; `failure` is what that means where nothing can be done about it. */
export class Unauthorized extends Error {
  override readonly name = 'Unauthorized'
  readonly status: 401 | 403
  readonly challenge: string | undefined
  readonly failure: Error

  constructor(status: 401 | 403, challenge: string | undefined, failure: Error) {
    super(failure.message)
    this.status = status
    this.challenge = challenge
    this.failure = failure
  }
}

// One for a token that somebody else has renewed since, one for a renewal of our own.
const MAX_REPEATS = 2

/** Sends with the token there is. After a refusal (`send` rejects with Unauthorized) it is sent again with another one, if that can be had. */
export async function withAuthorization<T>(
  authorization: BackendAuthorization,
  send: (headers: Readonly<Record<string, string>>) => Promise<T>,
  wait: <V>(needed: Promise<V>) => Promise<V> = needed => needed,
): Promise<T> {
  for (let repeats = 0; ; repeats++) {
    const current = authorization.token()
    const token = typeof current === 'object' ? await wait(current) : current
    try {
      const result = await send(token === undefined ? {} : { authorization: `Bearer ${token}` })
      authorization.onAccepted(token)
      return result
    } catch (error) {
      if (!(error instanceof Unauthorized)) throw error
      if (repeats === MAX_REPEATS) throw error.failure
      await wait(authorization.onUnauthorized({ status: error.status, challenge: error.challenge, token }))
    }
  }
}
