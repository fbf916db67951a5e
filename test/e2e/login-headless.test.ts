import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, expect, test, vi } from 'vitest'
import { openScene, urlIn } from './login-world.js'

/** Where the browser ends, on a machine where that address does not load. */
const redirectOf = async (url: string): Promise<string> =>
  (await fetch(url, { redirect: 'manual' })).headers.get('location') ?? ''

const DISPLAYS = { DISPLAY: ':99', WAYLAND_DISPLAY: '' }

describe('without a browser the address alone is on a line of stderr', () => {
  test.concurrent.each([
    { why: 'no display', args: [], env: {} },
    { why: 'SSH', args: [], env: { ...DISPLAYS, SSH_CONNECTION: '10.0.0.1 50000 10.0.0.2 22' } },
    { why: 'CI', args: [], env: { ...DISPLAYS, CI: 'true' } },
    { why: '--no-browser', args: ['--no-browser'], env: DISPLAYS },
    { why: 'BROWSER=none', args: [], env: { ...DISPLAYS, BROWSER: 'none' } },
  ])('$why', async ({ args, env }) => {
    await using scene = await openScene()
    const { authorizationServer, world } = scene
    const login = await world.startLogin('notes', args, { env })
    expect(new URL(login.url).origin).toBe(authorizationServer.origin)
    const page = await (await fetch(login.url)).text()
    expect(page).toContain('You are logged in')
    const { status, stdout, stderr } = await login.ended
    expect({ status, stdout }).toEqual({ status: 0, stdout: 'logged in to "notes" (scopes: mcp)\n' })
    expect(stderr.split('\n').filter(line => line.includes('http'))).toEqual([login.url])
    expect(stderr).toMatch(/No browser is opened because/)
    const port = new URL(new URL(login.url).searchParams.get('redirect_uri') ?? '').port
    expect(stderr).toContain(`ssh -L ${port}:127.0.0.1:${port}`)
  })
})

test.concurrent('finishes by the pasted address, and says why it does not take another', async () => {
  await using scene = await openScene()
  const { authorizationServer, world } = scene
  const login = await world.startLogin('notes', ['--no-browser'])
  const redirect = await redirectOf(login.url)
  const forged = new URL(redirect)
  forged.searchParams.set('state', 'of-another-login')
  const refusals = () => login.process.output.stderr.match(/^Not taken: .*$/gm) ?? []
  const paste = async (line: string) => {
    const before = refusals().length
    login.process.stdin.write(`${line}\n`)
    await vi.waitFor(() => expect(refusals()).toHaveLength(before + 1), 5_000)
    return refusals().at(-1)
  }
  expect(await paste('hello')).toMatch(/must contain \?code/)
  expect(await paste(new URL(redirect).searchParams.get('code') ?? '')).toMatch(/must contain \?code/)
  expect(await paste(login.url)).toMatch(/must contain \?code/)
  expect(await paste(forged.href)).toMatch(/another login \(its state differs\)/)
  expect(authorizationServer.requestsTo('token')).toEqual([])
  login.process.stdin.write(`\n  ${redirect}  \r\n`)
  expect(await login.ended).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes"') })
  expect(authorizationServer.requestsTo('token')).toHaveLength(1)
  expect(await world.call('notes')).toMatchObject({ status: 0 })
})

test.concurrent('takes the query of the pasted address for it, through a pipe that then closes', async () => {
  await using scene = await openScene()
  const { world } = scene
  const login = await world.startLogin('notes', ['--no-browser'])
  login.process.stdin.end(new URL(await redirectOf(login.url)).search)
  expect(await login.ended).toMatchObject({ status: 0 })
})

test.each([[[]], [['--no-browser']]])('with nobody to paste it fails soon, and says what to do (%j)', async args => {
  await using scene = await openScene()
  const { world } = scene
  const startedAt = Date.now()
  const { status, stdout, stderr } = await world.run(['login', 'notes', ...args], { env: { CI: 'true' } })
  expect(Date.now() - startedAt).toBeLessThan(5_000)
  expect({ status, stdout }).toEqual({ status: 77, stdout: '' })
  for (const advice of ['in a terminal', '--device', 'gateway credentials export notes'])
    expect(stderr).toContain(advice)
  expect(urlIn(stderr)).toBeDefined()
})

test.concurrent('--timeout ends the wait with a clear message', async () => {
  await using scene = await openScene()
  const { authorizationServer, world } = scene
  const { ended } = await world.startLogin('notes', ['--no-browser', '--timeout', '1s'])
  const { status, stdout, stderr } = await ended
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr.trim().split('\n').at(-1)).toMatch(/nobody finished the login within 1 second/)
  expect(authorizationServer.requestsTo('token')).toEqual([])
  expect(await world.run(['login', 'notes', '--timeout', 'soon'])).toMatchObject({ status: 2 })
})

test.concurrent('a browser is opened once, with exactly the address', async () => {
  await using scene = await openScene()
  const { world } = scene
  const browser = await world.installBrowser()
  const login = await world.startLogin('notes', [], { env: { BROWSER: browser.script } })
  expect(await login.ended).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in') })
  expect(await browser.calls()).toEqual([[login.url]])
  expect(login.process.output.stderr).not.toContain('ssh -L')
})

test.concurrent('a browser that fails is said to have failed, and the login goes on', async () => {
  await using scene = await openScene()
  const { world } = scene
  const login = await world.startLogin('notes', [], { env: { BROWSER: '/nowhere/browser' } })
  await vi.waitFor(() => expect(login.process.output.stderr).toContain('No browser could be opened'), 5_000)
  await (await fetch(login.url)).text()
  expect(await login.ended).toMatchObject({ status: 0 })
})

test('the usual callback port is busy: another one is taken', async () => {
  await using scene = await openScene()
  const { world } = scene
  const squatter = createServer()
  const take = () =>
    new Promise<void>((resolve, reject) => squatter.once('error', reject).listen(8976, '127.0.0.1', resolve))
  // Until no other test's login has it; whoever has it for longer does as well.
  await vi.waitFor(take, 10_000).catch(() => {})
  const login = await world.startLogin('notes')
  const redirectUri = new URL(new URL(login.url).searchParams.get('redirect_uri') ?? '')
  expect(redirectUri).toMatchObject({ hostname: '127.0.0.1', pathname: '/callback' })
  expect(redirectUri.port).not.toBe('8976')
  await (await fetch(login.url)).text()
  expect(await login.ended).toMatchObject({ status: 0 })
  squatter.close()
})

test.concurrent('a port of the configuration that is busy is named', async () => {
  await using scene = await openScene()
  const { server, world } = scene
  const squatter = createServer().listen(0, '127.0.0.1')
  await once(squatter, 'listening')
  const { port } = squatter.address() as { port: number }
  await world.setServers({ notes: { url: server.url, oauth: { callbackPort: port } } })
  const { status, stderr } = await world.run(['login', 'notes'])
  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: expect.stringContaining(`port ${port} (oauth.callbackPort)`),
  })
  squatter.close()
})

test.concurrent('a refusal with a hostile description is shown escaped, on the terminal and in the browser', async () => {
  await using scene = await openScene()
  const { authorizationServer, world } = scene
  const description = '\u001b]0;owned\u0007\u001b[2J\r\n<script>alert(1)</script>\u202egnp.exe\u009b31m'
  authorizationServer.set({ user: { error: 'access_denied', error_description: description } })
  const login = await world.startLogin('notes')
  const page = await fetch(login.url)
  const html = await page.text()
  expect(html).toContain('The login failed')
  expect(html).not.toContain('<script')
  expect(page.headers.get('content-security-policy')).toContain("default-src 'none'")
  const { status, stdout, stderr } = await login.ended
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toContain('access_denied')
  expect(stderr).not.toMatch(/[^\P{Cc}\n]|\p{Bidi_Control}/u)
  expect(stderr).not.toMatch(/^owned|^<script/m)
  expect(authorizationServer.requestsTo('token')).toEqual([])
})
