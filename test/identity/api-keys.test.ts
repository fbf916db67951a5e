import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openCredentialStore } from '../../src/credentials/store.js'
import { openApiKeys } from '../../src/identity/api-keys.js'
import { InvalidTokenError } from '../../src/identity/token-errors.js'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-keys-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

/** As another process would open them. */
const open = (now = Date.now) =>
  openApiKeys(openCredentialStore({ directory, env: { GATEWAY_KEYCHAIN: 'off' }, warn: () => undefined }), now)

const wanted = { agent: 'team', scopes: ['mcp'] }

async function refusal(verifying: Promise<unknown>): Promise<string> {
  const error = await verifying.catch((thrown: unknown) => thrown)
  if (!(error instanceof InvalidTokenError)) throw new Error('expected an InvalidTokenError', { cause: error })
  return error.description
}

describe('an API key', () => {
  test('says who is calling, to every process at once', async () => {
    const [keys, elsewhere] = [open(), open()]
    const { key, id } = await keys.create(wanted)
    expect(key).toMatch(/^gw_[0-9a-f]{12}_[\w-]{43}$/)
    expect(await elsewhere.verify(key)).toMatchObject({
      principal: { id: `key:${id}`, agents: ['team'], scopes: ['mcp'] },
      scopes: ['mcp'],
    })
    const other = await keys.create(wanted)
    const principals = await Promise.all([key, other.key].map(async one => (await keys.verify(one)).principal.key))
    expect(new Set(principals).size).toBe(2)
  })

  test('is nowhere on disk, and its secret has 256 bits', async () => {
    const { key, id } = await open().create(wanted)
    const secret = key.slice(`gw_${id}_`.length)
    expect(Buffer.from(secret, 'base64url')).toHaveLength(32)
    expect(await readFile(join(directory, 'credentials.json'), 'utf8')).not.toContain(secret)
    expect(JSON.stringify(await open().list())).not.toContain(secret)
  })

  test('is over when it expires, is disabled or is revoked, and says so', async () => {
    const [keys, elsewhere] = [open(), open()]
    const { key, id } = await keys.create({ ...wanted, ttlSeconds: 60 })
    const later = open(() => Date.now() + 61_000)
    expect(await refusal(later.verify(key))).toMatch(`the API key ${id} expired at `)
    await keys.change(id, 'disabled')
    expect(await refusal(elsewhere.verify(key))).toBe(`the API key ${id} is disabled`)
    await keys.change(id, 'active')
    expect((await elsewhere.verify(key)).principal.id).toBe(`key:${id}`)
    await keys.change(id, 'revoked')
    expect(await refusal(elsewhere.verify(key))).toBe(`the API key ${id} is revoked`)
    await expect(keys.change(id, 'active')).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  })

  test('whose secret is wrong is like one that never was', async () => {
    const keys = open()
    const { key, id } = await keys.create(wanted)
    await keys.change(id, 'revoked')
    const bad = [`${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`, `gw_${'0'.repeat(12)}_${'A'.repeat(43)}`]
    for (const one of [...bad, 'gw_', 'gw_x', `${key}x`, key.toUpperCase(), `gw_${id}`])
      expect(await refusal(keys.verify(one))).toBe('the API key is not known here')
  })

  test('keeps no stream open for ever', async () => {
    const keys = open()
    const now = Date.now() / 1000
    const { key } = await keys.create(wanted)
    expect((await keys.verify(key)).acceptedUntil).toBeLessThan(now + 3660)
    const short = await keys.create({ ...wanted, ttlSeconds: 60 })
    expect((await keys.verify(short.key)).acceptedUntil).toBeLessThan(now + 90)
  })
})

test('the list shows every key with its state', async () => {
  const keys = open()
  const first = await keys.create(wanted)
  const second = await keys.create({ agent: 'other', scopes: [], ttlSeconds: 60 })
  await keys.change(first.id, 'disabled')
  expect(await open(() => Date.now() + 3_600_000).list()).toEqual([
    { id: first.id, agent: 'team', scopes: ['mcp'], createdAt: expect.any(String), state: 'disabled' },
    {
      id: second.id,
      agent: 'other',
      scopes: [],
      createdAt: expect.any(String),
      expiresAt: expect.any(String),
      state: 'expired',
    },
  ])
  await expect(keys.change('0123456789ab', 'revoked')).rejects.toThrow('there is no key 0123456789ab')
})
