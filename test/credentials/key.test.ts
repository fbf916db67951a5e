import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openSealingKey } from '../../src/credentials/key.js'

let directory: string
let warnings: string[]
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-key-'))
  warnings = []
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const newKey = () => randomBytes(32).toString('base64')
const ownFile = () => join(directory, 'credentials.key')
const open = (env: Record<string, string> = {}, sealedBefore = false) =>
  openSealingKey({ directory, env, sealedBefore, warn: message => warnings.push(message) })

async function writeKeyFile(name: string, key: string, mode = 0o600): Promise<string> {
  const file = join(directory, name)
  await writeFile(file, `${key}\n`)
  await chmod(file, mode)
  return file
}

describe('the key comes from', () => {
  test('GATEWAY_CREDENTIALS_KEY, before any file', async () => {
    const key = newKey()
    const file = await writeKeyFile('other.key', newKey())
    await writeKeyFile('credentials.key', newKey())
    const opened = await open({ GATEWAY_CREDENTIALS_KEY: key, GATEWAY_CREDENTIALS_KEY_FILE: file })
    expect(opened.bytes.toString('base64')).toBe(key)
  })

  test('GATEWAY_CREDENTIALS_KEY_FILE, before its own file', async () => {
    const key = newKey()
    await writeKeyFile('credentials.key', newKey())
    const opened = await open({ GATEWAY_CREDENTIALS_KEY_FILE: await writeKeyFile('other.key', key) })
    expect(opened.bytes.toString('base64')).toBe(key)
  })

  test('its own file, which the first to ask makes, with one warning', async () => {
    const made = await open({ GATEWAY_CREDENTIALS_KEY: '', GATEWAY_CREDENTIALS_KEY_FILE: '' })
    expect(made.bytes).toHaveLength(32)
    expect(warnings).toHaveLength(1)
    expect((await stat(ownFile())).mode & 0o777).toBe(0o600)
    expect(await open({}, true)).toEqual(made)
    expect(warnings).toHaveLength(1)
    expect(await readdir(directory)).toEqual(['credentials.key'])
  })

  test('one file, however many make it at once', async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, () => open()))
    expect(new Set(opened.map(({ id }) => id)).size).toBe(1)
    expect(await readdir(directory)).toEqual(['credentials.key'])
  })
})

describe('a key is refused', () => {
  test.each([
    ['too short', randomBytes(31).toString('base64')],
    ['too long', randomBytes(33).toString('base64')],
    ['in hex', randomBytes(32).toString('hex')],
    ['a passphrase', 'correct horse battery staple'],
  ])('%s', async (_, key) => {
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.not.stringContaining(key) })
    await expect(open({ GATEWAY_CREDENTIALS_KEY: key })).rejects.toEqual(refused)
    const file = await writeKeyFile('other.key', key)
    await expect(open({ GATEWAY_CREDENTIALS_KEY_FILE: file })).rejects.toEqual(refused)
  })

  test.each([0o644, 0o640, 0o604, 0o660, 0o666])('in a file of mode %o, which others may use', async mode => {
    const file = await writeKeyFile('credentials.key', newKey(), mode)
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(file) })
    await expect(open({ GATEWAY_CREDENTIALS_KEY_FILE: file })).rejects.toEqual(refused)
    await expect(open()).rejects.toEqual(refused)
  })

  test('in a file that is not there', async () => {
    const file = join(directory, 'missing.key')
    await expect(open({ GATEWAY_CREDENTIALS_KEY_FILE: file })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining(file),
    })
  })

  test('when it is gone and something is sealed with it: no new one is made', async () => {
    await expect(open({}, true)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    expect(await readdir(directory)).toEqual([])
  })
})

test('its id tells keys apart and does not tell the key', async () => {
  const key = newKey()
  const { id } = await open({ GATEWAY_CREDENTIALS_KEY: key })
  expect((await open({ GATEWAY_CREDENTIALS_KEY: newKey() })).id).not.toBe(id)
  expect((await open({ GATEWAY_CREDENTIALS_KEY: key })).id).toBe(id)
  expect(await readFile(await writeKeyFile('x', key), 'utf8')).not.toContain(id)
})
