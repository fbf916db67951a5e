import { describe, expect, test } from 'vitest'
import { whileGood } from '../../src/http/streams.js'
import { InvalidTokenError, IssuerUnavailableError } from '../../src/identity/token-errors.js'
import type { VerifiedToken } from '../../src/identity/token-verifier.js'

const RECHECK_MS = 10

const goodFor = (ms: number): VerifiedToken => ({
  principal: { id: 'a', key: 'a', agents: ['a'] },
  clientId: '',
  scopes: [],
  expiresAt: 0,
  acceptedUntil: (Date.now() + ms) / 1000,
})

describe('a stream', () => {
  test('ends when its token has expired', async () => {
    const token = goodFor(50)
    const { signal } = whileGood({ token, recheck: async () => token }, RECHECK_MS)
    expect(signal.aborted).toBe(false)
    await expect.poll(() => signal.aborted).toBe(true)
    expect(Date.now() / 1000).toBeGreaterThanOrEqual(token.acceptedUntil)
  })

  test('ends when its token is no longer good for another reason', async () => {
    let isRevoked = false
    let looks = 0
    const recheck = async () => {
      looks++
      if (isRevoked) throw new InvalidTokenError('the API key is revoked')
      return goodFor(60_000)
    }
    const { signal } = whileGood({ token: goodFor(60_000), recheck }, RECHECK_MS)
    await expect.poll(() => looks).toBeGreaterThan(2)
    expect(signal.aborted).toBe(false)
    isRevoked = true
    await expect.poll(() => signal.aborted).toBe(true)
  })

  test('goes on while nobody can say', async () => {
    let looks = 0
    const recheck = () => {
      looks++
      return Promise.reject(new IssuerUnavailableError('away'))
    }
    const { signal, release } = whileGood({ token: goodFor(60_000), recheck }, RECHECK_MS)
    await expect.poll(() => looks).toBeGreaterThan(2)
    expect(signal.aborted).toBe(false)
    release()
  })

  test('of a key that has no end goes on for as long as the key is good', async () => {
    let looks = 0
    const recheck = async () => {
      looks++
      return goodFor(20) // as long as a look is good for
    }
    const { signal, release } = whileGood({ token: goodFor(20), recheck }, 60_000)
    await expect.poll(() => looks).toBeGreaterThan(3)
    expect(signal.aborted).toBe(false)
    release()
  })
})
