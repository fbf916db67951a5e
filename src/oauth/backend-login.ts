import type { AuthorizationStatus, BackendAuthorization, Refusal } from '../backends/authorization.js'
import type { HttpServerConfig } from '../config/servers-file.js'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import type { BearerChallenge } from './challenge.js'
import { isRenewable, type LoginRecord, loginEntry, parseLogin, readLogin, toCredential } from './login-record.js'
import type { Stale } from './renewal.js'
import { noteStepUp } from './step-up.js'
import type { Tokens } from './tokens.js'

// A token is renewed this long before it ends, at another moment in every process, and never in most of its life.
const EARLY_MS = 60_000
const JITTER_MS = 30_000
const EARLY_SHARE = 0.2
// Closer to its end than this a token may end on the way.
const SPARE_MS = 2_000
// After a renewal ahead of time that failed: calls go on with the token they have.
const PAUSE_MS = 30_000

export interface BackendLoginOptions {
  readonly store: CredentialStore
  readonly logger: Logger
  /** Hears every secret as soon as it is known, so that no log and no error shows it. */
  readonly learnSecrets: (secrets: readonly string[]) => void
  readonly onRenewed?: ((result: 'ok' | 'failed') => void) | undefined
  /** Starts a login if this process may; gives the URL to go to. */
  readonly onLoginNeeded?: StartLogin | undefined
  /** Starts one for somebody who is asked first, and opens the URL himself. */
  readonly onLoginOffered?: StartLogin | undefined
}

type StartLogin = (config: HttpServerConfig, challenge: BearerChallenge) => Promise<string | undefined>

/** The login of one backend in this process: its token while it is good, renewed ahead of time, and what a refusal means. */
export class BackendLogin implements BackendAuthorization {
  readonly #config: HttpServerConfig
  readonly #options: BackendLoginOptions
  #login: LoginRecord | undefined
  #isCurrent = false
  /** How often the stored logins have changed under this one. */
  #changes = 0
  #reading: Promise<void> | undefined
  #renewAt = 0
  #renewing: Promise<void> | undefined
  /** The last refusal: of the token as a whole (401), or for want of scope (403). */
  #refused: { readonly status: number; readonly token: string | undefined } | undefined
  /** From a renewal, and not accepted yet: refused, it is not renewed once more. */
  #untested: string | undefined
  #problem: string | undefined
  /** What the server said when it last wanted a login that only a person can make. */
  #wanted: BearerChallenge | undefined
  #stopWatching: (() => void) | undefined

  constructor(config: HttpServerConfig, options: BackendLoginOptions) {
    this.#config = config
    this.#options = options
  }

  token(): string | undefined | Promise<string | undefined> {
    const tokens = this.#login?.tokens
    if (this.#isCurrent && (!tokens || Date.now() < this.#renewAt)) return tokens?.accessToken
    return this.#currentToken()
  }

  onAccepted(token: string | undefined): void {
    if (token === this.#untested) this.#untested = undefined
  }

  async onUnauthorized({ status, challenge: header, token }: Refusal): Promise<void> {
    const { parseChallenge } = await import('./challenge.js')
    const challenge = await parseChallenge(header)
    await this.#read()
    if (this.#hasOther(token)) return
    if (status === 401 && (await this.#obtainWithoutPerson(challenge))) return
    this.#refused = { status, token }
    if (status === 403) return this.#stepUp(challenge)
    throw await this.#loginNeeded(this.#whyLoginNeeded(), challenge)
  }

  async hasUntriedToken(): Promise<boolean> {
    await this.#read()
    return this.#hasOther(this.#refused?.token)
  }

  async offerLogin(): Promise<string | undefined> {
    return this.#wanted && this.#options.onLoginOffered?.(this.#config, this.#wanted)
  }

  status(): AuthorizationStatus {
    const tokens = this.#login?.tokens
    if (!tokens) return { kind: this.#login ? 'login needed' : 'none' }
    const { status, token } = this.#refused ?? {}
    if (status === 401 && token === tokens.accessToken) return { kind: 'login needed' }
    const { expiresAt } = tokens
    return { kind: 'logged in', ...(expiresAt !== undefined && { expires_at: new Date(expiresAt).toISOString() }) }
  }

  get problem(): string | undefined {
    return this.#problem
  }

  close(): void {
    this.#stopWatching?.()
  }

  #hasOther(token: string | undefined): boolean {
    const current = this.#login?.tokens?.accessToken
    return current !== undefined && current !== token
  }

  async #currentToken(): Promise<string | undefined> {
    if (!this.#isCurrent) await this.#read()
    const login = this.#login
    const tokens = login?.tokens
    if (!tokens || Date.now() < this.#renewAt || !isRenewable(login)) return tokens?.accessToken
    const renewal = this.#renew({ token: tokens.accessToken, wasRefused: false })
    if (tokens.expiresAt !== undefined && Date.now() < tokens.expiresAt - SPARE_MS) {
      renewal.catch(error => this.#postpone(error))
      return tokens.accessToken
    }
    await renewal
    return this.#login?.tokens?.accessToken
  }

  /** Reads the stored login again; free when nobody has changed it. */
  #read(): Promise<void> {
    this.#stopWatching ??= this.#options.store.watch(() => {
      this.#isCurrent = false
      this.#changes++
      // At once, although nobody asks for a token now: the state that agents see depends on it.
      this.#read().catch(error => this.#options.logger.warn({ err: error }, 'the stored logins cannot be read'))
    })
    this.#reading ??= this.#readUntilCurrent().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #readUntilCurrent(): Promise<void> {
    for (let seen = -1; seen !== this.#changes; ) {
      seen = this.#changes
      this.#show(await readLogin(this.#options.store, this.#config))
    }
    this.#isCurrent = true
  }

  #show(login: LoginRecord | undefined): void {
    const before = this.#login?.tokens?.accessToken
    this.#login = login
    const { tokens, client } = login ?? {}
    if (tokens?.accessToken === before) return
    this.#problem = undefined
    this.#renewAt = tokens ? renewAt(tokens) : 0
    const secrets = [tokens?.accessToken, tokens?.refreshToken, client?.clientSecret]
    this.#options.learnSecrets(secrets.filter(secret => secret !== undefined))
  }

  /** All callers of this process share one renewal. */
  #renew(stale: Stale): Promise<void> {
    this.#renewing ??= this.#renewOnce(stale).finally(() => {
      this.#renewing = undefined
    })
    return this.#renewing
  }

  async #renewOnce(stale: Stale): Promise<void> {
    const { name } = this.#config
    const { renew } = await import('./renewal.js')
    const login = await renew(this.#config, stale, this.#options.store).catch(error => {
      this.#problem = messageOf(error)
      this.#options.onRenewed?.('failed')
      throw error
    })
    this.#show(login)
    this.#untested = login?.tokens?.accessToken
    this.#options.onRenewed?.(login?.tokens ? 'ok' : 'failed')
    if (!login?.tokens) this.#options.logger.warn({ server: name }, 'the login has ended at the authorization server')
    else this.#options.logger.info({ server: name, expires: this.status().expires_at }, 'the login was renewed')
  }

  #postpone(error: unknown): void {
    const asked = error instanceof GatewayError ? Number(error.details.retry_after_ms ?? 0) : 0
    this.#renewAt = Date.now() + Math.max(asked, PAUSE_MS)
    const { expiresAt } = this.#login?.tokens ?? {}
    if (expiresAt !== undefined) this.#renewAt = Math.min(this.#renewAt, expiresAt - SPARE_MS)
    this.#options.logger.warn({ server: this.#config.name, reason: messageOf(error) }, 'the login was not renewed yet')
  }

  /** True when there is another token now: renewed, or a machine's login. */
  async #obtainWithoutPerson(challenge: BearerChallenge): Promise<boolean> {
    const stale = this.#login?.tokens?.accessToken
    if (this.#login && stale !== undefined && stale !== this.#untested && isRenewable(this.#login)) {
      await this.#renew({ token: stale, wasRefused: true })
      if (this.#hasOther(stale)) return true
    }
    const { oauth } = this.#config
    if (oauth === false || oauth.grant !== 'client_credentials' || this.#login?.tokens) return false
    this.#renewing ??= this.#logInMachine(challenge).finally(() => {
      this.#renewing = undefined
    })
    await this.#renewing
    return this.#hasOther(stale)
  }

  async #logInMachine(challenge: BearerChallenge): Promise<void> {
    const { login } = await import('./login.js')
    const { store } = this.#options
    const record = await login(this.#config, { store, challenge }).catch(error => {
      // What the command line calls a failed login is for an agent a server that wants one.
      if (!(error instanceof GatewayError) || error.code !== 'LOGIN_FAILED') throw error
      throw new GatewayError('AUTH_REQUIRED', `the login of this gateway failed: ${error.message}`, { cause: error })
    })
    this.#show(record)
  }

  /** A token that is good, but not for this: another authorization for more, as long as that leads anywhere. */
  async #stepUp(challenge: BearerChallenge): Promise<void> {
    const { toScopes } = await import('./scopes.js')
    const scopes = toScopes(challenge.scope)
    let isWorthAnother = false
    await this.#options.store.update(loginEntry(this.#config.name), current => {
      const login = parseLogin(current, this.#config)
      const stepUps = login && noteStepUp(login, scopes)
      isWorthAnother = stepUps !== undefined
      return login && stepUps ? toCredential({ ...login, stepUps }, this.#config) : current
    })
    const details = { required_scopes: scopes }
    const missing = scopes.length > 0 ? `: ${scopes.join(' ')}` : ''
    if (!isWorthAnother) {
      throw new GatewayError(
        'BACKEND_ERROR',
        `the login has too little scope, and asking again did not help${missing}`,
        {
          details,
        },
      )
    }
    const stale = this.#login?.tokens?.accessToken
    if (this.#login?.grant === 'client_credentials') {
      await this.#logInMachine(challenge)
      if (this.#hasOther(stale)) return
    }
    throw await this.#loginNeeded(`the login has too little scope (HTTP 403)${missing}`, challenge, details)
  }

  #whyLoginNeeded(): string {
    if (!this.#login) return 'the server wants a login (HTTP 401)'
    const { tokens } = this.#login
    if (!tokens) return 'the login has ended'
    if (tokens.expiresAt !== undefined && tokens.expiresAt <= Date.now() && tokens.refreshToken === undefined)
      return 'the login has run out, and the authorization server gave no refresh token'
    return 'the server refuses the token of this login (HTTP 401), most likely for its audience or scope'
  }

  async #loginNeeded(message: string, challenge: BearerChallenge, details: object = {}): Promise<GatewayError> {
    this.#wanted = challenge
    const url = await this.#options.onLoginNeeded?.(this.#config, challenge)
    return new GatewayError('AUTH_REQUIRED', message, { details: { ...details, ...(url !== undefined && { url }) } })
  }
}

function renewAt({ expiresAt, issuedAt }: Tokens): number {
  if (expiresAt === undefined) return Number.POSITIVE_INFINITY
  return expiresAt - Math.min(EARLY_MS + Math.random() * JITTER_MS, (expiresAt - issuedAt) * EARLY_SHARE)
}
