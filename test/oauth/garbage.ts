import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect } from 'vitest'

/** Waits for it while memory is tidied up again and again: what nobody holds is gone soon. */
export async function whileTidyingUp<T>(promise: Promise<T>, timeoutMs = 5_000): Promise<T> {
  setFlagsFromString('--expose-gc')
  const collectGarbage: () => void = runInNewContext('gc')
  let isOver = false
  const over = promise.finally(() => {
    isOver = true
  })
  const look = () => {
    collectGarbage()
    return isOver
  }
  await expect.poll(look, { timeout: timeoutMs }).toBe(true)
  return over
}
