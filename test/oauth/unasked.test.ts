import { randomBytes } from 'node:crypto'
import { chmod, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { startGateway } from '../../src/start.js'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { type TestResult, writeFiles } from '../fixtures/gateway.js'
import { openProtectedServer } from '../fixtures/protected-server.js'

/** A gateway, and a browser on this machine that follows every redirect. */
async function openDesk(env: Readonly<Record<string, string>>, mayOpenBrowser = true) {
  const issuer = await openAuthorizationServer()
  const server = await openProtectedServer({ authorizationServer: issuer })
  const rules = { agents: { tester: { allow: { servers: ['*'] } } } }
  const written = await writeFiles({ servers: { shop: { url: server.url } }, rules })
  const program = join(written.directory, 'browser')
  const tabs = join(written.directory, 'tabs')
  const follow = `fetch(process.argv[1]).then(response => response.text())`
  await writeFile(program, `#!/bin/sh\necho "$1" >> ${tabs}\nexec ${process.execPath} -e '${follow}' "$1"\n`)
  await chmod(program, 0o755)
  const { BROWSER } = process.env
  process.env.BROWSER = program
  const gateway = await startGateway({
    config: written.config,
    rules: written.rules,
    env: { ...written.env, GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64'), ...env },
    mayOpenBrowser,
  })
  onTestFinished(async () => {
    if (BROWSER === undefined) delete process.env.BROWSER
    else process.env.BROWSER = BROWSER
    await gateway.close()
    await Promise.all([server.close(), issuer.close(), written.close()])
  })
  return {
    issuer,
    async call(): Promise<unknown> {
      const args = { server: 'shop', tool: 'echo', args: { text: 'hello' } }
      const caller = { principal: gateway.localCaller('tester'), era: 'modern' } as const
      const result = (await gateway.tools.call('execute_tool', args, caller)) as unknown as TestResult
      return result.structuredContent?.error ?? result.content[0]?.text
    },
    tabs: async () => (await readFile(tabs, 'utf8').catch(() => '')).split('\n').slice(0, -1),
  }
}

test('with GATEWAY_OPEN_BROWSER=true a call opens a browser, says so, and works afterwards', async () => {
  const desk = await openDesk({ GATEWAY_OPEN_BROWSER: 'true' })
  expect(await desk.call()).toMatchObject({
    code: 'AUTH_REQUIRED',
    url: expect.stringContaining(`${desk.issuer.issuer}/authorize?`),
    command: 'gateway login shop',
  })
  await expect.poll(() => desk.call(), { timeout: 15_000 }).toBe('hello')
  expect(await desk.tabs()).toHaveLength(1)
})

test('twenty calls at once open one tab', async () => {
  const desk = await openDesk({ GATEWAY_OPEN_BROWSER: 'true' })
  const answers = await Promise.all(Array.from({ length: 20 }, () => desk.call()))
  expect(answers).toEqual(answers.map(() => expect.objectContaining({ code: 'AUTH_REQUIRED' })))
  await expect.poll(() => desk.call(), { timeout: 15_000 }).toBe('hello')
  expect(await desk.tabs()).toHaveLength(1)
  expect(desk.issuer.requestsTo('authorize')).toHaveLength(1)
})

test.each<[why: string, env: Readonly<Record<string, string>>, mayOpenBrowser: boolean]>([
  ['nobody said so, and there is no terminal', {}, true],
  ['it is forbidden', { GATEWAY_OPEN_BROWSER: 'false' }, true],
  ['this process may not', { GATEWAY_OPEN_BROWSER: 'true' }, false],
])('no browser, no registration: %s', async (_why, env, mayOpenBrowser) => {
  const desk = await openDesk(env, mayOpenBrowser)
  for (let count = 0; count < 3; count++)
    expect(await desk.call()).toMatchObject({ code: 'AUTH_REQUIRED', command: 'gateway login shop' })
  expect(desk.issuer.requests).toEqual([])
  expect(await desk.tabs()).toEqual([])
})
