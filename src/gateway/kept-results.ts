import { randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'

const TTL_MS = 10 * 60_000
const MAX_CHARACTERS = 64 * 1024 * 1024
const MAX_CHARACTERS_EACH = 16 * 1024 * 1024
// What an entry weighs beside its characters, so that a flood of tiny ones is bounded too.
const ENTRY_CHARACTERS = 1_024

/** A whole result as it is read in pages. */
export interface RenderedResult {
  readonly text: string
  /** The blocks that are read whole or not at all, as they came. */
  readonly items: readonly unknown[]
  /** Characters of text and items together. */
  readonly length: number
}

export interface KeptResult extends RenderedResult {
  readonly principal: string
  readonly agent: string
  /** Where it came from: who may no longer call that may no longer read it. */
  readonly server: string
  readonly tool: string
}

/** Results that were too large for their agent, for ten minutes and in bounded memory: the oldest go first. */
export class KeptResults {
  readonly #results = new LRUCache<string, KeptResult>({
    ttl: TTL_MS,
    perf: { now: () => performance.now() }, // the clock of the moment, which a test may set
    ttlAutopurge: true, // what a backend answered does not lie about for longer than it can be read
    maxSize: MAX_CHARACTERS,
    sizeCalculation: weightOf,
    dispose: (result, handle) => this.#forget(handle, result),
  })
  readonly #shares = new Map<string, { weight: number; readonly handles: Set<string> }>()

  /** The handle it can be read by; undefined when it is too large to be kept. */
  keep(result: KeptResult): string | undefined {
    const weight = weightOf(result)
    if (weight > MAX_CHARACTERS_EACH) return undefined
    this.#makeRoom(result.principal, weight)
    const handle = randomBytes(18).toString('base64url')
    const share = this.#shares.get(result.principal) ?? { weight: 0, handles: new Set() }
    share.weight += weight
    share.handles.add(handle)
    this.#shares.set(result.principal, share)
    this.#results.set(handle, result)
    return handle
  }

  /** A handle of somebody else is as unknown as one that never was. */
  find(handle: string, { principal, agent }: { principal: string; agent: string }): KeptResult | undefined {
    const result = this.#results.peek(handle) // reading makes nothing younger: the order stays that of the calls
    return result?.principal === principal && result.agent === agent ? result : undefined
  }

  #makeRoom(principal: string, weight: number): void {
    const share = this.#shares.get(principal)
    for (const oldest of share?.handles ?? []) {
      if ((share?.weight ?? 0) + weight <= MAX_CHARACTERS_EACH) return
      this.#results.delete(oldest)
    }
  }

  #forget(handle: string, result: KeptResult): void {
    const share = this.#shares.get(result.principal)
    if (!share?.handles.delete(handle)) return
    share.weight -= weightOf(result)
    if (share.handles.size === 0) this.#shares.delete(result.principal)
  }
}

function weightOf({ length }: RenderedResult): number {
  return length + ENTRY_CHARACTERS
}
