import { randomBytes } from 'node:crypto'
import { chmod, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { createSealingKeys, openSealingKey } from '../../src/credentials/key.js'
import type { Keychain, KeychainAnswer } from '../../src/credentials/keychain.js'
import { newKey, scriptedKeychain, useStateDirectory, workingKeychain } from './state-directory.js'

const state = useStateDirectory()
const ownFile = () => state.at('credentials.key')
const files = () => readdir(state.directory)

const unavailable = { state: 'unavailable', reason: 'the reason' } as const
const absent = { state: 'absent' } as const
const found = (secret: string) => ({ state: 'found', secret }) as const

interface Asked {
  readonly env?: Record<string, string>
  readonly sealedBefore?: boolean
  readonly keychain?: Keychain
}
const open = ({ env = {}, sealedBefore = false, keychain = scriptedKeychain(unavailable) }: Asked = {}) =>
  openSealingKey({ directory: state.directory, env, sealedBefore, keychain, warn: state.warn })
const base64 = async (opened: ReturnType<typeof open>) => (await opened).bytes.toString('base64')

async function writeKeyFile(name: string, key: string, mode = 0o600): Promise<string> {
  await writeFile(state.at(name), `${key}\n`)
  await chmod(state.at(name), mode)
  return state.at(name)
}

describe('the key comes from', () => {
  test.each([false, true])('GATEWAY_CREDENTIALS_KEY, before anything else', async sealedBefore => {
    const key = newKey()
    const keychain = workingKeychain(newKey())
    const file = await writeKeyFile('other.key', newKey())
    await writeKeyFile('credentials.key', newKey())
    const env = { GATEWAY_CREDENTIALS_KEY: key, GATEWAY_CREDENTIALS_KEY_FILE: file }
    expect(await base64(open({ env, keychain, sealedBefore }))).toBe(key)
    expect(keychain.asked).toEqual([])
  })

  test.each([false, true])('GATEWAY_CREDENTIALS_KEY_FILE, before its own file', async sealedBefore => {
    const key = newKey()
    const keychain = workingKeychain(newKey())
    await writeKeyFile('credentials.key', newKey())
    const env = { GATEWAY_CREDENTIALS_KEY_FILE: await writeKeyFile('other.key', key) }
    expect(await base64(open({ env, keychain, sealedBefore }))).toBe(key)
    expect(keychain.asked).toEqual([])
  })

  test.each([false, true])('its own file when there is one, before the keychain', async sealedBefore => {
    const key = newKey()
    const keychain = workingKeychain(newKey())
    await writeKeyFile('credentials.key', key)
    expect(await base64(open({ keychain, sealedBefore }))).toBe(key)
    expect([keychain.asked, state.warnings]).toEqual([[], []])
  })

  test.each([false, true])('the keychain when it has one', async sealedBefore => {
    const key = newKey()
    const keychain = workingKeychain(key)
    expect(await base64(open({ keychain, sealedBefore }))).toBe(key)
    expect([keychain.asked, state.warnings, await files()]).toEqual([['get'], [], []])
  })

  test('the keychain after it was put there, once it is read back', async () => {
    const keychain = workingKeychain()
    const { id } = await open({ keychain })
    expect(keychain.asked).toEqual(['get', 'set', 'get'])
    expect((await open({ keychain, sealedBefore: true })).id).toBe(id)
    expect([state.warnings, await files()]).toEqual([[], []])
  })

  test('the keychain as it is read back, should somebody else have been faster', async () => {
    const key = newKey()
    const keychain = scriptedKeychain(absent, found(newKey()), found(key))
    expect(await base64(open({ keychain }))).toBe(key)
  })

  test.each<[what: string, why: string, answers: readonly KeychainAnswer[]]>([
    ['cannot be reached', 'the reason', [unavailable]],
    ['cannot be written', 'the reason', [absent, unavailable]],
    ['cannot be read again', 'the reason', [absent, found(newKey()), unavailable]],
    ['does not keep what it is given', 'holds no key', [absent, found(newKey()), absent]],
    ['has something else', 'not a key', [found('something else')]],
    ['gives back something else', 'not a key', [absent, found(newKey()), found('')]],
  ])('its own file, which the first to ask makes, when the keychain %s', async (_, why, answers) => {
    const made = await open({ keychain: scriptedKeychain(...answers), env: { GATEWAY_CREDENTIALS_KEY: '' } })
    expect(made.bytes).toHaveLength(32)
    expect(state.warnings).toEqual([expect.stringMatching(new RegExp(`credentials\\.key.*keychain \\(.*${why}`))])
    expect((await stat(ownFile())).mode & 0o777).toBe(0o600)
    expect(await open({ sealedBefore: true })).toEqual(made)
    expect([state.warnings.length, await files()]).toEqual([1, ['credentials.key']])
  })

  test('one file, however many make it at once', async () => {
    const opened = await Promise.all(Array.from({ length: 8 }, () => open()))
    expect(new Set(opened.map(({ id }) => id)).size).toBe(1)
    expect(await files()).toEqual(['credentials.key'])
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
    await expect(open({ env: { GATEWAY_CREDENTIALS_KEY: key } })).rejects.toEqual(refused)
    const file = await writeKeyFile('other.key', key)
    await expect(open({ env: { GATEWAY_CREDENTIALS_KEY_FILE: file } })).rejects.toEqual(refused)
    await writeKeyFile('credentials.key', key)
    await expect(open()).rejects.toEqual(refused)
  })

  test.each([0o644, 0o640, 0o604, 0o660, 0o666])('in a file of mode %o, which others may use', async mode => {
    const file = await writeKeyFile('credentials.key', newKey(), mode)
    const refused = expect.objectContaining({ code: 'CONFIG_INVALID', message: expect.stringContaining(file) })
    await expect(open({ env: { GATEWAY_CREDENTIALS_KEY_FILE: file } })).rejects.toEqual(refused)
    await expect(open()).rejects.toEqual(refused)
  })

  test('in a file that is not there', async () => {
    const file = state.at('missing.key')
    await expect(open({ env: { GATEWAY_CREDENTIALS_KEY_FILE: file } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining(file),
    })
  })
})

describe('with something sealed already, no new key is made', () => {
  test.each<[what: string, why: string, answer: KeychainAnswer]>([
    ['cannot be reached', 'the reason', unavailable],
    ['has none, or is locked and says so', 'or is locked', absent],
    ['has something else', 'not a key', found('something else')],
  ])('when the keychain %s', async (_, why, answer) => {
    const keychain = scriptedKeychain(answer)
    await expect(open({ keychain, sealedBefore: true })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(new RegExp(`${why}.*Unlock.*GATEWAY_CREDENTIALS_KEY.*delete credentials\\.json`)),
    })
    expect([keychain.asked, await files(), state.warnings]).toEqual([['get'], [], []])
  })

  test('and a keychain that failed is left in peace for a while', async () => {
    const keychain = scriptedKeychain(unavailable)
    const keys = createSealingKeys({ directory: state.directory, env: {}, keychain, warn: state.warn })
    for (let i = 0; i < 3; i++) await expect(keys.forSealed('0123')).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    expect(keychain.asked).toEqual(['get'])
  })
})

test('its id tells keys apart and does not tell the key', async () => {
  const key = newKey()
  const { id } = await open({ env: { GATEWAY_CREDENTIALS_KEY: key } })
  expect((await open({ env: { GATEWAY_CREDENTIALS_KEY: newKey() } })).id).not.toBe(id)
  expect((await open({ env: { GATEWAY_CREDENTIALS_KEY: key } })).id).toBe(id)
  expect(await readFile(await writeKeyFile('x', key), 'utf8')).not.toContain(id)
})
