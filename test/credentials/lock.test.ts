import { mkdir, readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { withLock } from '../../src/credentials/lock.js'
import { startProcess } from './gateway-process.js'
import { useStateDirectory } from './state-directory.js'

const state = useStateDirectory()
const LOCK = new URL('../../dist/credentials/lock.js', import.meta.url).href

async function leaveStale(name: string, secondsAgo = 60): Promise<void> {
  await mkdir(state.at(name))
  await utimes(state.at(name), Date.now() / 1000 - secondsAgo, Date.now() / 1000 - secondsAgo)
}

test('what a killed holder left is taken by one at a time, however many find it at once', async () => {
  const locks = 30
  for (let lock = 0; lock < locks; lock++) await leaveStale(`entry-${lock}.lock`)
  // All at the same moment, each lock at its own: when they come one by one there is nothing to see.
  const start = Date.now() + 1_500
  const script = `
    const { withLock } = await import(${JSON.stringify(LOCK)})
    const { appendFileSync } = await import('node:fs')
    const now = () => performance.timeOrigin + performance.now()
    for (let lock = 0; lock < ${locks}; lock++) {
      while (Date.now() < ${start} + 40 * lock) await new Promise(resolve => setTimeout(resolve, 1))
      await withLock(${JSON.stringify(state.directory)} + '/entry-' + lock, async assertHeld => {
        const begin = now()
        await new Promise(resolve => setTimeout(resolve, 3))
        assertHeld()
        appendFileSync(${JSON.stringify(state.at('log'))}, JSON.stringify([lock, begin, now()]) + '\\n')
      })
    }`
  const processes = [0, 1, 2, 3].map(() => startProcess(state.directory, script))
  expect(await Promise.all(processes.map(({ ended }) => ended))).toEqual([0, 0, 0, 0])

  const held: [lock: number, begin: number, end: number][] = (await readFile(state.at('log'), 'utf8'))
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  held.sort(([a, beginA], [b, beginB]) => a - b || beginA - beginB)
  expect(held).toHaveLength(4 * locks)
  const together = held.filter(([lock, begin], at) => {
    const [lockBefore, , endBefore] = held[at - 1] ?? [-1, 0, 0]
    return lock === lockBefore && begin < endBefore
  })
  expect(together).toEqual([])
  expect(await readdir(state.directory)).toEqual(['log'])
})

test('what was left of a takeover is no obstacle for ever', async () => {
  await leaveStale('entry.lock')
  await leaveStale('entry.takeover.lock')
  expect(await withLock(state.at('entry'), async () => 'done')).toBe('done')
  expect(await readdir(state.directory)).toEqual([])
})

test('something else in its place is said to be in the way', async () => {
  await writeFile(state.at('entry.lock'), '')
  await utimes(state.at('entry.lock'), 1, 1)
  await expect(withLock(state.at('entry'), async () => 'done')).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringContaining(state.at('entry.lock')),
  })
})
