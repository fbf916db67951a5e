import { expect, test } from 'vitest'
import { createMinuteCounts } from '../../src/observability/minute-counts.js'

test('counts each key for itself, and takes back', async () => {
  const counts = createMinuteCounts()
  const add = async (key: string) => (await counts.add(key)).count
  expect([await add('a'), await add('a'), await add('b')]).toEqual([1, 2, 1])
  await counts.takeBack('a')
  expect(await add('a')).toBe(2)
  const { resetsInMs } = await counts.add('a')
  expect(resetsInMs).toBeGreaterThan(59_000)
  expect(resetsInMs).toBeLessThanOrEqual(60_000)
})

test('remembers so many keys and no more, those that are in use first', async () => {
  const counts = createMinuteCounts(3)
  for (const key of ['a', 'b', 'c', 'a', 'd']) await counts.add(key)
  expect((await counts.add('a')).count).toBe(3)
  expect((await counts.add('b')).count).toBe(1)
})
