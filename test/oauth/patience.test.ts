import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { DEVICE_CODE } from '../fixtures/authorization-server.js'
import { somebody, whoPastes } from './people.js'
import { failure, openScene } from './scene.js'

// What takes its time by nature, all at once.
describe.concurrent('waiting', () => {
  test('for metadata that stalls has an end', async ({ onTestFinished: atEnd }) => {
    const one = await openScene({ server: { metadataServed: 'stalled' }, atEnd })
    const other = await openScene({ issuer: { served: 'stalled' }, atEnd })
    const started = Date.now()
    const errors = await Promise.all([one, other].map(scene => failure(scene.login(), 'SERVER_UNAVAILABLE')))
    expect(errors.map(({ message }) => message)).toEqual(errors.map(() => expect.stringContaining('in time')))
    expect(Date.now() - started).toBeLessThan(15_000)
  })

  test('for a refresh that is never answered ends before the lock of the others would', async context => {
    const scene = await openScene({ atEnd: context.onTestFinished })
    const record = await scene.login()
    await scene.age(3_600_001)
    const bytes = () => readFile(join(scene.directory, 'credentials.json'), 'utf8')
    const before = await bytes()
    scene.issuer.set({ tokenFailure: { how: 'no answer' } })
    const opened = scene.openLogin()
    await failure(Promise.resolve(opened.token()), 'SERVER_UNAVAILABLE')
    expect(await bytes()).toBe(before)
    scene.issuer.set({ tokenFailure: null })
    expect(await opened.token()).not.toBe(record?.tokens?.accessToken)
  })

  test('between polls for a device code grows by five seconds after slow_down', async ({ onTestFinished: atEnd }) => {
    const scene = await openScene({ issuer: { deviceInterval: 0.2, slowDowns: 1 }, atEnd })
    const person = somebody({ hasBrowser: false })
    const started = Date.now()
    const show = ({ kind }: { readonly kind: string }) => void (kind === 'device' && scene.issuer.approveDevice())
    expect(await scene.login({ ...person, show }, { device: true })).toMatchObject({ tokens: {} })
    expect(Date.now() - started).toBeGreaterThan(5_000)
    expect(scene.issuer.requestsTo('token', { grant_type: DEVICE_CODE })).toHaveLength(2)
    expect(scene.issuer.counts.earlyPolls).toBe(0)
  })

  test('for a device code ends with the code', async ({ onTestFinished: atEnd }) => {
    const scene = await openScene({ issuer: { deviceInterval: 0.2, deviceExpiresIn: 1 }, atEnd })
    const { message } = await failure(scene.login(somebody({ hasBrowser: false }), { device: true }))
    expect(message).toMatch(/not entered in time|expired_token/)
  })

  test('for somebody without input and browser ends within 5 s, saying why', async ({ onTestFinished: atEnd }) => {
    const scene = await openScene({ atEnd })
    const started = Date.now()
    const { message } = await failure(scene.login(whoPastes()), 'AUTH_REQUIRED')
    expect(message).toContain('before the address was pasted')
    expect(Date.now() - started).toBeLessThan(5_000)
  })

  test('for somebody without input whose browser fails to open, too', async ({ onTestFinished: atEnd }) => {
    const scene = await openScene({ atEnd })
    const person = { ...whoPastes(), open: async () => false }
    await failure(scene.login(person), 'AUTH_REQUIRED')
  })
})
