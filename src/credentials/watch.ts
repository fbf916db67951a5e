import { statSync } from 'node:fs'
import { stateOf, toState } from './sealed-file.js'

const INTERVAL_MS = 500

/**
 * Calls back after the file changed, appeared or went. It looks instead of asking the system for events, which are lost when
 * a file is replaced, on network disks and in containers. Never keeps the process alive.
 */
export function watchFile(file: string, listener: () => void): () => void {
  // At once: a change right after this call is a change.
  const first = statSync(file, { bigint: true, throwIfNoEntry: false })
  let seen = first && toState(first).stamp
  let isStopped = false
  const look = async (): Promise<void> => {
    const stamp = (await stateOf(file))?.stamp
    if (isStopped || stamp === seen) return
    seen = stamp
    listener()
  }
  const timer = setInterval(() => void look(), INTERVAL_MS).unref()
  return () => {
    isStopped = true
    clearInterval(timer)
  }
}
