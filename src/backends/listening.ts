import { setTimeout as wait } from 'node:timers/promises'
import type { Client } from '@modelcontextprotocol/client'

const RELISTEN_MS = { first: 1_000, max: 60_000 }

/** What a `subscriptions/listen` stream is opened for (2026-07-28, "Subscriptions"). */
export type ListenFilter = Parameters<Client['listen']>[0]

export interface ListenOptions {
  /** A stream is open: what changed before this moment was not announced. */
  readonly onOpen: () => void
  readonly onFailure: (error: unknown) => void
  /** Ends it. */
  readonly signal: AbortSignal
}

/** Keeps a `subscriptions/listen` stream open until the signal ends it. */
export async function keepListening(
  client: Client,
  filter: ListenFilter,
  { onOpen, onFailure, signal }: ListenOptions,
): Promise<void> {
  for (let delay = RELISTEN_MS.first; !signal.aborted; delay = Math.min(delay * 2, RELISTEN_MS.max)) {
    const openedAt = Date.now()
    try {
      const subscription = await client.listen(filter, { signal })
      onOpen()
      if ((await subscription.closed) === 'local') return
      if (Date.now() - openedAt > RELISTEN_MS.max) delay = RELISTEN_MS.first
    } catch (error) {
      if (signal.aborted) return
      onFailure(error)
    }
    await wait(delay * (0.5 + Math.random()), undefined, { ref: false, signal }).catch(() => {})
  }
}

// A stream that lived shorter than this did not work, however politely it was closed.
const SHORT_LIVED_MS = 60_000
const MAX_REOPEN_MS = 10 * 60_000

/**
 * When the SDK may open the GET stream of a 2025 server again: the wait doubles as long as streams are short-lived, also when the
 * server closes them in good order (the SDK starts counting anew then).
 */
export function createReopenScheduler(): (reopen: () => void, delayMs: number) => () => void {
  let openedAt = Date.now()
  let shortLived = 0
  return (reopen, delayMs) => {
    shortLived = Date.now() - openedAt < SHORT_LIVED_MS ? shortLived + 1 : 0
    const backoff = Math.min(1_000 * 2 ** Math.max(0, shortLived - 1), MAX_REOPEN_MS)
    const timer = setTimeout(
      () => {
        openedAt = Date.now()
        reopen()
      },
      Math.max(delayMs, backoff),
    ).unref()
    return () => clearTimeout(timer)
  }
}
