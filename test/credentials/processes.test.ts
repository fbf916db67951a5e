import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { beforeAll, describe, expect, test } from 'vitest'
import { type GatewayProcess, startProcess, until } from './gateway-process.js'
import { newKey, useStateDirectory } from './state-directory.js'

const state = useStateDirectory()
const start = (script: string, env = {}) => startProcess(state.directory, script, { GATEWAY_KEYCHAIN: 'off', ...env })
const filesBut = async (...names: string[]) => (await readdir(state.directory)).filter(name => !names.includes(name))

/** As if `seconds` had passed since anybody touched them. */
async function age(names: readonly string[], seconds = 3600): Promise<void> {
  const then = Date.now() / 1000 - seconds
  await Promise.all(names.map(name => utimes(state.at(name), then, then)))
}

async function say(to: GatewayProcess, expected: string): Promise<void> {
  const count = to.lines.length + 1
  to.child.stdin?.write('go on\n')
  await to.printed(count)
  expect(to.lines[count - 1]).toContain(expected)
}

/** Takes the lock of an entry, asserts it whenever told to, gives it back, and stays. */
const HOLD = `
  await store.exclusively('notion', async assertHeld => {
    print('held')
    for (let i = 0; i < 2; i++) {
      await input()
      try { assertHeld(); print('still held') } catch (error) { print(error.code + ': ' + error.message) }
    }
  })
  print('released')
  await input()`

// Stopped for as long as the first tests take: only real time tells whether a stop is noticed.
let sleeper: { readonly directory: string; readonly process: GatewayProcess; readonly since: number }
beforeAll(async () => {
  const directory = await mkdtemp(join(tmpdir(), 'gateway-sleeper-'))
  const process = startProcess(directory, HOLD, { GATEWAY_KEYCHAIN: 'off' }, () => undefined)
  await process.printed(1)
  process.child.kill('SIGSTOP')
  sleeper = { directory, process, since: Date.now() }
  return async () => {
    process.child.kill('SIGKILL')
    await rm(directory, { recursive: true, force: true })
  }
})

test('killed at any moment of 500 saves, it keeps a file that parses and what it said it saved', async () => {
  const env = { GATEWAY_CREDENTIALS_KEY: newKey() }
  const names = { issuer: '', resource: '' }
  const saved = async () => Number((await state.open(env).read('count'))?.value ?? 0)
  const writer = `
    let count = 0
    while (count < 500) {
      const next = current => ({ issuer: '', resource: '', value: Math.min((current?.value ?? 0) + 1, 500) })
      const written = await store.update('count', next)
      print(count = written.value)
    }`
  await state.open(env).update('other', () => ({ ...names, value: 'x'.repeat(10_000) }))
  let kills = 0
  for (;;) {
    const running = start(writer, env)
    const ended = await Promise.race([running.ended, running.printed(1 + Math.random() * 40).then(() => 'printed')])
    if (ended === 0) break
    await wait(Math.random() * 10) // anywhere in a save
    running.child.kill('SIGKILL')
    if ((await running.ended) === 0) break
    kills++
    JSON.parse(await readFile(state.at('credentials.json'), 'utf8'))
    expect(await saved()).toBeGreaterThanOrEqual(Number(running.lines.at(-1)))
    const left = await filesBut('credentials.json')
    expect(left.filter(name => name.endsWith('.tmp')).length).toBeLessThanOrEqual(1)
    await age(left)
  }
  expect(kills).toBeGreaterThan(5)
  expect(await saved()).toBe(500)
  expect(await state.open(env).read('other')).toEqual({ ...names, value: 'x'.repeat(10_000) })
  expect(await filesBut('credentials.json')).toEqual([])
})

test('several that update at once lose nothing, and end with one key', async () => {
  const rounds = 15
  const add = `current => ({ issuer: '', resource: '', value: (current?.value ?? 0) + 1 })`
  const names = ['own-0', 'own-1', 'own-2', 'own-3']
  const processes = names.map(name =>
    start(`for (let round = 0; round < ${rounds}; round++) {
      await Promise.all([store.update('shared', ${add}), store.update('${name}', ${add})])
    }`),
  )
  expect(await Promise.all(processes.map(({ ended }) => ended))).toEqual(names.map(() => 0))
  const store = state.open()
  expect((await store.read('shared'))?.value).toBe(names.length * rounds)
  expect(await Promise.all(names.map(async name => (await store.read(name))?.value))).toEqual(names.map(() => rounds))
  expect(processes.flatMap(({ lines }) => lines)).toEqual([expect.stringContaining('warning: ')])
  expect(await filesBut()).toEqual(['credentials.json', 'credentials.key'])
})

describe('exclusively', () => {
  test('lets one process at a time at an entry, and updates inside', async () => {
    // Without the lock around both, the others' numbers would be read in between.
    const script = `
      for (let round = 0; round < 10; round++) await store.exclusively('notion', async assertHeld => {
        const before = (await store.read('notion'))?.value ?? 0
        await new Promise(resolve => setTimeout(resolve, Math.random() * 5))
        assertHeld()
        await store.update('notion', () => ({ issuer: '', resource: '', value: before + 1 }))
      })`
    const processes = [start(script), start(script), start(script)]
    expect(await Promise.all(processes.map(({ ended }) => ended))).toEqual([0, 0, 0])
    expect((await state.open().read('notion'))?.value).toBe(30)
    expect(await filesBut()).toEqual(['credentials.json', 'credentials.key'])
  })

  test('lets one caller of a process at a time at an entry, in the order they came', async () => {
    const store = state.open()
    const order: string[] = []
    const work = (name: string) => async () => {
      order.push(`${name} begins`)
      await wait(1)
      order.push(`${name} ends`)
      if (name === 'b') throw new Error('b failed')
    }
    const all = await Promise.allSettled(['a', 'b', 'c'].map(name => store.exclusively('notion', work(name))))
    expect(all.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends'])
  })

  test('holds up nobody else', async () => {
    const holder = start(HOLD)
    await holder.printed(1)
    const store = state.open({ GATEWAY_CREDENTIALS_KEY: newKey() })
    expect(await store.exclusively('github', async () => 'done')).toBe('done')
    const login = { issuer: '', resource: '', value: 1 }
    expect(await store.update('notion', () => login)).toEqual(login)
    await say(holder, 'still held')
  })

  test('is free again as soon as its holder ended, by a signal too', async () => {
    const holder = start(HOLD)
    await holder.printed(1)
    holder.child.kill('SIGTERM')
    expect(await holder.ended).toBe('SIGTERM')
    expect(await state.open().exclusively('notion', async () => 'done')).toBe('done')
    expect(await filesBut()).toEqual([])
  })
})

// A stopped process is what a sleeping laptop is: it goes on and knows nothing of the time between.
describe('a process that was stopped', () => {
  test('has lost its lock to whoever took it, and leaves that one alone', async () => {
    const stopped = start(HOLD)
    await stopped.printed(1)
    stopped.child.kill('SIGSTOP')
    await age(await filesBut(), 20)
    const next = start(HOLD)
    await next.printed(1)

    stopped.child.kill('SIGCONT')
    await say(stopped, 'TIMEOUT: the lock')
    await say(stopped, 'TIMEOUT: the lock')
    await stopped.printed(4)
    expect(stopped.lines[3]).toBe('released')
    await say(next, 'still held')
    await say(next, 'still held')
    await next.printed(4)
    await until(async () => (await filesBut()).length === 0)
  })

  test('has lost its lock after a while even if nobody took it', async () => {
    await until(() => Date.now() - sleeper.since > 8_000)
    const { process } = sleeper
    process.child.kill('SIGCONT')
    await say(process, 'TIMEOUT: the lock')
    await say(process, 'TIMEOUT: the lock')
    await process.printed(4)
    await until(async () => (await readdir(sleeper.directory)).length === 0)
  })
})

describe('watch', () => {
  const login = (value: number) => ({ issuer: '', resource: '', value })

  test('tells of every change, whoever makes it, until it is stopped', async () => {
    const store = state.open()
    let calls = 0
    const stop = store.watch(() => {
      calls++
    })
    await store.update('notion', () => login(1))
    await until(() => calls === 1)
    const writer = start(`await store.update('notion', () => ({ issuer: '', resource: '', value: 2 }))`)
    expect(await writer.ended).toBe(0)
    await until(() => calls === 2)
    expect((await store.read('notion'))?.value).toBe(2)

    let otherCalls = 0
    stop()
    const stopOther = store.watch(() => {
      otherCalls++
    })
    await store.update('notion', () => login(3))
    await until(() => otherCalls === 1)
    expect(calls).toBe(2)
    stopOther()
  })

  test('does not keep the process alive', async () => {
    const watcher = start(`store.watch(() => print('changed')); print('watching')`)
    expect(await watcher.ended).toBe(0)
    expect(watcher.lines).toEqual(['watching'])
    expect(existsSync(state.at('credentials.json'))).toBe(false)
  })
})
