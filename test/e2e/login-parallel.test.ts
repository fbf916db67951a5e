import { afterAll, beforeAll, expect, test } from 'vitest'
import { type AuthorizationServer, openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer, type ProtectedServer } from '../fixtures/protected-server.js'
import { executing, openWorld } from './login-world.js'

const NAMES = ['notes', 'a', 'b', 'c', 'd', 'e', 'f']

let authorizationServer: AuthorizationServer
const servers = new Map<string, ProtectedServer>()
beforeAll(async () => {
  authorizationServer = await openAuthorizationServer({ tokenLatencyMs: 20 })
  for (const name of NAMES) servers.set(name, await openProtectedServer({ authorizationServer }))
})
afterAll(async () => {
  await Promise.all([...servers.values()].map(server => server.close()))
  await authorizationServer.close()
})

test('ten logins at once, four of them to one server: each finishes with its own verifier', async () => {
  await using world = await openWorld(Object.fromEntries(NAMES.map(name => [name, { url: servers.get(name)?.url }])))
  const targets = ['notes', 'notes', 'notes', ...NAMES]
  const logins = await Promise.all(targets.map(name => world.startLogin(name)))
  const redirects = logins.map(({ url }) => new URL(url).searchParams.get('redirect_uri'))
  expect(new Set(redirects).size).toBe(10)
  const states = logins.map(({ url }) => new URL(url).searchParams.get('state'))
  expect(new Set(states).size).toBe(10)

  // The last to start is the first to finish.
  const pages = await Promise.all(logins.toReversed().map(async ({ url }) => (await fetch(url)).text()))
  for (const page of pages) expect(page).toContain('You are logged in')
  const ended = await Promise.all(logins.map(({ ended }) => ended))
  expect(ended.map(({ status }) => status)).toEqual(Array(10).fill(0))
  const exchanges = authorizationServer.requestsTo('token', { grant_type: 'authorization_code' })
  expect(exchanges).toHaveLength(10)
  expect(new Set(exchanges.map(({ params }) => params.code_verifier)).size).toBe(10)
  expect(authorizationServer.counts).toMatchObject({ codeReuses: 0, reuses: 0 })

  const stored = JSON.parse((await world.run(['credentials', 'list', '--json'])).stdout).credentials
  expect(stored.map(({ server, state }: { server: string; state: string }) => [server, state])).toEqual(
    NAMES.toSorted().map(name => [name, 'logged in']),
  )
  const front = world.stdio()
  const answers = await Promise.all(NAMES.map(name => front.call(...executing(name))))
  for (const answer of answers) expect(answer).toMatchObject({ content: [{ text: 'hello' }] })
})
