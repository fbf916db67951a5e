import { z } from 'zod'
import type { SealingKey } from './key.js'
import { FORMAT_VERSION } from './sealed-file.js'
import { Sealed, seal, unseal } from './sealing.js'

/** What an entry says in the clear, and what it keeps sealed. The three names are bound in: sealed under these, it opens under no other. */
export interface Credential {
  readonly issuer: string
  readonly resource: string
  /** Anything that JSON can hold. */
  readonly value: unknown
}

const SealedEntry = Sealed.extend({ issuer: z.string(), resource: z.string() })

/** One entry as it is in the file. */
export type SealedEntry = z.infer<typeof SealedEntry>

export const parseEntry = (stored: unknown): SealedEntry | undefined => SealedEntry.safeParse(stored).data

export function openEntry(name: string, entry: SealedEntry, key: SealingKey): Credential | 'damaged' {
  const { issuer, resource } = entry
  try {
    return { issuer, resource, value: unseal(entry, key.bytes, boundTo(name, issuer, resource)) }
  } catch {
    return 'damaged'
  }
}

export function sealEntry(name: string, { issuer, resource, value }: Credential, key: SealingKey): SealedEntry {
  return { issuer, resource, ...seal(value, key.bytes, boundTo(name, issuer, resource)) }
}

const boundTo = (...names: readonly [name: string, issuer: string, resource: string]) => [FORMAT_VERSION, ...names]
