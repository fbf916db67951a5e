import { hash } from 'node:crypto'
import type { Tool } from '@modelcontextprotocol/server'

/** Servers that change a list change it several times in a row, and some never stop. */
export const SETTLE_MS = 50
export const PAUSE_MS = 1_000

/** Notices when the tools that one caller sees have changed: what the others see is no news to it. */
export class VisibleTools {
  readonly #list: () => Promise<readonly Tool[]>
  readonly #onChange: () => void
  #seen: Promise<string | undefined>
  #timer: NodeJS.Timeout | undefined
  #checkedAt = 0

  /** `list` reads them; the first time at once, for there is nothing to compare with yet. */
  constructor(list: () => Promise<readonly Tool[]>, onChange: () => void) {
    this.#list = list
    this.#onChange = onChange
    this.#seen = this.#read()
  }

  /** Resolves when there is something to compare with. */
  async ready(): Promise<void> {
    await this.#seen
  }

  /** Something has changed, perhaps nothing that shows. */
  check(): void {
    const delayMs = Math.max(SETTLE_MS, this.#checkedAt + PAUSE_MS - Date.now())
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      this.#checkedAt = Date.now()
      void this.#compare()
    }, delayMs).unref()
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  async #compare(): Promise<void> {
    const before = await this.#seen
    this.#seen = this.#read()
    const now = await this.#seen
    if (now !== before) this.#onChange()
  }

  async #read(): Promise<string | undefined> {
    try {
      return hash('sha256', JSON.stringify(await this.#list()), 'base64')
    } catch {
      return undefined // a server that cannot be had shows no tools
    }
  }
}
