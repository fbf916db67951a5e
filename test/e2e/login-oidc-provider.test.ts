import { expect, test, vi } from 'vitest'
import { openOidcProvider } from '../fixtures/oidc-provider.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { executing, openWorld, withOwnPort } from './login-world.js'

test.concurrent('registers, logs in with PKCE for the resource, renews, and is revoked', async () => {
  await using provider = await openOidcProvider({ expiresIn: 3, configuration: { rotateRefreshToken: true } })
  await using server = await openProtectedServer({ authorizationServer: provider })
  await using world = await openWorld({ notes: await withOwnPort(server.url) })
  const { url, ended } = await world.startLogin('notes')
  const { searchParams } = new URL(url)
  expect(searchParams.get('code_challenge_method')).toBe('S256')
  expect(searchParams.get('resource')).toBe(server.url)
  // Refresh tokens are given for this scope only, and only when the person is asked.
  expect(searchParams.get('scope')?.split(' ')).toContain('offline_access')
  expect(await (await fetch(await provider.logIn(url))).text()).toContain('You are logged in')
  expect(await ended).toMatchObject({ status: 0, stdout: expect.stringMatching(/scopes: .*mcp/) })

  const front = world.stdio()
  for (let renewals = 0; renewals < 2; renewals++) {
    expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
    const known = server.authorizations().length
    await vi.waitFor(
      async () => {
        expect(await front.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
        expect(server.authorizations().length).toBeGreaterThan(known)
      },
      { timeout: 10_000, interval: 200 },
    )
  }
  expect(provider.counts).toMatchObject({ revoked: 0, registrations: 1 })
  expect(provider.counts.grants.refresh_token).toBeGreaterThanOrEqual(2)

  expect(await world.run(['logout', 'notes'])).toMatchObject({ status: 0, stderr: '' })
  expect(provider.counts.revoked).toBeGreaterThan(0)
  const [token = ''] = server.authorizations().slice(-1)
  expect(await provider.isValid(token.slice('Bearer '.length), server.url)).toBe(false)
  const again = await world.startLogin('notes')
  await (await fetch(await provider.logIn(again.url))).text()
  expect(await again.ended).toMatchObject({ status: 0 })
  expect(provider.counts.registrations).toBe(1)
})

test.concurrent('by device code', async () => {
  await using provider = await openOidcProvider({ expiresIn: 3, configuration: { rotateRefreshToken: true } })
  await using server = await openProtectedServer({ authorizationServer: provider })
  await using world = await openWorld({ notes: await withOwnPort(server.url) })
  const { url, ended } = await world.startLogin('notes', ['--device'])
  await provider.approveDevice(url)
  expect(await ended).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes"') })
  expect(await world.call('notes')).toMatchObject({ status: 0 })
  expect(provider.counts.grants['urn:ietf:params:oauth:grant-type:device_code']).toBe(1)
})
