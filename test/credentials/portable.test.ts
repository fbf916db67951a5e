import { scryptSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { openWithPassphrase, sealWithPassphrase } from '../../src/credentials/portable.js'
import { seal } from '../../src/credentials/sealing.js'

const PASSPHRASE = 'correct horse battery staple'
const notion = {
  name: 'notion',
  issuer: 'https://idp.example',
  resource: 'https://mcp.notion.com/mcp',
  value: { token: 'the-secret' },
}

type Portable = Record<string, unknown> & { kdf: Record<string, unknown>; sealed: Record<string, string> }
const exported: Portable = JSON.parse(await sealWithPassphrase([notion], PASSPHRASE))
const edited = (edit: (file: Portable) => void): string => {
  const copy = structuredClone(exported)
  edit(copy)
  return JSON.stringify(copy)
}

/** Why it was refused; everything that is said is checked for what it may not tell. */
async function refusal(text: string, passphrase = PASSPHRASE): Promise<string> {
  const error: unknown = await openWithPassphrase(text, passphrase).then(
    () => 'opened',
    (thrown: unknown) => thrown,
  )
  expect(error).toMatchObject({ name: 'GatewayError', code: 'LOGIN_FAILED' })
  const message = error instanceof Error ? error.message : ''
  expect(message).not.toMatch(/the-secret|battery|MARKER/)
  return message
}

describe('exported credentials', () => {
  test('open with the passphrase, whole', async () => {
    const long = { name: '\u{1F600}', issuer: '', resource: '', value: ['é'.repeat(64 * 1024), null, 0.5] }
    expect(await openWithPassphrase(await sealWithPassphrase([notion, long], 'é'), 'é')).toEqual([notion, long])
    expect(await openWithPassphrase(await sealWithPassphrase([], 'x'), 'x')).toEqual([])
  })

  test('open however the keyboard composes the passphrase', async () => {
    const text = await sealWithPassphrase([notion], 'caf\u00e9')
    expect(await openWithPassphrase(text, 'cafe\u0301')).toEqual([notion])
  })

  test('show neither secrets nor names, and are no two the same', async () => {
    const text = await sealWithPassphrase([notion], PASSPHRASE)
    expect(text).not.toMatch(/the-secret|notion|idp\.example/)
    const again: Portable = JSON.parse(text)
    expect(again.kdf.salt).not.toBe(exported.kdf.salt)
    expect(again.sealed.iv).not.toBe(exported.sealed.iv)
  })

  test('cost a guess 128 MiB', () => {
    expect(exported.kdf).toMatchObject({ name: 'scrypt', N: 2 ** 17, r: 8, p: 1 })
  })

  test('need a passphrase', async () => {
    const refused = { code: 'LOGIN_FAILED', message: expect.stringContaining('empty') }
    await expect(sealWithPassphrase([notion], '')).rejects.toMatchObject(refused)
    await expect(openWithPassphrase(JSON.stringify(exported), '')).rejects.toMatchObject(refused)
  })
})

describe('refused is', () => {
  test.each([
    ['another passphrase', JSON.stringify(exported), 'Correct horse battery staple'],
    ['other data', edited(({ sealed }) => Object.assign(sealed, { data: 'AAAA' })), PASSPHRASE],
    ['another tag', edited(({ sealed }) => Object.assign(sealed, { tag: sealed.tag?.slice(0, 4) })), PASSPHRASE],
    ['another iv', edited(({ sealed }) => Object.assign(sealed, { iv: '' })), PASSPHRASE],
    ['another salt', edited(({ kdf }) => Object.assign(kdf, { salt: 'AAAAAAAAAAAAAAAAAAAAAA==' })), PASSPHRASE],
    ['another cost', edited(({ kdf }) => Object.assign(kdf, { N: 2 ** 14 })), PASSPHRASE],
  ])('%s', async (_, text, passphrase) => {
    expect(await refusal(text, passphrase)).toContain('the passphrase is wrong, or it is damaged')
  })

  test.each([
    ['no JSON', 'MARKER'],
    ['nothing', ''],
    ['another JSON', '{"MARKER": 1}'],
    ['null', 'null'],
    ['a credentials.json', '{"version": 1, "keyId": "MARKER", "entries": {}}'],
    ['something nested beyond reason', '['.repeat(1_000_000)],
  ])('%s, which is no such file', async (_, text) => {
    expect(await refusal(text)).toContain('it is not a file of')
  })

  test('the file of a newer version', async () => {
    expect(await refusal(edited(file => Object.assign(file, { version: 2, kdf: 'MARKER' })))).toContain('newer version')
  })

  test.each(
    [
      { N: 2 ** 30 },
      { N: 2 ** 20 },
      { N: 2 ** 17 + 1 },
      { N: 0 },
      { N: -1 },
      { N: 1 },
      { N: '131072' },
      { N: 1e308 },
      { r: 2 ** 20, N: 2 },
      { r: 17 },
      { r: 0 },
      { p: 5 },
      { p: 2 ** 24 },
      { p: 0 },
      { salt: '' },
      { salt: 'AAAA' },
      { salt: 'no base64, MARKER, no base64, MARKER' },
      { salt: 'A'.repeat(1_000_000) },
      { name: 'MARKER' },
    ].map(kdf => [JSON.stringify(kdf).slice(0, 40), kdf] as const),
  )('what costs too much or makes no sense, before anything is computed: %s', async (_, kdf) => {
    const since = performance.now()
    expect(await refusal(edited(file => Object.assign(file.kdf, kdf)))).toContain('it is damaged')
    expect(performance.now() - since).toBeLessThan(100) // what it asks for takes longer
  })

  test('a file that is too long', async () => {
    expect(await refusal(' '.repeat(64 * 1024 * 1024 + 1))).toContain('longer than')
  })

  test.each([
    ['no list', 'MARKER'],
    ['no names', [{ value: 'MARKER' }]],
    ['no value', [{ name: 'a', issuer: '', resource: '' }]],
    ['nested beyond reason', JSON.parse('['.repeat(1_500) + ']'.repeat(1_500))],
  ])('%s, sealed with the right passphrase', async (_, content) => {
    const { kdf, format, version } = exported
    const { name, N, r, p, salt } = { name: 'scrypt', N: 1024, r: 8, p: 1, salt: String(kdf.salt) }
    const key = scryptSync(PASSPHRASE, Buffer.from(salt, 'base64'), 32, { N, r, p })
    const sealed = seal(content, key, [format, version, name, N, r, p, salt])
    const text = JSON.stringify({ format, version, kdf: { name, N, r, p, salt }, sealed })
    expect(await refusal(text)).toMatch(/not a list of credentials|damaged/)
  })
})
