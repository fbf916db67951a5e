import { randomBytes } from 'node:crypto'
import { link, mkdir, open, readFile, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { hasCode } from './file-errors.js'

/** The text of a key file; undefined when there is none. A file that others may read is refused. */
export async function readKeyFile(file: string): Promise<string | undefined> {
  try {
    const { mode } = await stat(file)
    // Modes mean nothing on Windows: there the profile's access list keeps others out.
    if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
      throw new GatewayError(
        'CONFIG_INVALID',
        `${file}: others may read it (mode ${(mode & 0o777).toString(8)}), expected 600: chmod 600 ${file}`,
      )
    }
    return await readFile(file, 'utf8')
  } catch (error) {
    if (error instanceof GatewayError) throw error
    if (hasCode(error, 'ENOENT')) return undefined
    throw new GatewayError('CONFIG_INVALID', `${file}: the key cannot be read: ${messageOf(error)}`, { cause: error })
  }
}

/** `link` fails when the file is there, so of several first starts one makes the key and the others read it. */
export async function makeKeyFile(file: string, key: string): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`
  try {
    const handle = await open(temporary, 'wx', 0o600)
    try {
      await handle.writeFile(`${key}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(temporary, file).catch(error => {
      if (!hasCode(error, 'EEXIST')) throw error
    })
  } finally {
    await rm(temporary, { force: true })
  }
}
