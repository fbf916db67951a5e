import { setTimeout as wait } from 'node:timers/promises'
import lockfile from 'proper-lockfile'
import { GatewayError } from '../errors/gateway-error.js'

const STALE_MS = 15_000
const HEARTBEAT_MS = 3_000
const DEADLINE_MS = 30_000

/**
 * Runs `work` while this process alone holds the lock beside `file`. `assertHeld` throws when the lock was lost in between
 * (a suspended laptop, a stalled disk); call it right before anything that must not happen twice.
 */
export async function withLock<T>(file: string, work: (assertHeld: () => void) => Promise<T>): Promise<T> {
  let lost = false
  const release = await acquire(file, () => {
    lost = true
  })
  try {
    return await work(() => {
      if (lost) throw new GatewayError('INTERNAL', `the lock of ${file} was lost`)
    })
  } finally {
    if (!lost) await release()
  }
}

async function acquire(file: string, onLost: () => void): Promise<() => Promise<void>> {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    try {
      return await lockfile.lock(file, {
        realpath: false,
        stale: STALE_MS,
        update: HEARTBEAT_MS,
        onCompromised: onLost,
      })
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ELOCKED') || Date.now() > deadline) throw error
      await wait(20 + Math.random() * 60)
    }
  }
}
