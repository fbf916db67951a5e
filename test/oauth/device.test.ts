import { describe, expect, test } from 'vitest'
import type { LoginPrompt } from '../../src/oauth/user-agent.js'
import { type AuthorizationServer, DEVICE_CODE } from '../fixtures/authorization-server.js'
import { type Person, somebody } from './people.js'
import { failure, openScene, type Scene } from './scene.js'

// The fixture asks for one second between polls; a fifth of it is enough here, where the rest is not about the interval.
const FAST = { deviceInterval: 0.2 }

const codesOf = ({ shown }: Person): LoginPrompt[] => shown.filter(({ kind }) => kind === 'device')

/** Somebody who does `act` on their phone once they see the code. */
function withPhone(issuer: AuthorizationServer, act: 'approveDevice' | 'denyDevice'): Person {
  const person = somebody({ hasBrowser: false })
  return {
    ...person,
    shown: person.shown,
    show(prompt) {
      person.show(prompt)
      if (prompt.kind === 'device') issuer[act](prompt.userCode)
    },
  }
}

const polls = ({ issuer }: Scene) => issuer.requestsTo('token', { grant_type: DEVICE_CODE })

describe('a login by device code', () => {
  test('shows where to go, and the code, and ends with tokens', async () => {
    const scene = await openScene({ issuer: FAST })
    const person = withPhone(scene.issuer, 'approveDevice')
    const record = await scene.login(person, { device: true })
    expect(record).toMatchObject({ grant: 'device_code', tokens: { refreshToken: expect.stringMatching(/^rt-/) } })
    expect(codesOf(person)).toMatchObject([
      {
        url: expect.stringContaining(`${scene.issuer.issuer}/device?user_code=`),
        userCode: expect.stringContaining('-'),
      },
    ])
    expect(scene.issuer.requestsTo('device')[0]?.params).toMatchObject({ scope: 'mcp', resource: scene.server.url })
    expect(scene.issuer.requestsTo('authorize')).toEqual([])
    expect(scene.issuer.requestsTo('registration')[0]?.params.grant_types).toContain(DEVICE_CODE)
  })

  test('waits until the person is done, at the pace of the server', async () => {
    const scene = await openScene({ issuer: { ...FAST, slowDowns: 0 } })
    const person = somebody({ hasBrowser: false })
    const done = scene.login(person, { device: true })
    await expect.poll(() => polls(scene).length).toBeGreaterThanOrEqual(2)
    scene.issuer.approveDevice()
    expect(await done).toMatchObject({ tokens: {} })
    expect(scene.issuer.counts.earlyPolls).toBe(0)
  })

  test('a server in trouble is asked again', async () => {
    const tokenFailure = { how: 'unavailable', times: 1 } as const
    const scene = await openScene({ issuer: { ...FAST, tokenFailure } })
    const done = scene.login(withPhone(scene.issuer, 'approveDevice'), { device: true })
    expect(await done).toMatchObject({ tokens: {} })
    expect(scene.issuer.counts.failures).toBe(1)
  })

  test('the person says no', async () => {
    const scene = await openScene({ issuer: FAST })
    const { message } = await failure(scene.login(withPhone(scene.issuer, 'denyDevice'), { device: true }))
    expect(message).toContain('access_denied')
    expect(polls(scene)).toHaveLength(1)
  })

  test('the time limit', async () => {
    const scene = await openScene({ issuer: FAST })
    const person = somebody({ hasBrowser: false })
    const { message } = await failure(scene.login(person, { device: true, timeLimitMs: 300 }))
    expect(message).toContain('nobody finished the login')
  })

  test('a server without it: the error says so', async () => {
    const scene = await openScene({ issuer: { device: false } })
    const { message } = await failure(scene.login(somebody({ hasBrowser: false }), { device: true }))
    expect(message).toContain('--device')
    expect(scene.issuer.requestsTo('token')).toEqual([])
  })

  test('its tokens are renewed like any other', async () => {
    const scene = await openScene({ issuer: FAST })
    const before = await scene.login(withPhone(scene.issuer, 'approveDevice'), { device: true })
    const opened = scene.openLogin()
    await opened.onUnauthorized({ status: 401, challenge: undefined, token: await opened.token() })
    expect(await opened.token()).not.toBe(before?.tokens?.accessToken)
    expect(scene.issuer.counts.refreshes).toBe(1)
  })
})
