import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { newKey, useStateDirectory } from './state-directory.js'

const state = useStateDirectory()
const file = () => state.at('credentials.json')
const env = { GATEWAY_CREDENTIALS_KEY: newKey() }
const open = () => state.open(env)

const notion = { issuer: 'https://idp.example', resource: 'https://mcp.notion.com/mcp' }
const login = { ...notion, value: 'the-secret' }
const kept = { ...notion, value: 'kept' }
const again = { ...notion, value: 'again' }

interface Written {
  entries: Record<string, Record<string, string>>
}

/** Damages the file; what it says afterwards. */
async function damage(edit: (written: Written) => void): Promise<string> {
  const written: Written = JSON.parse(await readFile(file(), 'utf8'))
  edit(written)
  const text = JSON.stringify(written)
  await writeFile(file(), text)
  return text
}

const damagedFiles = async () => (await readdir(state.directory)).filter(name => name !== 'credentials.json')

const DAMAGES: readonly [what: string, edit: (written: Written) => void][] = [
  ['other bytes', ({ entries }) => void Object.assign(entries.notion ?? {}, { data: 'AAAA' })],
  ['a short tag', ({ entries }) => void Object.assign(entries.notion ?? {}, { tag: entries.notion?.tag?.slice(0, 4) })],
  ['no iv', ({ entries }) => void Object.assign(entries.notion ?? {}, { iv: '' })],
  ['no data', ({ entries }) => void delete entries.notion?.data],
  ['another issuer', ({ entries }) => void Object.assign(entries.notion ?? {}, { issuer: 'https://evil.example' })],
  ['another resource', ({ entries }) => void Object.assign(entries.notion ?? {}, { resource: 'https://evil.example' })],
  ['not an entry', written => void Object.assign(written.entries, { notion: 'x' })],
  ['null', written => void Object.assign(written.entries, { notion: null })],
  ['moved here from another name', ({ entries }) => void Object.assign(entries, { notion: entries.github })],
]

describe('a damaged entry costs only itself', () => {
  test.each(DAMAGES)('%s', async (_, edit) => {
    const store = open()
    await store.update('notion', () => login)
    await store.update('github', () => kept)
    const damaged = await damage(edit)

    expect(await Promise.all([store.read('notion'), open().read('notion')])).toEqual([undefined, undefined])
    expect(state.warnings).toEqual([expect.stringContaining('notion')])
    const [copy = '', ...others] = await damagedFiles()
    expect([copy, others]).toEqual([expect.stringMatching(/^credentials\.json\.damaged-\d+$/), []])
    expect(await readFile(state.at(copy), 'utf8')).toBe(damaged)
    expect((await stat(state.at(copy))).mode & 0o777).toBe(0o600)

    // Once is enough: it is out of the file.
    expect([await store.read('notion'), await open().read('notion')]).toEqual([undefined, undefined])
    expect((await store.list()).map(({ name }) => name)).toEqual(['github'])
    expect([state.warnings.length, await damagedFiles()]).toEqual([1, [copy]])

    expect(await store.read('github')).toEqual(kept)
    expect(await store.update('notion', current => current ?? again)).toEqual(again)
    expect([await store.read('notion'), await store.read('github')]).toEqual([again, kept])
  })

  test.each(DAMAGES)('and the next login repairs it: %s', async (_, edit) => {
    const store = open()
    await store.update('notion', () => login)
    await store.update('github', () => kept)
    await damage(edit)
    expect(await store.update('notion', current => current ?? again)).toEqual(again)
    expect([await store.read('notion'), await store.read('github')]).toEqual([again, kept])
    expect([state.warnings.length, (await damagedFiles()).length]).toEqual([1, 1])
  })
})

describe('a damaged file', () => {
  test.each([
    ['no JSON', '{ "version": 1, "entr'],
    ['empty', ''],
    ['something else', '{ "hello": "world" }'],
    ['a list', '[]'],
    ['nested beyond reason', '['.repeat(100_000)],
  ])('is moved aside: %s', async (_, text) => {
    const store = open()
    await store.update('notion', () => login)
    await writeFile(file(), text)
    expect([await store.read('notion'), await store.list()]).toEqual([undefined, []])
    expect(state.warnings).toEqual([expect.stringContaining(file())])
    const found = await readdir(state.directory)
    expect(found).toEqual([expect.stringMatching(/^credentials\.json\.damaged-\d+$/)])
    expect(await readFile(state.at(found[0] ?? ''), 'utf8')).toBe(text)
    await store.update('notion', () => again)
    expect(await store.read('notion')).toEqual(again)
  })

  test('is moved aside once, however many find it', async () => {
    await writeFile(file(), 'not JSON')
    const store = open()
    const found = await Promise.all([store.read('notion'), store.read('github'), open().read('notion'), store.list()])
    expect(found).toEqual([undefined, undefined, undefined, []])
    expect(await readdir(state.directory)).toHaveLength(1)
  })
})
