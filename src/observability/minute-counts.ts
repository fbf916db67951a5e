import { LRUCache } from 'lru-cache'

/** Counts by the minute, each key from when it was first seen. In memory here; several gateways could share another one. */
export interface MinuteCounts {
  /** One more for a key: how many that makes in its minute, and how much of that is left. */
  add(key: string): Promise<{ readonly count: number; readonly resetsInMs: number }>
  takeBack(key: string): Promise<void>
}

/** Callers choose the keys: beyond these the one that was not seen for longest begins anew. */
const MAX_KEYS = 10_000
const SECONDS = 60

export function createMinuteCounts(maxKeys = MAX_KEYS): MinuteCounts {
  // Loaded when there is something to count: most gateways have nothing.
  let loading: Promise<Counter> | undefined
  return {
    async add(key) {
      loading ??= openCounter(maxKeys)
      const { limiter, seen } = await loading
      seen.set(key, true)
      // Not `consume`, which would need a limiter for each number of points and reject with something that is no error.
      const { consumedPoints, msBeforeNext } = await limiter.penalty(key)
      return { count: consumedPoints, resetsInMs: Math.max(1, msBeforeNext) }
    },
    async takeBack(key) {
      await (await loading)?.limiter.reward(key)
    },
  }
}

interface Counter {
  readonly limiter: import('rate-limiter-flexible').RateLimiterMemory
  readonly seen: LRUCache<string, true>
}

async function openCounter(maxKeys: number): Promise<Counter> {
  const { RateLimiterMemory } = await import('rate-limiter-flexible')
  const limiter = new RateLimiterMemory({ points: Number.MAX_SAFE_INTEGER, duration: SECONDS })
  const dispose = (_: true, key: string, reason: string) => {
    if (reason === 'evict') void limiter.delete(key)
  }
  return { limiter, seen: new LRUCache<string, true>({ max: maxKeys, dispose }) }
}
