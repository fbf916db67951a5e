import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Env } from '../../src/config/variables.js'
import { startProcess } from '../credentials/gateway-process.js'
import { newKey, useStateDirectory } from '../credentials/state-directory.js'
import { type SecretService, startSecretService } from './secret-service.js'

const compiled = (path: string) => new URL(`../../dist/${path}`, import.meta.url)
// The compiled one: the child it starts is a file beside it.
const { openKeychain }: typeof import('../../src/credentials/keychain.js') = await import(
  compiled('credentials/keychain.js').href
)

const state = useStateDirectory()
const login = (value: string) => ({ issuer: 'https://idp.example', resource: 'https://mcp.example/mcp', value })

/** Another process's gateway: keeps a login, tells what it read back or why not. */
async function run(script: string, env: Env, directory = state.directory): Promise<readonly string[]> {
  const running = startProcess(
    directory,
    `try { ${script} } catch (error) { print(error.code + ': ' + error.message) }`,
    env,
  )
  expect(await running.ended).toBe(0)
  return running.lines
}
const keep = (name: string, value: string) =>
  `print((await store.update(${JSON.stringify(name)}, () => (${JSON.stringify(login(value))}))).value)`
const read = (name: string) => `print((await store.read(${JSON.stringify(name)}))?.value)`

// macOS and Windows have keychains of their own, which would ask the person at the machine.
describe.runIf(process.platform === 'linux')('the keychain', () => {
  describe('of a desktop that is unlocked', () => {
    let home: string
    let desktop: SecretService
    beforeAll(async () => {
      home = await mkdtemp(join(tmpdir(), 'gateway-keychain-'))
      desktop = await startSecretService(home, { unlocked: true })
    })
    afterAll(async () => {
      await desktop?.stop()
      await rm(home, { recursive: true, force: true })
    })

    // The first test, since it needs the keychain empty.
    test('holds one key, also when several processes start for the first time at once', async () => {
      const names = ['a', 'b', 'c', 'd']
      const said = await Promise.all(names.map(name => run(keep(name, `of ${name}`), desktop.env)))
      expect(said).toEqual(names.map(name => [`of ${name}`]))
      expect(await Promise.all(names.map(name => run(read(name), desktop.env)))).toEqual(said)
      expect(await readdir(state.directory)).toEqual(['credentials.json'])
    })

    test('gives the same key to another state directory, and writes none over it', async () => {
      const keychain = openKeychain(desktop.env)
      const before = await keychain.get()
      expect(before).toEqual({ state: 'found', secret: expect.stringMatching(/^[\w+/]{43}=$/) })
      expect(await run(keep('notion', 'here'), desktop.env)).toEqual(['here'])
      expect(await keychain.set(newKey())).toEqual(before)
      expect(await keychain.get()).toEqual(before)
      expect(await run(read('notion'), desktop.env)).toEqual(['here'])
    })

    test('is not asked when it is switched off', async () => {
      const off = { ...desktop.env, GATEWAY_KEYCHAIN: 'off' }
      expect(await openKeychain(off).get()).toEqual({
        state: 'unavailable',
        reason: expect.stringContaining('GATEWAY_KEYCHAIN'),
      })
      expect(await run(keep('notion', 'here'), off)).toEqual([expect.stringContaining('credentials.key'), 'here'])
      // The choice is made: with the keychain back, the file is still the key.
      expect(await run(read('notion'), desktop.env)).toEqual(['here'])
    })

    test('locked, hides its key: sealed credentials are safe, a new store takes a key file', async () => {
      expect(await run(keep('notion', 'sealed'), desktop.env)).toEqual(['sealed'])
      const before = await readFile(state.at('credentials.json'), 'utf8')
      await desktop.stop()
      const locked = await startSecretService(home, { unlocked: false })
      try {
        const answer = await openKeychain(locked.env).get()
        expect(answer).toEqual({ state: 'unavailable', reason: expect.stringMatching(/unlock|locked/i) })
        const refused = expect.stringMatching(/^CONFIG_INVALID: .*Unlock the keychain.*GATEWAY_CREDENTIALS_KEY/)
        expect(await run(read('notion'), locked.env)).toEqual([refused])
        expect(await run(keep('github', 'new'), locked.env)).toEqual([refused])
        expect(await readFile(state.at('credentials.json'), 'utf8')).toBe(before)
        expect(await readdir(state.directory)).toEqual(['credentials.json'])

        const warned = expect.stringMatching(/^warning: .*credentials\.key.*keychain/)
        expect(await run(keep('notion', 'fresh'), locked.env, state.at('new'))).toEqual([warned, 'fresh'])
      } finally {
        await locked.stop()
        desktop = await startSecretService(home, { unlocked: true })
      }
      expect(await run(read('notion'), desktop.env)).toEqual(['sealed'])
    })
  })

  test('that nobody ever set up is not used', async () => {
    const service = await startSecretService(state.at('home'), { unlocked: false })
    try {
      const keychain = openKeychain(service.env)
      expect(await keychain.get()).toEqual({ state: 'absent' })
      expect(await keychain.set(newKey())).toMatchObject({ state: 'unavailable' })
      const warned = expect.stringMatching(/^warning: .*credentials\.key.*keychain/)
      expect(await run(keep('notion', 'here'), service.env, state.at('store'))).toEqual([warned, 'here'])
    } finally {
      await service.stop()
    }
  })

  test('that is not there at all is not used: no bus, as in a container', async () => {
    const env = { PATH: process.env.PATH, HOME: state.directory }
    expect(await openKeychain(env).get()).toEqual({ state: 'unavailable', reason: expect.stringMatching(/D-?Bus/i) })
    expect(await run(keep('notion', 'here'), env)).toEqual([expect.stringContaining('credentials.key'), 'here'])
    expect(await run(read('notion'), env)).toEqual(['here'])
  })

  test('that hangs is given up, with its process, and the event loop goes on meanwhile', async () => {
    const socket = state.at('bus')
    const silent = createServer(connection => void connection.on('error', () => undefined).resume())
    await once(silent.listen(socket), 'listening')
    let turns = 0
    const turning = setInterval(() => turns++, 10)
    const since = Date.now()
    try {
      const answer = await openKeychain({ DBUS_SESSION_BUS_ADDRESS: `unix:path=${socket}` }).get()
      expect(answer).toEqual({ state: 'unavailable', reason: expect.stringMatching(/did not answer within \d+ s/) })
      expect(Date.now() - since).toBeGreaterThan(4_900)
      expect(turns).toBeGreaterThan(100)
    } finally {
      clearInterval(turning)
    }
    silent.close()
    await once(silent, 'close') // not before its last connection, the child's, is gone
  })

  test('whose module is not installed is not used', async () => {
    await mkdir(state.at('credentials'))
    await copyFile(compiled('json.js'), state.at('json.js'))
    await copyFile(compiled('credentials/keychain-child.js'), state.at('credentials/keychain-child.js'))
    await writeFile(state.at('package.json'), '{ "type": "module" }')
    const child = spawn(process.execPath, [state.at('credentials/keychain-child.js')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    child.stdin.end(JSON.stringify({ operation: 'get' }))
    expect(JSON.parse(await text(child.stdout))).toEqual({
      state: 'unavailable',
      reason: expect.stringContaining('@napi-rs/keyring'),
    })
  })
})
