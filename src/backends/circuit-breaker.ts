import {
  CircuitState,
  ConsecutiveBreaker,
  circuitBreaker,
  ExponentialBackoff,
  handleWhen,
  isBrokenCircuitError,
} from 'cockatiel'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { ConnectionBroken } from './call.js'

// A server that fails this often in a row is spared for a while: calls to it fail at once, and one of them tries again.
const FAILURES = 5
const PAUSE_MS = { first: 1_000, max: 60_000 }

/** Runs requests to a remote server, as long as it is not known to be down. */
export type CircuitBreaker = <T>(request: () => Promise<T>) => Promise<T>

/** Opens after consecutive outages; what a server answers on purpose (a refusal, a login, a limit) is none. */
export function createCircuitBreaker(): CircuitBreaker {
  const pauses = new ExponentialBackoff({ initialDelay: PAUSE_MS.first, maxDelay: PAUSE_MS.max })
  const policy = circuitBreaker(handleWhen(isOutage), {
    halfOpenAfter: pauses,
    breaker: new ConsecutiveBreaker(FAILURES),
  })
  let last = ''
  policy.onFailure(({ reason }) => {
    if ('error' in reason) last = messageOf(reason.error)
  })
  const leftAlone = () =>
    new GatewayError(
      'SERVER_UNAVAILABLE',
      `it failed ${FAILURES} times in a row (${last}), and is left alone for a moment`,
    )
  return async request => {
    // One tries whether it is well again; the others do not wait for that.
    if (policy.state === CircuitState.HalfOpen) throw leftAlone()
    try {
      return await policy.execute(request)
    } catch (error) {
      if (!isBrokenCircuitError(error)) throw error
      throw leftAlone()
    }
  }
}

const isOutage = (error: unknown): boolean =>
  error instanceof ConnectionBroken || (error instanceof GatewayError && error.code === 'SERVER_UNAVAILABLE')
