import { randomBytes, scrypt } from 'node:crypto'
import { z } from 'zod'
import { GatewayError } from '../errors/gateway-error.js'
import { parseJson } from '../json.js'
import { KEY_BYTES, Sealed, seal, unseal } from './sealing.js'
import type { Credential } from './store.js'

const FORMAT = 'agent-mcp-gateway-credentials'
const VERSION = 1
const SALT_BYTES = 16
// 128 MiB and about 0.4 s. The ceilings are for what a file may ask of us: 256 MiB and some seconds.
const COST = { N: 2 ** 17, r: 8, p: 1 }
const MAX_MEMORY_BYTES = 256 * 1024 * 1024
const MAX_BLOCK_SIZE = 16
const MAX_PASSES = 4
const MAX_TEXT_LENGTH = 64 * 1024 * 1024

const isPowerOfTwo = (n: number): boolean => Number.isInteger(Math.log2(n))

const Kdf = z
  .object({
    name: z.literal('scrypt'),
    N: z.int().min(2).refine(isPowerOfTwo),
    r: z.int().min(1).max(MAX_BLOCK_SIZE),
    p: z.int().min(1).max(MAX_PASSES),
    salt: z.base64().min(SALT_BYTES).max(128),
  })
  .refine(({ N, r }) => 128 * N * r <= MAX_MEMORY_BYTES)

const Header = z.object({ format: z.literal(FORMAT), version: z.literal(VERSION), kdf: Kdf })
const Portable = Header.extend({ sealed: Sealed })
const AnyVersion = z.object({ format: z.literal(FORMAT), version: z.number() })

const NamedCredentials = z.array(
  z
    .object({ name: z.string(), issuer: z.string(), resource: z.string(), value: z.unknown() })
    .refine(({ value }) => value !== undefined),
)

export type NamedCredential = Credential & { readonly name: string }

/** Credentials as a text that may leave the machine: whoever has the passphrase opens it anywhere. */
export async function sealWithPassphrase(credentials: readonly NamedCredential[], passphrase: string): Promise<string> {
  const salt = randomBytes(SALT_BYTES).toString('base64')
  const header = { format: FORMAT, version: VERSION, kdf: { name: 'scrypt', ...COST, salt } } as const
  const key = await deriveKey(passphrase, header.kdf)
  const content = credentials.map(({ name, issuer, resource, value }) => ({ name, issuer, resource, value }))
  return `${JSON.stringify({ ...header, sealed: seal(content, key, boundTo(header)) }, null, 2)}\n`
}

/** What `sealWithPassphrase` sealed. The text may be anybody's: what it asks of this machine is bounded. */
export async function openWithPassphrase(text: string, passphrase: string): Promise<readonly NamedCredential[]> {
  const { sealed, ...header } = parsePortable(text)
  const key = await deriveKey(passphrase, header.kdf)
  const opened = NamedCredentials.safeParse(unsealOrRefuse(sealed, key, header))
  if (!opened.success) throw refused('what is sealed in it is not a list of credentials')
  return opened.data
}

function parsePortable(text: string): z.infer<typeof Portable> {
  if (text.length > MAX_TEXT_LENGTH) throw refused(`it is longer than ${MAX_TEXT_LENGTH / 1024 / 1024} MiB`)
  const value = parseJson(text)?.value
  const parsed = Portable.safeParse(value)
  if (parsed.success) return parsed.data
  const known = AnyVersion.safeParse(value)
  if (!known.success) throw refused('it is not a file of "gateway credentials export"')
  if (known.data.version > VERSION) throw refused('a newer version of the gateway wrote it, use that version here too')
  throw refused('it is damaged')
}

function unsealOrRefuse(sealed: Sealed, key: Buffer, header: z.infer<typeof Header>): unknown {
  try {
    return unseal(sealed, key, boundTo(header))
  } catch {
    throw refused('the passphrase is wrong, or it is damaged')
  }
}

const refused = (why: string): GatewayError =>
  new GatewayError('LOGIN_FAILED', `the exported credentials cannot be opened: ${why}`)

const boundTo = ({ format, version, kdf }: z.infer<typeof Header>): readonly unknown[] => [
  format,
  version,
  kdf.name,
  kdf.N,
  kdf.r,
  kdf.p,
  kdf.salt,
]

function deriveKey(passphrase: string, { N, r, p, salt }: z.infer<typeof Kdf>): Promise<Buffer> {
  if (passphrase === '') throw new GatewayError('LOGIN_FAILED', 'the passphrase is empty')
  // Keyboards differ in how they compose an accented letter.
  const secret = passphrase.normalize('NFC')
  const options = { N, r, p, maxmem: 2 * MAX_MEMORY_BYTES }
  return new Promise((resolve, reject) => {
    scrypt(secret, Buffer.from(salt, 'base64'), KEY_BYTES, options, (error, key) =>
      error ? reject(error) : resolve(key),
    )
  })
}
