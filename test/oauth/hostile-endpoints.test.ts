import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { checkAuthorizationEndpoint } from '../../src/oauth/authorization-endpoint.js'
import { openBrowser } from '../../src/oauth/browser.js'
import { openDeviceEndpoint } from './device-endpoint.js'
import { somebody } from './people.js'
import { failure, openScene } from './scene.js'

const HOSTILE: readonly (readonly [what: string, endpoint: string])[] = [
  ['javascript:', 'javascript:alert(1)'],
  ['javascript: that looks like a host', 'javascript://evil.example/%0aalert(1)'],
  ['data:', 'data:text/html,<script>alert(1)</script>'],
  ['file:', 'file:///etc/passwd'],
  ['vbscript:', 'vbscript:msgbox(1)'],
  ['a scheme of an application', 'ms-msdt:/id PCWDiagnostic'],
  ['a UNC path', '\\\\evil.example\\share\\x.exe'],
  ['a UNC path as a URL', 'file://evil.example/share/x.exe'],
  ['a command substitution', 'https://evil.example/$(calc)'],
  ['a PowerShell sub-expression in the query', 'https://evil.example/?x=$(Start-Process calc)'],
  ['backticks', 'https://evil.example/`calc`'],
  ['an ampersand in the path', 'https://evil.example/authorize&calc.exe'],
  ['an ampersand that ends a command', 'https://evil.example/authorize?a=1&calc&b=2'],
  ['a pipe', 'https://evil.example/authorize?x=1|calc'],
  ['a semicolon', 'https://evil.example/authorize;calc'],
  ['a double quote', 'https://evil.example/authorize" --new-window "x'],
  ['a single quote', "https://evil.example/authorize'calc'"],
  ['a variable of Windows', 'https://evil.example/%PATH%'],
  ['a variable of Windows in the query', 'https://evil.example/?x=%USERNAME%'],
  ['a caret', 'https://evil.example/?x=1^calc'],
  ['angle brackets', 'https://evil.example/?x=<calc>'],
  ['a leading dash', '--gpu-launcher=calc'],
  ['a host with a leading dash', 'https://-oProxyCommand=calc/'],
  ['a newline', 'https://evil.example/authorize\ncalc'],
  ['a tab in the scheme', 'java\tscript:alert(1)'],
  ['a NUL', 'https://evil.example/\u0000calc'],
  ['an escape sequence', 'https://evil.example/\u001b]8;;x'],
  ['a space before it', ' https://evil.example/authorize'],
  ['characters that turn the text around', 'https://evil.example/\u202egro.elpmaxe'],
  ['user info', 'https://accounts.google.com@evil.example/authorize'],
  ['user and password', 'https://user:password@evil.example/authorize'],
  ['http: to elsewhere', 'http://evil.example/authorize'],
  ['http: to a name that begins like loopback', 'http://127.0.0.1.evil.example/authorize'],
  ['http: to a private address', 'http://10.0.0.1/authorize'],
  ['backslashes instead of slashes', 'https:\\\\evil.example\\authorize'],
  ['no slashes', 'https:evil.example'],
  ['a relative one', '/authorize'],
  ['a fragment', 'https://evil.example/authorize#x'],
  ['nothing', ''],
]

/** A "browser" that notes what it was started with, as the launcher of Linux finds one. */
async function useBrowserProgram(directory: string): Promise<() => Promise<string[]>> {
  const program = join(directory, 'browser')
  const notes = join(directory, 'notes')
  await writeFile(program, `#!/bin/sh\nprintf '%s\\n' "$#" "$@" >> ${notes}\n`)
  await chmod(program, 0o755)
  const { BROWSER } = process.env
  process.env.BROWSER = program
  onTestFinished(() => {
    if (BROWSER === undefined) delete process.env.BROWSER
    else process.env.BROWSER = BROWSER
  })
  return async () => (await readFile(notes, 'utf8').catch(() => '')).split('\n').slice(0, -1)
}

describe('a hostile authorization_endpoint is refused, the opener never called, nothing registered', () => {
  test.each(HOSTILE)('%s', async (_what, authorization_endpoint) => {
    const scene = await openScene({ issuer: { metadata: { authorization_endpoint } } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(person.opened).toEqual([])
    expect(person.shown).toEqual([])
    expect(scene.issuer.counts.registrations).toBe(0)
    expect(scene.issuer.requests.filter(({ endpoint }) => endpoint !== 'metadata')).toEqual([])
    expect([...message].filter(character => character < ' ' || character === '\u007f')).toEqual([])
  })

  test('what is shown of a long one is short', async () => {
    const scene = await openScene({
      issuer: { metadata: { authorization_endpoint: `javascript:${'x'.repeat(9_000)}` } },
    })
    expect((await failure(scene.login())).message.length).toBeLessThan(700)
  })

  test.each([
    'https://login.example/authorize',
    'https://login.example:8443/tenant/oauth2/v2.0/authorize?policy=b2c_1_sign-in&p=a%20b',
    'https://login.example/~user/authorize',
    'http://127.0.0.1:9000/authorize',
    'http://localhost:9000/authorize',
    'http://[::1]:9000/authorize',
  ])('a plain one passes: %s', endpoint => {
    expect(checkAuthorizationEndpoint(endpoint).href).toBe(endpoint)
  })

  test.each(HOSTILE)('as a device verification_uri: %s', async (_what, verification_uri) => {
    const scene = await openScene()
    const device = await openDeviceEndpoint({ verification_uri, verification_uri_complete: verification_uri })
    scene.issuer.set({ metadata: { device_authorization_endpoint: device } })
    const person = somebody({ hasBrowser: false })
    await failure(scene.login(person, { device: true }))
    expect(person.shown).toEqual([])
  })
})

describe('openBrowser', () => {
  test.each(HOSTILE)('starts nothing for %s', async (_what, url) => {
    const scene = await openScene()
    const started = await useBrowserProgram(scene.directory)
    await failure(openBrowser(url))
    expect(await started()).toEqual([])
  })

  test('starts the browser with the URL as its one argument', async () => {
    const scene = await openScene()
    const started = await useBrowserProgram(scene.directory)
    const url =
      'https://login.example/authorize?a=b%20c&redirect_uri=http%3A%2F%2F127.0.0.1%3A8976&scope=x+y&d=%24%28calc%29'
    expect(await openBrowser(url)).toBe(true)
    await expect.poll(started).toEqual(['1', url])
  })
})
