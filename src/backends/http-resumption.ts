import { setTimeout as wait } from 'node:timers/promises'
import { BackendRefusal, ConnectionBroken, type RawResult } from './call.js'
import type { HttpCall } from './http-answer.js'
import { callOverHttp, type HttpTarget } from './http-lane.js'

const DEFAULT_RETRY_MS = 1_000
const MIN_RETRY_MS = 100
const MAX_RETRY_MS = 30_000
// A stream that brings nothing new this many times in a row will not bring the answer either.
const MAX_BARREN = 5

/**
 * A call to a server of the 2025 era, whose stream may end before the answer is there: it is taken up again where it broke off, after
 * the time the server asks for, within the time of the call ("Resumability and Redelivery"). Rejects as callOverHttp does.
 */
export async function callResumably(target: HttpTarget, call: HttpCall): Promise<RawResult> {
  let broken: ConnectionBroken | undefined
  for (let barren = 0; ; ) {
    try {
      return await callOverHttp(target, broken?.position ? { ...call, resumeAfter: broken.position.eventId } : call)
    } catch (error) {
      // What else comes of taking it up again says nothing about the call.
      if (broken && !(error instanceof ConnectionBroken) && !(error instanceof BackendRefusal) && !call.clock.ended)
        throw broken
      if (!(error instanceof ConnectionBroken)) throw error
      barren = error.position && error.position.eventId !== broken?.position?.eventId ? 0 : barren + 1
      if (error.position) broken = error
      if (!broken?.position || barren >= MAX_BARREN) throw broken ?? error
      const retryMs = broken.position.retryMs ?? DEFAULT_RETRY_MS
      await call.clock.wait(wait(Math.min(Math.max(retryMs, MIN_RETRY_MS), MAX_RETRY_MS)))
    }
  }
}
