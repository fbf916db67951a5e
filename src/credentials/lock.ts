import { statSync } from 'node:fs'
import { mkdir, rmdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import lockfile from 'proper-lockfile'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { hasCode, ignoreMissing } from './file-errors.js'

const STALE_MS = 15_000
const HEARTBEAT_MS = 3_000
const DEADLINE_MS = 30_000
const TICK_MS = 500

/** Throws when the lock was lost: a suspended laptop, a stalled disk, a clock that jumped. */
export type AssertHeld = () => void

interface HeldLock {
  readonly assertHeld: AssertHeld
  release(): Promise<void>
}

/**
 * Runs `work` while this process alone holds the lock beside `file` (the directory `file.lock`); makes the state directory
 * when there is none. Call `assertHeld` right before anything that must not happen twice. Not reentrant.
 */
export async function withLock<T>(file: string, work: (assertHeld: AssertHeld) => Promise<T>): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS
  const leave = await takeTurn(file, deadline)
  try {
    await makeStateDirectory(dirname(file))
    const lock = await acquire(file, deadline)
    try {
      return await work(lock.assertHeld)
    } finally {
      await lock.release()
    }
  } finally {
    leave()
  }
}

const pathOf = (file: string): string => `${file}.lock`

async function makeStateDirectory(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 }).catch(error => {
    throw unusable(`the state directory ${directory} cannot be made`, error)
  })
}

const unusable = (what: string, error: unknown): GatewayError =>
  new GatewayError(
    'CONFIG_INVALID',
    `${what} (${messageOf(error)}): set GATEWAY_STATE_DIR to a directory that the gateway may write`,
    { cause: error },
  )

const turns = new Map<string, Promise<unknown>>()

/** One of this process at a time, in the order they came; only that one competes with other processes for the lock. */
async function takeTurn(file: string, deadline: number): Promise<() => void> {
  const before = turns.get(file)
  let leave = (): void => undefined
  const mine = new Promise<void>(resolve => {
    leave = resolve
  })
  // Of both: whoever gives up waiting does not let the next one past those in front.
  const last = Promise.all([before, mine]).then(() => {
    if (turns.get(file) === last) turns.delete(file)
  })
  turns.set(file, last)
  if (before === undefined) return leave

  const arrived = new AbortController()
  const tooLate = wait(Math.max(0, deadline - Date.now()), undefined, { signal: arrived.signal })
  try {
    await Promise.race([before, tooLate.then(() => Promise.reject(busy(file)))])
    return leave
  } catch (error) {
    leave()
    throw error
  } finally {
    arrived.abort()
  }
}

const busy = (file: string): GatewayError =>
  new GatewayError(
    'TIMEOUT',
    `the lock ${pathOf(file)} was not free within ${DEADLINE_MS / 1000} s, another gateway process is at work: try again; if none is running, delete that directory`,
  )

async function acquire(file: string, deadline: number): Promise<HeldLock> {
  for (;;) {
    // From before the lock exists, or a stop between taking it and the first look would go unnoticed.
    const watch = watchForStops()
    try {
      const unlock = await lockfile.lock(file, {
        realpath: false,
        stale: Number.POSITIVE_INFINITY, // see removeIfStale
        update: HEARTBEAT_MS,
        onCompromised: watch.markLost, // the default throws from a timer, which would end the gateway
      })
      return heldLock(file, unlock, watch)
    } catch (error) {
      watch.end()
      if (!hasCode(error, 'ELOCKED')) throw unusable(`the lock ${pathOf(file)} cannot be taken`, error)
      if (Date.now() > deadline) throw busy(file)
      const isFree = await removeIfStale(pathOf(file)).catch(stuck => {
        throw unusable(`the stale lock ${pathOf(file)} cannot be removed`, stuck)
      })
      if (!isFree) await wait(20 + Math.random() * 60)
    }
  }
}

/**
 * Of several that find a lock stale, a slow one would remove what a fast one has just made in its place (seen in 5 % of the
 * cases with five processes). So they look and remove one at a time, under a lock of its own.
 */
async function removeIfStale(path: string): Promise<boolean> {
  if (!(await isStale(path))) return false
  const takeover = path.replace(/lock$/, 'takeover.lock')
  try {
    await mkdir(takeover)
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw error
    if (await isStale(takeover)) await rmdir(takeover).catch(() => undefined) // of one that was killed just there
    return false
  }
  try {
    if (!(await isStale(path))) return false
    await rmdir(path).catch(ignoreMissing) // its owner may have woken up and released it
    return true
  } finally {
    await rmdir(takeover).catch(() => undefined)
  }
}

async function isStale(path: string): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  // Either way: after the clock was set back, a lock left behind comes from the future.
  return found !== undefined && Math.abs(Date.now() - found.mtimeMs) > STALE_MS
}

type StopWatch = ReturnType<typeof watchForStops>

/**
 * A process that was stopped or whose machine slept goes on as if nothing had happened, while others have taken its lock
 * as stale. The wall clock tells: monotonic clocks stand still in suspend.
 */
function watchForStops() {
  let isLost = false
  let lastLook = Date.now()
  const look = (): boolean => {
    const now = Date.now()
    if (now - lastLook > STALE_MS / 2) isLost = true
    lastLook = now
    return isLost
  }
  const timer = setInterval(look, TICK_MS).unref()
  return {
    isLost: look,
    markLost: (): void => {
      isLost = true
    },
    end: (): void => clearInterval(timer),
  }
}

function heldLock(file: string, unlock: () => Promise<void>, watch: StopWatch): HeldLock {
  const identity = hasBirthTimes(dirname(file)) ? bornAs : nodeOf
  const ours = identity(pathOf(file))
  const isOurs = (): boolean => ours !== undefined && identity(pathOf(file)) === ours
  return {
    assertHeld() {
      if (!watch.isLost() && isOurs()) return
      watch.markLost()
      throw new GatewayError('TIMEOUT', `the lock ${pathOf(file)} was lost while this process stood still: try again`)
    },
    async release() {
      watch.end()
      // After a stop it may be another's by now. When it cannot be removed, it is free as soon as it is stale.
      if (isOurs()) await unlock().catch(() => undefined)
    },
  }
}

/**
 * Where there are none, the system gives the time of the last change in their place. The state directory shows it: to take
 * a lock in it changed it.
 */
function hasBirthTimes(directory: string): boolean {
  const found = look(directory)
  return found !== undefined && found.birthtimeNs !== found.ctimeNs
}

const look = (path: string) => statSync(path, { bigint: true, throwIfNoEntry: false })

const nodeOf = (path: string): bigint | undefined => look(path)?.ino

/**
 * Tells our lock from the one of somebody who took ours as stale. Inode numbers are used again at once, times of birth
 * are not.
 */
function bornAs(path: string): string | undefined {
  const found = look(path)
  return found && `${found.ino} ${found.birthtimeNs}`
}
