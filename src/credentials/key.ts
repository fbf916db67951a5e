import { createHash, randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Env } from '../config/variables.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'

const KEY_BYTES = 32

/** The AES-256 key that seals every credential. `id` tells keys apart without telling the key. */
export interface SealingKey {
  readonly id: string
  readonly bytes: Buffer
  readonly source: string
}

export interface KeyOptions {
  readonly directory: string
  readonly env: Env
  /** True when something is sealed already: then a missing key is an error, never a reason to make a new one. */
  readonly sealedBefore: boolean
  readonly warn: (message: string) => void
}

/** Chooses the key (DESIGN section 5): environment, file named by the environment, own key file with mode 0600. */
export async function openSealingKey({ directory, env, sealedBefore, warn }: KeyOptions): Promise<SealingKey> {
  if (env.GATEWAY_CREDENTIALS_KEY) return toKey(env.GATEWAY_CREDENTIALS_KEY, 'GATEWAY_CREDENTIALS_KEY')
  const named = env.GATEWAY_CREDENTIALS_KEY_FILE
  if (named) return toKey(await readKeyFile(named), `GATEWAY_CREDENTIALS_KEY_FILE (${named})`)

  const file = join(directory, 'credentials.key')
  const existing = await readKeyFile(file).catch(ignoreMissing)
  if (existing !== undefined) return toKey(existing, file)
  if (sealedBefore) {
    throw new GatewayError(
      'CONFIG_INVALID',
      `the key of ${join(directory, 'credentials.json')} is gone: restore ${file}, set GATEWAY_CREDENTIALS_KEY, or delete credentials.json to start over`,
    )
  }
  await makeKeyFile(directory, file)
  warn(`credentials are sealed with the key file ${file}: keep it private, or set GATEWAY_CREDENTIALS_KEY`)
  return toKey(await readKeyFile(file), file)
}

function toKey(base64: string, source: string): SealingKey {
  const bytes = Buffer.from(base64.trim(), 'base64')
  if (bytes.length !== KEY_BYTES) {
    throw new GatewayError(
      'CONFIG_INVALID',
      `${source}: expected ${KEY_BYTES} bytes in base64, got ${bytes.length} bytes (try: openssl rand -base64 32)`,
    )
  }
  return { id: createHash('sha256').update('key id').update(bytes).digest('hex').slice(0, 8), bytes, source }
}

async function readKeyFile(file: string): Promise<string> {
  try {
    const { mode } = await stat(file)
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new GatewayError(
        'CONFIG_INVALID',
        `${file}: others may read it (mode ${(mode & 0o777).toString(8)}), expected 600: chmod 600 ${file}`,
      )
    }
    return await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof GatewayError) throw error
    throw new GatewayError('CONFIG_INVALID', `${file}: the key cannot be read: ${messageOf(error)}`, { cause: error })
  }
}

/** `link` fails when the file is there, so of several first starts one makes the key and the others read it. */
async function makeKeyFile(directory: string, file: string): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const temporary = `${file}.${randomBytes(6).toString('hex')}`
  const handle = await open(temporary, 'wx', 0o600)
  try {
    await handle.writeFile(`${randomBytes(KEY_BYTES).toString('base64')}\n`)
    await handle.sync()
    await handle.close()
    await link(temporary, file).catch(error => {
      if (!hasCode(error, 'EEXIST')) throw error
    })
  } finally {
    await rm(temporary, { force: true })
  }
}

function ignoreMissing(error: unknown): undefined {
  if (error instanceof GatewayError && hasCode(error.cause, 'ENOENT')) return undefined
  throw error
}

const hasCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code
