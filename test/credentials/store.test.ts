import { mkdir, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { newKey, scriptedKeychain, useStateDirectory, workingKeychain } from './state-directory.js'

const state = useStateDirectory()
const file = () => state.at('credentials.json')

const notion = { issuer: 'https://idp.example', resource: 'https://mcp.notion.com/mcp' }
const login = { ...notion, value: { access_token: 'the-secret', scopes: ['a'] } }
const other = { issuer: 'https://github.com/login/oauth', resource: 'https://api.githubcopilot.com/mcp/', value: 2 }

describe('the store', () => {
  test('gives back what was put in, to whoever opens it next', async () => {
    const store = state.open()
    expect(await store.read('notion')).toBeUndefined()
    expect(await store.update('notion', current => current ?? login)).toEqual(login)
    expect(await store.read('notion')).toEqual(login)
    expect(await state.open().read('notion')).toEqual(login)
    const next = { ...login, value: 'next' }
    expect(await state.open().update('notion', async current => current && next)).toEqual(next)
    expect(await store.read('notion')).toEqual(next)
    expect(await store.read('github')).toBeUndefined()
  })

  test('keeps every entry beside the others, and deletes one alone', async () => {
    const store = state.open()
    await store.update('notion', () => login)
    await store.update('github', () => other)
    expect(await store.update('notion', () => undefined)).toBeUndefined()
    expect([await store.read('notion'), await store.read('github')]).toEqual([undefined, other])
    await store.update('github', () => undefined)
    expect(await store.list()).toEqual([])
    await store.update('notion', () => login)
    expect(await state.open().read('notion')).toEqual(login)
  })

  test('takes any name a server may have', async () => {
    const store = state.open()
    const names = ['constructor', '__proto__', 'toString', 'my server', '\u{1F600}', '../../x', 'a'.repeat(300), '']
    for (const name of names) {
      expect(await store.read(name)).toBeUndefined()
      await store.update(name, () => ({ ...notion, value: name }))
      expect(await store.exclusively(name, () => store.read(name))).toEqual({ ...notion, value: name })
    }
    expect((await store.list()).map(({ name }) => name)).toEqual(names.sort())
    expect((await readdir(state.directory)).sort()).toEqual(['credentials.json', 'credentials.key'])
    expect(state.warnings).toHaveLength(1) // the one about the key file
  })

  test.each([0, 64 * 1024, 1024 * 1024])('takes a value of %i bytes', async size => {
    const long = { ...notion, value: { id_token: 'é'.repeat(size / 2) } }
    await state.open().update('notion', () => long)
    expect(await state.open().read('notion')).toEqual(long)
  })

  test('makes what only its owner may read, and leaves nothing else behind', async () => {
    const directory = state.at('a/b')
    const store = openCredentialStore({ directory, env: { GATEWAY_KEYCHAIN: 'off' }, warn: state.warn })
    await store.exclusively('notion', () => store.update('notion', () => login))
    const modes = await Promise.all(
      ['', 'credentials.json', 'credentials.key'].map(name => stat(join(directory, name))),
    )
    expect(modes.map(({ mode }) => mode & 0o777)).toEqual([0o700, 0o600, 0o600])
    expect((await readdir(directory)).sort()).toEqual(['credentials.json', 'credentials.key'])
  })

  test('writes no secret in the clear', async () => {
    await state.open().update('notion', () => login)
    const text = await readFile(file(), 'utf8')
    expect(text).not.toContain('the-secret')
    expect(text).not.toContain(Buffer.from('the-secret').toString('base64'))
  })

  test('does not touch the file when nothing changed or the change failed', async () => {
    const store = state.open()
    await store.update('notion', () => login)
    const before = await readFile(file(), 'utf8')
    await store.update('notion', current => current && { value: current.value, ...notion })
    await store.update('github', () => undefined)
    await expect(store.update('notion', () => Promise.reject(new Error('no network')))).rejects.toThrow('no network')
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await store.update('notion', () => other)).toEqual(other)
  })

  test('makes no key and no file for what is not kept', async () => {
    const keychain = scriptedKeychain()
    const store = openCredentialStore({ directory: state.directory, env: {}, warn: state.warn, keychain })
    expect(await store.read('notion')).toBeUndefined()
    expect(await store.update('notion', () => undefined)).toBeUndefined()
    expect([await store.list(), keychain.asked, await readdir(state.directory)]).toEqual([[], [], []])
  })

  test('reads the file again only when it changed', async () => {
    const store = state.open()
    await store.update('notion', () => login)
    const setTime = (seconds: number) => utimes(file(), seconds, seconds)
    await setTime(1_000_000_000)
    expect(await store.read('notion')).toEqual(login)
    const text = await readFile(file(), 'utf8')
    await writeFile(file(), 'x'.repeat(text.length))
    await setTime(1_000_000_000)
    expect(await store.read('notion')).toEqual(login)
    await setTime(1_000_000_001)
    expect(await store.read('notion')).toBeUndefined()
  })

  test('an update of one is seen by all, however close together they come', async () => {
    const stores = [state.open(), state.open()]
    for (let value = 0; value < 50; value++) {
      await stores[value % 2]?.update('notion', () => ({ ...notion, value }))
      expect(await Promise.all(stores.map(store => store.read('notion')))).toEqual(
        stores.map(() => ({ ...notion, value })),
      )
    }
  })

  test('lists names, issuers and resources, with no key at hand', async () => {
    const store = state.open()
    await store.update('notion', () => login)
    await store.update('github', () => other)
    await rm(state.at('credentials.key'))
    const keychain = scriptedKeychain()
    const keyless = openCredentialStore({ directory: state.directory, env: {}, warn: state.warn, keychain })
    expect(await keyless.list()).toEqual([
      { name: 'github', issuer: other.issuer, resource: other.resource },
      { name: 'notion', ...notion },
    ])
    expect(await keyless.read('jira')).toBeUndefined()
    expect(keychain.asked).toEqual([])
  })

  test('says what to do where it cannot write', async () => {
    await writeFile(state.at('taken'), '')
    const store = openCredentialStore({ directory: state.at('taken/state'), env: {}, warn: state.warn })
    const refused = { code: 'CONFIG_INVALID', message: expect.stringMatching(/taken.*GATEWAY_STATE_DIR/) }
    await expect(store.update('notion', () => login)).rejects.toMatchObject(refused)
    await expect(store.exclusively('notion', async () => 1)).rejects.toMatchObject(refused)
  })

  test('leaves a file of a newer version alone', async () => {
    const text = '{"version": 2, "vault": {}}'
    await writeFile(file(), text)
    const store = state.open()
    const refused = { code: 'CONFIG_INVALID', message: expect.stringMatching(/newer version.*format 2/) }
    await expect(store.read('notion')).rejects.toMatchObject(refused)
    await expect(store.update('notion', () => login)).rejects.toMatchObject(refused)
    await expect(store.list()).rejects.toMatchObject(refused)
    expect(await readFile(file(), 'utf8')).toBe(text)
  })
})

describe('what killed writers left', () => {
  test('is swept when it is old', async () => {
    const minutesAgo = (minutes: number) => Date.now() / 1000 - 60 * minutes
    const leave = async (name: string, minutes: number) => {
      await (name.endsWith('.lock') ? mkdir(state.at(name)) : writeFile(state.at(name), ''))
      await utimes(state.at(name), minutesAgo(minutes), minutesAgo(minutes))
    }
    await leave('credentials.json.0123456789ab.tmp', 2)
    await leave('credentials.json.ba9876543210.tmp', 0)
    await leave('credentials.0123456789abcdef.lock', 2 * 24 * 60)
    await leave('credentials.fedcba9876543210.lock', 60)
    await leave('unrelated.tmp', 2)
    await state.open({ GATEWAY_CREDENTIALS_KEY: newKey() }).update('notion', () => login)
    expect((await readdir(state.directory)).sort()).toEqual([
      'credentials.fedcba9876543210.lock',
      'credentials.json',
      'credentials.json.ba9876543210.tmp',
      'unrelated.tmp',
    ])
  })
})

describe('the key', () => {
  test('when it is another one, that is said, and nothing is overwritten', async () => {
    await state.open({ GATEWAY_CREDENTIALS_KEY: newKey() }).update('notion', () => login)
    const before = await readFile(file(), 'utf8')
    const store = state.open({ GATEWAY_CREDENTIALS_KEY: newKey() })
    const refused = { code: 'CONFIG_INVALID', message: expect.stringMatching(/another key.*GATEWAY_CREDENTIALS_KEY/) }
    await expect(store.read('notion')).rejects.toMatchObject(refused)
    await expect(store.update('notion', () => other)).rejects.toMatchObject(refused)
    await expect(store.update('github', () => other)).rejects.toMatchObject(refused)
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await readdir(state.directory)).toEqual(['credentials.json'])
  })

  test('when it is gone, no new one is made', async () => {
    await state.open().update('notion', () => login)
    await rm(state.at('credentials.key'))
    const before = await readFile(file(), 'utf8')
    await expect(state.open().update('notion', () => other)).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await readdir(state.directory)).toEqual(['credentials.json'])
  })

  test('in the keychain is asked for once', async () => {
    const keychain = workingKeychain()
    const openIt = () => openCredentialStore({ directory: state.directory, env: {}, warn: state.warn, keychain })
    const store = openIt()
    await store.update('notion', () => login)
    expect(keychain.asked).toEqual(['get', 'set', 'get'])
    expect(await Promise.all([store.read('notion'), store.read('notion')])).toEqual([login, login])
    expect(keychain.asked).toHaveLength(3)
    const next = openIt()
    await Promise.all([next.read('notion'), next.read('notion'), next.update('github', () => other)])
    expect(await next.read('notion')).toEqual(login)
    expect(keychain.asked).toHaveLength(4)
    expect([state.warnings, await readdir(state.directory)]).toEqual([[], ['credentials.json']])
  })

  test('is looked for again after somebody else started over', async () => {
    const store = state.open()
    await store.update('notion', () => login)
    expect(await store.read('notion')).toEqual(login)
    await rm(state.directory, { recursive: true })
    await state.open().update('notion', () => other)
    expect(await store.read('notion')).toEqual(other)
    await rm(state.directory, { recursive: true })
    await store.update('notion', () => login)
    expect(await state.open().read('notion')).toEqual(login)
  })
})
