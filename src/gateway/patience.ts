import type { Backend } from '../backends/backend.js'
import type { CallClock } from '../backends/call.js'
import { toGatewayError } from '../errors/gateway-error.js'
import type { GatewayCall } from './tool.js'

// For a server nobody has heard of yet. One that takes longer goes on starting: the next list has it, and clients hear of it.
const PATIENCE_MS = 3_000
// For one that has used that up before: nothing is held up by it a second time.
const SECOND_PATIENCE_MS = 100
const late = new WeakSet<Backend>()

/** Asks one server out of many, which are not to wait for it long. Rejects when it cannot be had in that time. */
export async function askPatiently<T>(
  call: GatewayCall,
  backend: Backend,
  ask: (clock: CallClock) => Promise<T>,
  patienceMs = PATIENCE_MS,
): Promise<T> {
  const timeoutMs = late.has(backend) ? SECOND_PATIENCE_MS : patienceMs
  const clock = backend.startClock({ timeoutMs, signal: call.caller.signal })
  try {
    const answer = await ask(clock)
    late.delete(backend)
    return answer
  } catch (error) {
    if (clock.ended?.code === 'TIMEOUT') late.add(backend)
    throw error
  } finally {
    clock.stop()
  }
}

/** Why a server's tools are those that are known from before, or none. */
export interface Unavailable {
  readonly [field: string]: unknown
  readonly server: string
  readonly state: string
  readonly code: string
  readonly reason: string
}

export function unavailable(backend: Backend, error: unknown): Unavailable {
  const { code, message } = toGatewayError(error)
  return { server: backend.name, state: backend.status().state, code, reason: message }
}
