import { describe, expect, test } from 'vitest'
import { redirectOf, somebody, whoPastes } from './people.js'
import { failure, openScene } from './scene.js'

const queryOf = (redirect: string): string => new URL(redirect).search

describe('somebody who pastes', () => {
  test.each<[what: string, line: (redirect: string) => string]>([
    ['the whole address', redirect => redirect],
    ['it with spaces around', redirect => `  ${redirect}\r`],
    ['the query only', redirect => queryOf(redirect)],
    ['it without the question mark', redirect => queryOf(redirect).slice(1)],
  ])('%s', async (_what, line) => {
    const scene = await openScene()
    const person = whoPastes(line)
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(person.refusals).toEqual([])
  })

  test('what is not the answer is told why, and the next line is taken', async () => {
    const scene = await openScene()
    const wrongState = (redirect: string) => redirect.replace(/state=[^&]+/, 'state=forged')
    const bareCode = (redirect: string) => new URL(redirect).searchParams.get('code') ?? ''
    const withoutState = (redirect: string) => redirect.replace(/&?state=[^&]+/, '')
    const person = whoPastes(
      () => '',
      bareCode,
      withoutState,
      wrongState,
      () => 'what is this?',
      () => 'https://evil.example/?state=x',
      redirect => redirect,
    )
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(person.refusals).toHaveLength(5)
    expect(person.refusals.filter(reason => reason.includes('another login'))).toHaveLength(1)
    expect(person.refusals[0]).toContain('state')
    expect(scene.issuer.requestsTo('token')).toHaveLength(1)
  })

  test('an error answer ends the login with what it says', async () => {
    const scene = await openScene({ issuer: { user: { error: 'access_denied', error_description: 'not today' } } })
    const { message } = await failure(scene.login(whoPastes(redirect => redirect)))
    expect(message).toContain('access_denied: not today')
  })

  test('an answer of another issuer is refused', async () => {
    const scene = await openScene()
    const person = whoPastes(redirect => redirect.replace(/iss=[^&]+/, 'iss=https%3A%2F%2Fevil.example'))
    expect((await failure(scene.login(person))).message).toContain('https://evil.example')
    expect(scene.issuer.requestsTo('token')).toEqual([])
  })

  test('nothing, while the browser comes back by itself: whichever is first', async () => {
    const scene = await openScene()
    const person = somebody({
      hasBrowser: true,
      async *pastes() {
        yield await new Promise<string>(() => {})
      },
    })
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(person.opened).toHaveLength(1)
  })

  test('although a browser was opened that never came back', async () => {
    const scene = await openScene()
    const person = somebody({
      hasBrowser: true,
      visit: async () => undefined,
      async *pastes({ url }) {
        yield await redirectOf(url)
      },
    })
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
  })
})

describe('nobody there', () => {
  test('the input ends, and the browser is open: it is waited for', async () => {
    const scene = await openScene()
    const person = somebody({ hasBrowser: true, async *pastes() {} })
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
  })

  test('no user agent at all', async () => {
    const scene = await openScene()
    await failure(scene.login(undefined, { userAgent: undefined }), 'AUTH_REQUIRED')
  })
})
