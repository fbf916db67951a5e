import { randomBytes } from 'node:crypto'
import { KEY_BYTES, Sealed, seal, unseal } from '../credentials/sealing.js'
import { isJsonObject, parseJson } from '../json.js'

/** What a sealed text is good for: only the same principal, asking the same thing, can use it. */
export type Binding = readonly unknown[]

// Far more than any state or cursor has; the rest is an attempt.
const MAX_LENGTH = 1024 * 1024

/**
 * Texts that callers carry for the gateway: `requestState` of multi round-trip requests and cursors. They are the caller's to lose or
 * to tamper with, so they are encrypted and say nothing to anybody else (2026-07-28, "Multi Round-Trip Requests", security).
 * The key lives as long as the process: a restart is an expiry.
 */
export class SealedState {
  readonly #key = randomBytes(KEY_BYTES)

  seal(value: unknown, ttlMs: number, binding: Binding): string {
    const { iv, tag, data } = seal({ value, expires: Date.now() + ttlMs }, this.#key, binding)
    return Buffer.from(JSON.stringify([iv, tag, data])).toString('base64url')
  }

  /** What was sealed; undefined when the text is not one of ours, was bound to something else, or has expired. */
  open(text: unknown, binding: Binding): { readonly value: unknown } | undefined {
    if (typeof text !== 'string' || text.length > MAX_LENGTH) return undefined
    const bytes = Buffer.from(text, 'base64url')
    if (bytes.toString('base64url') !== text) return undefined // with something added that decoding overlooks
    const parts = parseJson(bytes.toString('utf8'))?.value
    const sealed = Array.isArray(parts) ? Sealed.safeParse({ iv: parts[0], tag: parts[1], data: parts[2] }) : undefined
    if (!sealed?.success) return undefined
    try {
      const opened = unseal(sealed.data, this.#key, binding)
      if (!isJsonObject(opened) || typeof opened.expires !== 'number' || opened.expires < Date.now()) return undefined
      return { value: opened.value }
    } catch {
      return undefined
    }
  }
}
