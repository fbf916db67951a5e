import { type Browser, chromium } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openWorld } from '../e2e/login-world.js'
import { openOidcProvider } from '../fixtures/oidc-provider.js'
import { openProtectedServer } from '../fixtures/protected-server.js'

let browser: Browser
beforeAll(async () => {
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
})
afterAll(() => browser.close())

test('a real browser, through the pages of a real authorization server, to the last page', async () => {
  await using provider = await openOidcProvider()
  await using server = await openProtectedServer({ authorizationServer: provider })
  await using world = await openWorld({ notes: { url: server.url } })
  const { url, ended } = await world.startLogin('notes')

  const page = await browser.newPage()
  const problems: string[] = []
  page.on('pageerror', error => problems.push(String(error)))
  // The provider's own pages want a font from elsewhere, which they do not get.
  await page.route('**', route => {
    const { hostname } = new URL(route.request().url())
    return hostname === '127.0.0.1' ? route.continue() : route.abort()
  })
  const loaded = { waitUntil: 'domcontentloaded' } as const
  await page.goto(url, loaded)
  await page.fill('input[name=login]', 'ada')
  await page.fill('input[name=password]', 'secret')
  await page.click('button[type=submit]')
  await page.waitForSelector('input[value=consent]', { state: 'attached' })
  page.on('console', message => problems.push(message.text()))
  await page.click('button[type=submit]')
  await page.waitForURL('http://127.0.0.1:*/callback?**', loaded)

  expect(await page.title()).toBe('You are logged in')
  expect(await page.textContent('h1')).toBe('You are logged in')
  expect(await page.textContent('p')).toContain('You can close this window')
  expect(await page.evaluate('getComputedStyle(document.body).maxWidth')).not.toBe('none') // its style is allowed
  expect(problems.filter(text => !text.includes('favicon'))).toEqual([])
  expect(await ended).toMatchObject({ status: 0, stdout: expect.stringContaining('logged in to "notes"') })
  expect(await world.call('notes')).toMatchObject({ status: 0 })
  await page.close()
})
