import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'

let directory: string
let warnings: string[]
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-credentials-'))
  warnings = []
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const notion = { name: 'notion', issuer: 'https://idp.example', resource: 'https://mcp.notion.com/mcp' }
const github = { ...notion, name: 'github', resource: 'https://api.githubcopilot.com/mcp/' }
const login = { access_token: 'the-secret', scopes: ['a'] }

const file = () => join(directory, 'credentials.json')
const openStore = (env: Record<string, string> = {}) =>
  openCredentialStore({ directory, env, warn: message => warnings.push(message) })
const newKey = () => ({ GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64') })

interface Written {
  version: number
  keyId: string
  entries: Record<string, Record<string, string>>
}

async function change(edit: (written: Written) => void): Promise<void> {
  const written: Written = JSON.parse(await readFile(file(), 'utf8'))
  edit(written)
  await writeFile(file(), JSON.stringify(written))
}

describe('the store', () => {
  test('gives back what was put in, to whoever opens it next', async () => {
    const store = openStore()
    expect(await store.read(notion)).toBeUndefined()
    expect(await store.update(notion, current => (current === undefined ? login : 'unexpected'))).toEqual(login)
    expect(await store.read(notion)).toEqual(login)
    expect(await openStore().read(notion)).toEqual(login)
    expect(await openStore().update(notion, current => ({ before: current }))).toEqual({ before: login })
    expect(await store.read(notion)).toEqual({ before: login })
    expect(await store.read(github)).toBeUndefined()
  })

  test('keeps every entry beside the others', async () => {
    const store = openStore()
    await store.update(notion, () => 1)
    await store.update(github, () => 2)
    expect([await store.read(notion), await store.read(github)]).toEqual([1, 2])
  })

  test('takes any name a server may have', async () => {
    const store = openStore()
    for (const name of ['constructor', 'toString', 'my server', '\u{1F600}']) {
      expect(await store.read({ ...notion, name })).toBeUndefined()
      await store.update({ ...notion, name }, () => name)
      expect(await store.read({ ...notion, name })).toBe(name)
    }
    expect(warnings).toHaveLength(1) // the one about the key file
  })

  test('makes what only its owner may read, and leaves nothing else behind', async () => {
    const inside = join(directory, 'state')
    await openCredentialStore({ directory: inside, env: {}, warn: () => undefined }).update(notion, () => login)
    const modes = await Promise.all(['', 'credentials.json', 'credentials.key'].map(name => stat(join(inside, name))))
    expect(modes.map(({ mode }) => mode & 0o777)).toEqual([0o700, 0o600, 0o600])
    expect((await readdir(inside)).sort()).toEqual(['credentials.json', 'credentials.key'])
  })

  test('writes no secret in the clear', async () => {
    await openStore().update(notion, () => login)
    const text = await readFile(file(), 'utf8')
    expect(text).not.toContain(login.access_token)
    expect(text).not.toContain(Buffer.from(login.access_token).toString('base64'))
  })

  test('does not touch the file when nothing changed or the change failed', async () => {
    const store = openStore()
    await store.update(notion, () => login)
    const before = await readFile(file(), 'utf8')
    await store.update(notion, () => ({ ...login }))
    await expect(store.update(notion, () => Promise.reject(new Error('no network')))).rejects.toThrow('no network')
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await store.update(notion, () => 'unlocked')).toBe('unlocked')
  })
})

describe('the wrong key', () => {
  test('is said to be wrong, and nothing is overwritten', async () => {
    await openStore(newKey()).update(notion, () => login)
    const before = await readFile(file(), 'utf8')
    const store = openStore(newKey())
    const refused = expect.objectContaining({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/another key.*GATEWAY_CREDENTIALS_KEY/),
    })
    await expect(store.read(notion)).rejects.toEqual(refused)
    await expect(store.update(notion, () => 'new')).rejects.toEqual(refused)
    await expect(store.update(github, () => 'new')).rejects.toEqual(refused)
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await readdir(directory)).toEqual(['credentials.json'])
  })

  test('no key at all is an error too, and no new one is made', async () => {
    await openStore().update(notion, () => login)
    await rm(join(directory, 'credentials.key'))
    const before = await readFile(file(), 'utf8')
    await expect(openStore().update(notion, () => 'new')).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
    expect(await readFile(file(), 'utf8')).toBe(before)
    expect(await readdir(directory)).toEqual(['credentials.json'])
  })
})

describe('a damaged entry costs only itself', () => {
  test.each<[what: string, edit: (written: Written) => void]>([
    ['other bytes', ({ entries }) => void Object.assign(entries.notion ?? {}, { data: 'AAAA' })],
    [
      'a short tag',
      ({ entries }) => void Object.assign(entries.notion ?? {}, { tag: entries.notion?.tag?.slice(0, 4) }),
    ],
    ['no iv', ({ entries }) => void Object.assign(entries.notion ?? {}, { iv: '' })],
    ['not an entry', written => void Object.assign(written.entries, { notion: 'x' })],
    ['null', written => void Object.assign(written.entries, { notion: null })],
    ['moved here from another name', ({ entries }) => void Object.assign(entries, { notion: entries.github })],
  ])('%s', async (_, edit) => {
    const store = openStore()
    await store.update(notion, () => login)
    await store.update(github, () => 'kept')
    await change(edit)
    warnings = []
    expect(await store.read(notion)).toBeUndefined()
    expect(warnings).toEqual([expect.stringContaining('notion')])
    expect(await store.read(github)).toBe('kept')
    expect(await store.update(notion, current => current ?? 'again')).toBe('again')
    expect([await store.read(notion), await store.read(github)]).toEqual(['again', 'kept'])
  })

  test('sealed for one issuer and resource, it opens for no other', async () => {
    const store = openStore()
    await store.update(notion, () => login)
    expect(await store.read({ ...notion, issuer: 'https://evil.example' })).toBeUndefined()
    expect(await store.read({ ...notion, resource: 'https://evil.example/mcp' })).toBeUndefined()
    expect(await store.read(notion)).toEqual(login)
  })
})

describe('a damaged file', () => {
  test.each([
    ['no JSON', '{ "version": 1, "entr'],
    ['empty', ''],
    ['something else', '{ "hello": "world" }'],
  ])('is moved aside: %s', async (_, text) => {
    const store = openStore(newKey())
    await store.update(notion, () => login)
    await writeFile(file(), text)
    expect(await store.read(notion)).toBeUndefined()
    expect(warnings).toEqual([expect.stringContaining(file())])
    const kept = await readdir(directory)
    expect(kept).toEqual([expect.stringMatching(/^credentials\.json\.damaged-/)])
    expect(await readFile(join(directory, kept[0] ?? ''), 'utf8')).toBe(text)
    await store.update(notion, () => 'new')
    expect(await store.read(notion)).toBe('new')
  })

  test('is moved aside once, however many find it', async () => {
    await writeFile(file(), 'not JSON')
    const store = openStore(newKey())
    const found = await Promise.all([store.read(notion), store.read(github), openStore(newKey()).read(notion)])
    expect(found).toEqual([undefined, undefined, undefined])
    expect(await readdir(directory)).toHaveLength(1)
  })
})

test('several processes that update at once lose nothing', async () => {
  const processes = 4
  const rounds = 8
  const script = `
    import { openCredentialStore } from ${JSON.stringify(new URL('../../dist/credentials/store.js', import.meta.url).href)}
    const [directory, name] = process.argv.slice(1)
    const store = openCredentialStore({ directory, env: {}, warn: () => undefined })
    const entry = name => ({ name, issuer: '', resource: '' })
    for (let round = 0; round < ${rounds}; round++) {
      await store.update(entry('shared'), (current = 0) => current + 1)
      await store.update(entry(name), (current = 0) => current + 1)
    }`
  const names = Array.from({ length: processes }, (_, index) => `own-${index}`)
  const run = (name: string) =>
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, directory, name])
  await Promise.all(names.map(run))
  const store = openStore()
  const read = (name: string) => store.read({ name, issuer: '', resource: '' })
  expect(await read('shared')).toBe(processes * rounds)
  expect(await Promise.all(names.map(read))).toEqual(names.map(() => rounds))
  expect((await readdir(directory)).sort()).toEqual(['credentials.json', 'credentials.key'])
})
