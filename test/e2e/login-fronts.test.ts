import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type AuthorizationServer, openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer, type ProtectedServer } from '../fixtures/protected-server.js'
import { executing, type Front, openWorld, stateOf, type World } from './login-world.js'

let authorizationServer: AuthorizationServer
let server: ProtectedServer
beforeAll(async () => {
  authorizationServer = await openAuthorizationServer()
  server = await openProtectedServer({ authorizationServer })
})
afterAll(async () => {
  await server.close()
  await authorizationServer.close()
})

describe.concurrent.each(['serve', 'stdio'] as const)('a running %s', front => {
  const open = (world: World): Promise<Front> => (front === 'serve' ? world.serve() : Promise.resolve(world.stdio()))

  test.concurrent('takes up a login, and a logout, without a restart and without a call', async () => {
    await using world = await openWorld({ notes: { url: server.url } })
    const running = await open(world)
    const refused = await running.call(...executing('notes'))
    expect(refused.structuredContent.error).toMatchObject({ code: 'AUTH_REQUIRED', command: 'gateway login notes' })
    expect(await stateOf(running, 'notes')).toBe('login needed')

    expect(await world.logIn('notes')).toMatchObject({ status: 0 })
    await vi.waitFor(async () => expect(await stateOf(running, 'notes')).not.toBe('login needed'), 5_000)
    expect(await running.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
    expect(await stateOf(running, 'notes')).toBe('ready')

    expect(await world.run(['logout', 'notes'])).toMatchObject({ status: 0 })
    const after = await running.call(...executing('notes'))
    expect(after.structuredContent.error).toMatchObject({ code: 'AUTH_REQUIRED', command: 'gateway login notes' })
  })

  test.concurrent('opens no browser by itself, however often it is called', async () => {
    await using world = await openWorld({ notes: { url: server.url } })
    const browser = await world.installBrowser()
    await world.run(['status'], { env: { BROWSER: browser.script } })
    const running =
      front === 'serve' ? await world.serve({ BROWSER: browser.script }) : world.stdio({ BROWSER: browser.script })
    const answers = await Promise.all(Array.from({ length: 100 }, () => running.call(...executing('notes'))))
    expect(new Set(answers.map(({ structuredContent }) => structuredContent.error?.code))).toEqual(
      new Set(['AUTH_REQUIRED']),
    )
    expect(answers.filter(({ structuredContent }) => structuredContent.error?.url !== undefined)).toEqual([])
    expect(await browser.calls()).toEqual([])
  })

  test.concurrent('with GATEWAY_OPEN_BROWSER=true it opens one, once, and goes on after the login', async () => {
    await using world = await openWorld({ notes: { url: server.url } })
    const browser = await world.installBrowser(false)
    const env = { BROWSER: browser.script, GATEWAY_OPEN_BROWSER: 'true' }
    const running = front === 'serve' ? await world.serve(env) : world.stdio(env)
    const answers = await Promise.all(Array.from({ length: 20 }, () => running.call(...executing('notes'))))
    const errors = answers.map(({ structuredContent }) => structuredContent.error)
    expect(new Set(errors.map(error => error?.code))).toEqual(new Set(['AUTH_REQUIRED']))
    const urls = new Set(errors.map(error => String(error?.url)))
    const [url = ''] = urls
    expect(urls.size).toBe(1)
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/authorize\?/)
    await vi.waitFor(async () => expect(await browser.calls()).toEqual([[url]]), 5_000)

    expect(await (await fetch(url)).text()).toContain('You are logged in')
    expect(await running.call(...executing('notes'))).toMatchObject({ content: [{ text: 'hello' }] })
    expect(await browser.calls()).toHaveLength(1)
  })
})

test.concurrent('the direct endpoint of a server says the same, and works after the login', async () => {
  await using world = await openWorld({ notes: { url: server.url } })
  const running = await world.serve()
  expect((await running.call('get_server_tools', { server: 'notes' })).structuredContent.error).toMatchObject({
    code: 'AUTH_REQUIRED',
    command: 'gateway login notes',
  })
  expect(await world.logIn('notes')).toMatchObject({ status: 0 })
  const { structuredContent } = await running.call('get_server_tools', { server: 'notes' })
  expect(structuredContent).toMatchObject({ server: 'notes', total_available: 2 })
})
