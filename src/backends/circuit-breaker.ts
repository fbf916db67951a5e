import { ConsecutiveBreaker, circuitBreaker, ExponentialBackoff, handleWhen, isBrokenCircuitError } from 'cockatiel'
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
  return async request => {
    try {
      return await policy.execute(request)
    } catch (error) {
      if (!isBrokenCircuitError(error)) throw error
      const message = `it failed ${FAILURES} times in a row (${last}), and is left alone for a moment`
      throw new GatewayError('SERVER_UNAVAILABLE', message)
    }
  }
}

const isOutage = (error: unknown): boolean =>
  error instanceof ConnectionBroken || (error instanceof GatewayError && error.code === 'SERVER_UNAVAILABLE')
