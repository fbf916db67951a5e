import { request } from 'node:http'
import { createServer } from 'node:net'
import { describe, expect, onTestFinished, test } from 'vitest'
import { login } from '../../src/oauth/login.js'
import { loginEntry } from '../../src/oauth/login-record.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { whileTidyingUp } from './garbage.js'
import { browse, type Page, redirectOf, somebody } from './people.js'
import { failure, httpServer, openScene, quietPort } from './scene.js'

/** A browser that first does something else with the redirect URL, and then what it should. */
const whoTriesFirst = (attempt: (redirect: URL) => Promise<Page | undefined>) => {
  const tried: (Page | undefined)[] = []
  const person = somebody({
    async visit(url) {
      const redirect = await redirectOf(url)
      tried.push(await attempt(new URL(redirect)))
      return browse(redirect)
    },
  })
  return { person, tried }
}

const changed = (redirect: URL, change: (url: URL) => void): string => {
  const url = new URL(redirect)
  change(url)
  return url.href
}

interface SendOptions {
  readonly method?: string
  readonly host?: string
  /** Instead of path and query. */
  readonly target?: string
}

/** A request as no browser of this machine would send it. */
function send(url: URL, options: SendOptions): Promise<Page> {
  return new Promise((resolve, reject) => {
    const headers = options.host === undefined ? {} : { host: options.host }
    const path = options.target === undefined ? {} : { path: options.target }
    const sent = request(url, { method: options.method ?? 'GET', headers, ...path }, response => {
      const chunks: Buffer[] = []
      response.on('data', chunk => chunks.push(chunk))
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: new Headers(response.headers as Record<string, string>),
          text: Buffer.concat(chunks).toString('utf8'),
        }),
      )
    })
    sent.on('error', reject).end()
  })
}

async function occupy(port: number, host = '127.0.0.1'): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve))
  onTestFinished(() => void server.close())
  const address = server.address()
  return typeof address === 'object' && address ? address.port : 0
}

describe('what is no answer to this login is told off, and changes nothing', () => {
  test.each<[what: string, status: number, attempt: (redirect: URL) => Promise<Page>]>([
    ['a wrong state', 400, url => browse(changed(url, u => u.searchParams.set('state', 'forged')))],
    ['no state', 400, url => browse(changed(url, u => u.searchParams.delete('state')))],
    ['an empty state', 400, url => browse(changed(url, u => u.searchParams.set('state', '')))],
    [
      'a forged error',
      400,
      url => browse(changed(url, u => Object.assign(u, { search: '?error=access_denied&state=x' }))),
    ],
    ['another path', 404, url => browse(changed(url, u => Object.assign(u, { pathname: '/other' })))],
    ['a longer path', 404, url => browse(changed(url, u => Object.assign(u, { pathname: '/callback/x' })))],
    ['POST', 405, url => send(url, { method: 'POST' })],
    ['HEAD', 405, url => send(url, { method: 'HEAD' })],
    ['a foreign Host header', 403, url => send(url, { host: 'evil.example' })],
    ['a Host header that begins well', 403, url => send(url, { host: '127.0.0.1.evil.example' })],
    ['a target that is no path', 404, url => send(url, { target: '//' })],
    ['a target that is another URL', 404, url => send(url, { target: 'http://[' })],
    ['a Host header that is none', 403, url => send(url, { host: 'a b' })],
  ])('%s', async (_what, status, attempt) => {
    const scene = await openScene()
    const { person, tried } = whoTriesFirst(attempt)
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(tried).toMatchObject([{ status }])
    expect(scene.issuer.requestsTo('token')).toHaveLength(1)
  })

  test('a server that sends a wrong state: nothing is exchanged, and the time limit ends it', async () => {
    const scene = await openScene({ issuer: { state: 'wrong' } })
    const person = somebody()
    const { message } = await failure(scene.login(person, { timeLimitMs: 300 }))
    expect(message).toContain('nobody finished the login')
    expect(person.pages).toMatchObject([{ status: 400 }])
    expect(scene.issuer.requestsTo('token')).toEqual([])
  })
})

describe('an answer that comes twice', () => {
  test('is used once, and says so', async () => {
    const scene = await openScene({ issuer: { tokenLatencyMs: 100 } })
    const person = somebody({
      async visit(url) {
        const redirect = await redirectOf(url)
        const [first, second] = await Promise.all([browse(redirect), browse(redirect)])
        return first.status === 200 ? second : first
      },
    })
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    await expect.poll(() => person.pages).toMatchObject([{ status: 400, text: expect.stringContaining('used before') }])
    expect(scene.issuer.requestsTo('token')).toHaveLength(1)
    expect(scene.issuer.counts.codeReuses).toBe(0)
  })

  test('when the listener is gone, nobody is there', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    let redirect = ''
    const person = somebody({
      async visit(url) {
        redirect = await redirectOf(url)
        return browse(redirect)
      },
    })
    await scene.login(person)
    await expect.poll(() => person.pages.length).toBe(1)
    await expect(browse(redirect)).rejects.toThrow()
  })

  test('a code that was used before is refused by the server: the person reads why', async () => {
    // One port, and so one client: a code of another client would be refused for that.
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    let used: string | null = null
    const remember = whoTriesFirst(async url => {
      used = url.searchParams.get('code')
      return undefined
    })
    await scene.login(remember.person)
    const person = somebody({
      visit: async url =>
        browse(changed(new URL(await redirectOf(url)), u => u.searchParams.set('code', String(used)))),
    })
    const { message } = await failure(scene.login(person))
    expect(message).toContain('used before')
    await expect.poll(() => person.pages).toMatchObject([{ text: expect.stringContaining('The login failed') }])
    expect(scene.issuer.counts.codeReuses).toBe(1)
  })
})

describe('the page', () => {
  test('says that it worked after it did, and runs and loads nothing', async () => {
    const scene = await openScene()
    const person = somebody()
    await scene.login(person)
    await expect.poll(() => person.pages.length).toBe(1)
    const [page] = person.pages
    expect(page).toMatchObject({ status: 200, text: expect.stringContaining('You are logged in') })
    expect(page?.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(page?.headers.get('referrer-policy')).toBe('no-referrer')
    expect(page?.headers.get('cache-control')).toBe('no-store')
  })

  test('says that it failed when the code could not be exchanged', async () => {
    const scene = await openScene({ issuer: { tokenFailure: { how: 'unavailable' } } })
    const person = somebody()
    await failure(scene.login(person), 'SERVER_UNAVAILABLE')
    await expect.poll(() => person.pages).toMatchObject([{ text: expect.stringContaining('The login failed') }])
    expect(person.pages[0]?.text).not.toContain('You are logged in')
  })

  test('shows a hostile description as text, to the end', async () => {
    const error_description = '<script>alert(1)</script><img src=x onerror=y>"\'\u001b]0;x\u0007'
    const scene = await openScene({ issuer: { user: { error: 'access_denied', error_description } } })
    const person = somebody()
    const { message } = await failure(scene.login(person))
    expect(message).toContain('access_denied')
    expect([...message].filter(character => character < ' ')).toEqual([])
    await expect.poll(() => person.pages.length).toBe(1)
    const text = person.pages[0]?.text ?? ''
    expect(text).toContain('&lt;script&gt;')
    expect(text).not.toMatch(/<script|<img/i)
  })

  test('shows a long one shortened', async () => {
    const user = { error: 'access_denied', error_description: 'x'.repeat(5_000) }
    const scene = await openScene({ issuer: { user } })
    expect((await failure(scene.login())).message.length).toBeLessThan(600)
  })
})

describe('somebody who does not finish', () => {
  test('closes the tab: the time limit says so', async () => {
    const scene = await openScene()
    const person = somebody({ visit: async () => undefined })
    const { message } = await failure(scene.login(person, { timeLimitMs: 200 }))
    expect(message).toMatch(/nobody finished the login .* start it again/)
    expect(await scene.stored()).toBeUndefined()
  })

  test('closes the tab, and memory is tidied up meanwhile: the same', async () => {
    const scene = await openScene()
    const person = somebody({ visit: async () => undefined })
    const { message } = await whileTidyingUp(failure(scene.login(person, { timeLimitMs: 400 })))
    expect(message).toContain('nobody finished the login')
  })

  test('gives up: the listener is closed', async () => {
    const scene = await openScene({ oauth: { callbackPort: await quietPort() } })
    const stop = new AbortController()
    const person = somebody({
      async visit() {
        stop.abort(new Error('stopped'))
        return undefined
      },
    })
    await expect(scene.login(person, { signal: stop.signal })).rejects.toThrow('stopped')
    expect(await scene.login()).toMatchObject({ tokens: {} })
  })
})

describe('where it listens', () => {
  test('a busy usual port: at another one', async () => {
    // Somebody else may have it already, and let go of it in the middle of this: then it is tried again.
    for (let used = '8976'; used === '8976'; ) {
      const isOurs = await occupy(8976).then(
        () => true,
        () => false,
      )
      const scene = await openScene()
      const person = somebody()
      await scene.login(person)
      const [prompt] = person.shown
      used = prompt?.kind === 'browser' ? new URL(prompt.redirectUri).port : ''
      if (isOurs) expect(used).not.toBe('8976')
    }
  })

  test('a busy callbackPort: an error that names the key and the port, and nothing is registered', async () => {
    const port = await occupy(0)
    const scene = await openScene({ oauth: { callbackPort: port } })
    const { message } = await failure(scene.login())
    expect(message).toContain('oauth.callbackPort')
    expect(message).toContain(String(port))
    expect(scene.issuer.requestsTo('registration')).toEqual([])
  })

  test('a busy port of redirectUri: the other key', async () => {
    const port = await occupy(0)
    const scene = await openScene({ oauth: { redirectUri: `http://127.0.0.1:${port}/back` } })
    expect((await failure(scene.login())).message).toContain('oauth.redirectUri')
  })

  test.each(['localhost', '127.0.0.1', '[::1]'])('redirectUri on %s, path and all', async host => {
    const redirectUri = `http://${host}:${await quietPort()}/oauth/back`
    const scene = await openScene({ oauth: { redirectUri } })
    const person = somebody()
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(person.shown).toMatchObject([{ redirectUri }])
    expect(scene.issuer.requestsTo('token')[0]?.params.redirect_uri).toBe(redirectUri)
  })

  test('redirectUri elsewhere: nothing is listened on, the answer is pasted', async () => {
    const redirectUri = 'https://team.example/oauth/back'
    const scene = await openScene({ oauth: { redirectUri } })
    const person = somebody({
      async *pastes({ url }) {
        yield await redirectOf(url)
      },
    })
    expect(await scene.login(person)).toMatchObject({ tokens: {} })
    expect(scene.issuer.requestsTo('authorize')[0]?.params.redirect_uri).toBe(redirectUri)
  })
})

test('ten logins at once, four of them to one server: each code goes with its own verifier', async () => {
  const scene = await openScene({ issuer: { redirectUris: 'any loopback port' } })
  const others = await Promise.all(
    Array.from({ length: 6 }, () => openProtectedServer({ authorizationServer: scene.issuer })),
  )
  onTestFinished(async () => void (await Promise.all(others.map(server => server.close()))))
  const configs = [
    ...Array.from({ length: 4 }, () => scene.config),
    ...others.map(({ url }, index) => httpServer({ url }, `other-${index}`)),
  ]
  const people = configs.map(() => somebody())
  // Each with a store of its own, as ten processes would.
  const records = await Promise.all(
    configs.map((config, index) => login(config, { store: scene.openStore(), userAgent: people[index] })),
  )
  expect(records.map(record => record?.tokens?.accessToken ?? '')).toEqual(
    configs.map(() => expect.stringMatching(/^at-/)),
  )
  expect(new Set(records.map(record => record?.tokens?.accessToken)).size).toBe(10)
  expect(scene.issuer.counts.codeReuses).toBe(0)
  // A verifier that does not fit would have been answered invalid_grant, and failed that login.
  const exchanges = scene.issuer.requestsTo('token')
  expect(exchanges).toHaveLength(10)
  expect(new Set(exchanges.map(({ params }) => params.code_verifier)).size).toBe(10)
  const names = new Set(configs.map(({ name }) => loginEntry(name)))
  expect((await scene.store.list()).map(({ name }) => name)).toEqual(expect.arrayContaining([...names]))
})
