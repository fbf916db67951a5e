import { statSync } from 'node:fs'
import { stateOf, toState } from './sealed-file.js'

const INTERVAL_MS = 500

/**
 * Calls back after the file changed, appeared or went. It looks instead of asking the system for events, which are lost when
 * a file is replaced, on network disks and in containers. Never keeps the process alive.
 */
export function watchFile(file: string, listener: () => void): () => void {
  // At once: a change right after this call is a change.
  let seen = stampNow(file)
  let isStopped = false
  const look = async (): Promise<void> => {
    // A file that cannot be looked at has not changed as far as anybody knows; whoever reads it next says why.
    const stamp = await stateOf(file).then(
      state => state?.stamp,
      () => seen,
    )
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

function stampNow(file: string): string | undefined {
  try {
    const found = statSync(file, { bigint: true, throwIfNoEntry: false })
    return found && toState(found).stamp
  } catch {
    return undefined
  }
}
