/** What is random in a run, and comes again with the same seed. */
export interface Random {
  /** An integer from 0 up to this, without it. */
  below(limit: number): number
  chance(probability: number): boolean
  pick<T>(list: readonly T[]): T
  bytes(length: number): Buffer
}

/** One generator a request: what a request is does not depend on which others were sent before it (mulberry32). */
export function createRandom(seed: number, index: number): Random {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return {
    below,
    chance: probability => next() < probability,
    pick<T>(list: readonly T[]): T {
      return list[below(list.length)] as T
    },
    bytes: length => Buffer.from(Array.from({ length }, () => below(256))),
  }
}

/** One of a list, the ones with more weight more often. */
export function pickWeighted<T>(random: Random, choices: readonly (readonly [number, T])[]): T {
  let left = random.below(choices.reduce((sum, [weight]) => sum + weight, 0))
  for (const [weight, choice] of choices) {
    left -= weight
    if (left < 0) return choice
  }
  throw new RangeError('nothing to choose from')
}
