import { GatewayError, messageOf } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import type { BackendAuthorization } from './authorization.js'
import { BackendRefusal, ConnectionBroken, SessionLost, Unreachable } from './call.js'

const RETRY_MS = { first: 1_000, max: 60_000 }
// A server may ask for more patience than our own, within reason.
const MAX_RETRY_AFTER_MS = 60 * 60_000
// A server that has run this long did work, and its end is news.
const SUSTAINED_MS = 60_000
// One that ends this often in a row does not: trying is left to once in a while.
const PARK_AFTER = 5
const PARKED_MS = 10 * 60_000
const NEWS_MS = 10 * 60_000

export interface SupervisionOptions {
  readonly server: string
  readonly logger: Logger
  readonly authorization: BackendAuthorization | undefined
  /** A server that was started here, and can be started again. */
  readonly isProcess: boolean
  /** The longest pause between two tries. */
  readonly maxRetryMs?: number | undefined
  /** Adds what every error about this server says. */
  readonly explain: (error: unknown, retryAt?: number) => GatewayError
}

/** Whether one server can be had at the moment, and if not, why and when it is tried again. All its sessions share the verdict. */
export class Supervision {
  readonly #options: SupervisionOptions
  #failures = 0
  #crashes = 0
  #crash: { readonly reason: string; readonly at: number } | undefined
  #failure: GatewayError | undefined
  #retryAt = 0

  constructor(options: SupervisionOptions) {
    this.#options = options
  }

  /** Why the server cannot be had, until a connect succeeds. */
  get failure(): GatewayError | undefined {
    return this.#failure
  }

  /** How a process has ended a short while ago that runs again by now. */
  get recentCrash(): string | undefined {
    return this.#crash && Date.now() - this.#crash.at < NEWS_MS ? this.#crash.reason : undefined
  }

  /** How long to wait before the next connect. */
  get delayMs(): number {
    return Math.max(0, this.#retryAt - Date.now())
  }

  /** Rejects with the last failure while it is too early to try again. */
  async admit(): Promise<void> {
    if (this.#failure && this.delayMs > 0 && !(await this.#mayTryNow(this.#failure))) throw this.#failure
  }

  onConnected(): void {
    this.#failures = 0
    this.#failure = undefined
    this.#retryAt = 0
  }

  /** Connecting failed, or nothing can be sent any more. Returns the error that callers see until the next try. */
  onFailure(error: unknown): GatewayError {
    const reason = unavailable(error)
    const asked = reason instanceof GatewayError ? Number(reason.details.retry_after_ms ?? 0) : 0
    this.#failures++
    // What cannot even be started, or dies on the way, is a process that ends by itself all the same.
    const isCrash = this.#options.isProcess && (error instanceof Unreachable || 'stderr' in detailsOf(reason))
    if (isCrash) this.#crashes++
    const delayMs = this.#isParked ? PARKED_MS : this.#backoff(this.#failures)
    return this.#fail(reason, Math.max(delayMs, Math.min(asked, MAX_RETRY_AFTER_MS)))
  }

  /** A process that served has ended by itself, started then. The first time it may be started again at once. */
  onCrash(
    reason: string,
    { startedAt, stderr }: { readonly startedAt: number; readonly stderr: readonly string[] },
  ): void {
    // Several processes of one server that end together are one event.
    const isNews = this.#crash === undefined || startedAt > this.#crash.at
    this.#crash = { reason: `${reason}, and was started again`, at: Date.now() }
    if (!isNews) return
    this.#crashes = Date.now() - startedAt < SUSTAINED_MS ? this.#crashes + 1 : 0
    if (this.#crashes <= 1) return
    const error = new GatewayError('SERVER_UNAVAILABLE', reason, { details: { stderr } })
    this.#fail(error, this.#isParked ? PARKED_MS : this.#backoff(this.#crashes - 1))
  }

  get #isParked(): boolean {
    return this.#crashes >= PARK_AFTER
  }

  #backoff(failures: number): number {
    return Math.min(RETRY_MS.first * 2 ** (failures - 1), this.#options.maxRetryMs ?? RETRY_MS.max)
  }

  #fail(error: Error, delayMs: number): GatewayError {
    const { server, logger, explain } = this.#options
    // Not all at once: whatever else broke down with it comes back at the same moment.
    this.#retryAt = Date.now() + delayMs * (0.9 + Math.random() * 0.2)
    const failure = explain(this.#isParked ? parked(error, this.#crashes) : error, this.#retryAt)
    this.#failure = failure
    logger.warn({ server, code: failure.code, reason: failure.message }, 'backend cannot be connected')
    return failure
  }

  /** A server that wanted a login is worth another try as soon as somebody has logged in. */
  async #mayTryNow(failure: GatewayError): Promise<boolean> {
    return failure.code === 'AUTH_REQUIRED' && (await this.#options.authorization?.hasUntriedToken()) === true
  }
}

const detailsOf = (error: Error): object => (error instanceof GatewayError ? error.details : {})

function parked(error: Error, times: number): GatewayError {
  const details = { ...detailsOf(error) }
  const message = `${error.message}; it has ended ${times} times in a row, and is tried again every ${PARKED_MS / 60_000} minutes only`
  return new GatewayError('SERVER_UNAVAILABLE', message, { cause: error, details })
}

/** No call was under way, so nothing about its outcome is unknown: the server is not to be had at the moment. */
export function unavailable(thrown: unknown): Error {
  if (thrown instanceof ConnectionBroken || thrown instanceof SessionLost || thrown instanceof BackendRefusal) {
    const details = thrown instanceof ConnectionBroken && thrown.stderr.length > 0 ? { stderr: thrown.stderr } : {}
    return new GatewayError('SERVER_UNAVAILABLE', thrown.message, { cause: thrown, details })
  }
  return thrown instanceof Error ? thrown : new Error(messageOf(thrown))
}
