import { setTimeout as wait } from 'node:timers/promises'
import { createMinuteCounts, type MinuteCounts } from '../observability/minute-counts.js'

/** Many people may share one address, and a proxy stands for all of them: so this is for machines that guess. */
const FAILURES_PER_MINUTE = 600
/** From this many on, the answer to each failure comes a little later than the one before. */
const PATIENT_FAILURES = 100
const DELAY_STEP_MS = 2
const MAX_DELAY_MS = 250
/** Answers that wait at a time, of one address and of all. */
const MAX_WAITING = { each: 20, all: 500 }

export interface FloodGuardOptions {
  readonly failuresPerMinute?: number
  readonly counts?: MinuteCounts
  readonly now?: () => number
}

/** Slows down, and then turns away, addresses whose requests keep failing to authenticate. */
export class FloodGuard {
  readonly #limit: number
  readonly #counts: MinuteCounts
  readonly #now: () => number
  /** Addresses that are turned away, and until when. */
  readonly #closed = new Map<string, number>()
  readonly #waiting = new Map<string, number>()
  #allWaiting = 0

  constructor({
    failuresPerMinute = FAILURES_PER_MINUTE,
    counts = createMinuteCounts(),
    now = Date.now,
  }: FloodGuardOptions = {}) {
    this.#limit = failuresPerMinute
    this.#counts = counts
    this.#now = now
  }

  /** Whether anybody is turned away at all. */
  get isActive(): boolean {
    return this.#closed.size > 0
  }

  /** How long an address is turned away for; undefined for nearly all. */
  closedFor(address: string): number | undefined {
    const until = this.#closed.get(address)
    if (until === undefined) return undefined
    const remainingMs = until - this.#now()
    if (remainingMs > 0) return remainingMs
    this.#closed.delete(address)
    return undefined
  }

  /** Counts a failure, and resolves when its answer may go out. */
  async failed(address: string): Promise<void> {
    const { count, resetsInMs } = await this.#counts.add(address)
    if (count >= this.#limit) this.#close(address, resetsInMs)
    const delayMs = Math.min(MAX_DELAY_MS, (count - PATIENT_FAILURES) * DELAY_STEP_MS)
    const waiting = this.#waiting.get(address) ?? 0
    if (delayMs <= 0 || waiting >= MAX_WAITING.each || this.#allWaiting >= MAX_WAITING.all) return
    this.#waiting.set(address, waiting + 1)
    this.#allWaiting++
    await wait(delayMs, undefined, { ref: false })
    this.#allWaiting--
    const left = (this.#waiting.get(address) ?? 1) - 1
    if (left > 0) this.#waiting.set(address, left)
    else this.#waiting.delete(address)
  }

  #close(address: string, forMs: number): void {
    const now = this.#now()
    for (const [known, until] of this.#closed) if (until <= now) this.#closed.delete(known)
    this.#closed.set(address, now + forMs)
  }
}

/**
 * Where a request comes from, as the socket says: what headers say about it, anybody can write. Of IPv6 the network, in which one
 * machine has as many addresses as it likes.
 */
export function addressOf({
  remoteAddress: address = 'unknown',
}: {
  readonly remoteAddress?: string | undefined
}): string {
  const [, mapped] = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address) ?? []
  if (mapped !== undefined) return mapped
  return address.includes(':') ? networkOf(address) : address
}

/** The first four groups. */
function networkOf(address: string): string {
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::')
  const groups = head === '' ? [] : head.split(':')
  const rest = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros =
    tail === undefined ? [] : Array.from({ length: Math.max(0, 8 - groups.length - rest.length) }, () => '0')
  return `${[...groups, ...zeros, ...rest].slice(0, 4).join(':')}::/64`
}
