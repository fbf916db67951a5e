import type { PriorDiscovery } from '@modelcontextprotocol/client'

// An upgraded server still answers `initialize`, so nothing but its age ever corrects the verdict "legacy".
const LIFETIME_MS = 24 * 60 * 60_000

/** What the last connect found out about a backend's era, remembered for a day. */
export class EraVerdict {
  readonly #lifetimeMs: number
  #verdict: PriorDiscovery | undefined
  #since = 0

  constructor(lifetimeMs = LIFETIME_MS) {
    this.#lifetimeMs = lifetimeMs
  }

  get(now = Date.now()): PriorDiscovery | undefined {
    return this.#verdict && now - this.#since < this.#lifetimeMs ? this.#verdict : undefined
  }

  /** A verdict that was reused keeps its age: only a new one is dated anew. */
  set(verdict: PriorDiscovery, now = Date.now()): void {
    if (this.get(now)?.kind === verdict.kind) return
    this.#verdict = verdict
    this.#since = now
  }

  forget(): void {
    this.#verdict = undefined
  }
}
