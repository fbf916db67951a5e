import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { z } from 'zod'
import { parseJson } from '../json.js'

const CIPHER = 'aes-256-gcm'

export const KEY_BYTES = 32

/** AES-256-GCM output, each part in base64. */
export const Sealed = z.object({ iv: z.string(), tag: z.string(), data: z.string() })
export type Sealed = z.infer<typeof Sealed>

/** Seals a JSON value; it opens only with the same key and the same `boundTo`, which is not kept in it. */
export function seal(value: unknown, key: Buffer, boundTo: readonly unknown[]): Sealed {
  const iv = randomBytes(12)
  const cipher = createCipheriv(CIPHER, key, iv).setAAD(toAad(boundTo))
  const data = Buffer.concat([cipher.update(JSON.stringify(value), 'utf8'), cipher.final()])
  const encode = (bytes: Buffer) => bytes.toString('base64')
  return { iv: encode(iv), tag: encode(cipher.getAuthTag()), data: encode(data) }
}

/** Throws when the key, `boundTo` or any bit of it is another. */
export function unseal({ iv, tag, data }: Sealed, key: Buffer, boundTo: readonly unknown[]): unknown {
  const decode = (text: string) => Buffer.from(text, 'base64')
  const decipher = createDecipheriv(CIPHER, key, decode(iv), { authTagLength: 16 })
    .setAAD(toAad(boundTo))
    .setAuthTag(decode(tag))
  const opened = parseJson(Buffer.concat([decipher.update(decode(data)), decipher.final()]).toString('utf8'))
  if (!opened) throw new Error('what was sealed is not JSON')
  return opened.value
}

const toAad = (boundTo: readonly unknown[]): Buffer => Buffer.from(JSON.stringify(boundTo))
