import { generateKeyPairSync } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exportJWK } from 'jose'
import { describe, expect, test, vi } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { executing, openWorld } from './login-world.js'

const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = String(keys.privateKey.export({ type: 'pkcs8', format: 'pem' }))
const publicJwk = await exportJWK(keys.publicKey)
const SECRET = 'machine:secret+with/=%20'

describe.concurrent.each([
  { how: 'a secret', client: { client_secret: SECRET }, oauth: { clientSecret: '${MACHINE_SECRET}' } },
  {
    how: 'a private key',
    client: { token_endpoint_auth_method: 'private_key_jwt' as const, keys: [publicJwk] },
    oauth: { privateKeyFile: '${KEY_FILE}' },
  },
])('client credentials with $how', ({ client, oauth }) => {
  test.concurrent('work without anybody logging in, and renew themselves', async () => {
    await using authorizationServer = await openAuthorizationServer({
      clients: [{ client_id: 'machine', ...client }],
    })
    await using server = await openProtectedServer({ authorizationServer })
    const settings = { grant: 'client_credentials', clientId: 'machine', ...oauth }
    await using world = await openWorld(
      { notes: { url: server.url, oauth: settings } },
      { MACHINE_SECRET: SECRET, KEY_FILE: '/nowhere' },
    )
    const keyFile = join(world.directory, 'key.pem')
    await writeFile(keyFile, pem, { mode: 0o600 })
    const env = { KEY_FILE: keyFile }

    const front = world.stdio(env)
    const first = await Promise.all(Array.from({ length: 10 }, () => front.call(...executing('notes'))))
    for (const answer of first) expect(answer).toMatchObject({ content: [{ text: 'hello' }] })
    expect(authorizationServer.requestsTo('token')).toHaveLength(1)

    authorizationServer.set({ expiresIn: 1 })
    authorizationServer.expireAccessTokens()
    await world.run(['login', 'notes'], { env })
    const expired = Date.now() + 1_000
    authorizationServer.set({ expiresIn: 3600 })
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(expired), 5_000)
    expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
    const again = await world.run(['login', 'notes'], { env })
    expect(again).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes"'), stderr: '' })
    expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
    authorizationServer.expireAccessTokens()
    expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })

    const requests = authorizationServer.requestsTo('token')
    expect(new Set(requests.map(({ params }) => params.grant_type))).toEqual(new Set(['client_credentials']))
    expect(new Set(requests.map(({ params }) => params.resource))).toEqual(new Set([server.url]))
    expect(authorizationServer.requestsTo('authorize')).toEqual([])
    expect(authorizationServer.counts.registrations).toBe(0)
  })
})

test.concurrent('a machine whose secret is wrong is told what to check, and tells nobody the secret', async () => {
  await using authorizationServer = await openAuthorizationServer({
    clients: [{ client_id: 'machine', client_secret: 'the right one' }],
  })
  await using server = await openProtectedServer({ authorizationServer })
  const oauth = { grant: 'client_credentials', clientId: 'machine', clientSecret: SECRET }
  await using world = await openWorld({ notes: { url: server.url, oauth } })
  const [login, call] = await Promise.all([world.run(['login', 'notes']), world.call('notes')])
  expect(login).toMatchObject({
    status: 1,
    stdout: '',
    stderr: expect.stringMatching(/invalid_client.*"clientSecret"/),
  })
  expect(call.result.structuredContent.error).toMatchObject({
    code: 'AUTH_REQUIRED',
    message: expect.stringMatching(/invalid_client/),
  })
  expect(call.stdout + call.stderr + login.stderr).not.toContain(SECRET)
})
