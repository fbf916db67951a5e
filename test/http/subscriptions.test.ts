import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  askModern,
  beginSession,
  exchange,
  listenModern,
  type Message,
  modern,
  type Stream,
  SUBSCRIPTION_ID,
} from '../fixtures/http-clients.js'
import { openSocialGateway, type Social, type SocialGateway } from '../fixtures/social.js'

const SEES_ALL = { allow: { servers: ['*'] } }
const SEES_PUBLIC = { allow: { servers: ['*'] }, deny: { tools: { '*': ['secret_*'] } } }

let social: SocialGateway
let mine: string
let theirs: string
beforeAll(async () => {
  social = await openSocialGateway({ boss: SEES_ALL, clerk: SEES_PUBLIC })
  mine = await social.token({ agents: ['boss'] })
  theirs = await social.token({ agents: ['clerk'] })
})
afterAll(() => social[Symbol.asyncDispose]())

const TOOLS = 'notifications/tools/list_changed'
const PROMPTS = 'notifications/prompts/list_changed'
const UPDATED = 'notifications/resources/updated'
const methods = (stream: Stream) => stream.messages().map(({ method }) => method)
const said = (stream: Stream, method: string) => stream.messages().filter(message => message.method === method)
const subscriptionOf = ({ params, result }: Message) =>
  ((params ?? result)?._meta as Record<string, unknown> | undefined)?.[SUBSCRIPTION_ID]

/** Every server has its tools called on the connection that clients without capabilities share. */
const doors: readonly [string, Social, () => string, (name: string) => string][] = (
  ['old', 'new', 'web-old', 'web-new'] as const
).flatMap(server => [
  [`/servers/${server}/mcp`, server, () => social.at(server), (name: string) => name],
  [
    `/mcp?expose=direct and ${server}`,
    server,
    () => `${social.mcp}?expose=direct`,
    (name: string) => `${server}__${name}`,
  ],
])

let lastName = 0
const fresh = (prefix: string) => `${prefix}${++lastName}`

describe.each(doors)('subscriptions/listen at %s', (_, server, url, named) => {
  const isDirect = named('') !== ''
  const uriOf = (uri: string) => (isDirect ? `gateway://${server}/${uri}` : uri)
  const call = (tool: string, args = {}) => askModern(url(), mine, 'tools/call', { name: named(tool), arguments: args })

  test('acknowledges first, then announces what was asked for under its own id', async () => {
    for (const id of ['a string', 17]) {
      const stream = await listenModern(url(), mine, { toolsListChanged: true }, id)
      expect([stream.status, stream.headers['content-type']]).toEqual([200, 'text/event-stream'])
      expect(stream.messages()).toEqual([
        {
          jsonrpc: '2.0',
          method: 'notifications/subscriptions/acknowledged',
          params: { notifications: { toolsListChanged: true }, _meta: { [SUBSCRIPTION_ID]: id } },
        },
      ])
      await call('notice_prompts')
      await call('grow', { name: fresh('public_') })
      await expect.poll(() => methods(stream)).toContain(TOOLS)
      expect(methods(stream)).not.toContain(PROMPTS)
      expect(stream.messages().every(message => subscriptionOf(message) === id)).toBe(true)
      stream.close()
    }
  })

  test('tells each caller of the tools that it sees', async () => {
    const [own, other] = [
      await listenModern(url(), mine, { toolsListChanged: true, promptsListChanged: true }),
      await listenModern(url(), theirs, { toolsListChanged: true, promptsListChanged: true }),
    ]
    await call('grow', { name: fresh('secret_') })
    await expect.poll(() => methods(own)).toContain(TOOLS)
    // What comes after it has arrived; this one never will.
    await call('notice_prompts')
    await expect.poll(() => [methods(own).includes(PROMPTS), methods(other).includes(PROMPTS)]).toEqual([true, true])
    expect(methods(other)).not.toContain(TOOLS)

    await call('grow', { name: fresh('public_') })
    await expect.poll(() => methods(other)).toContain(TOOLS)
    for (const stream of [own, other]) stream.close()
  })

  test('tells of the resources that were asked for', async () => {
    const [one, other] = [fresh('note://'), fresh('note://')]
    const stream = await listenModern(url(), mine, { resourceSubscriptions: [uriOf(one)] })
    const both = await listenModern(url(), theirs, { resourceSubscriptions: [uriOf(one), uriOf(other)] })
    // Each once, however many want it.
    await expect
      .poll(async () =>
        (await social.report(server, mine)).subscribed.filter(uri => uri === one || uri === other).sort(),
      )
      .toEqual([one, other].sort())
    await call('touch', { uri: other })
    await call('touch', { uri: `${one}/part` })
    await call('touch', { uri: one })
    await expect.poll(() => said(stream, UPDATED)).toHaveLength(1)
    await expect.poll(() => said(both, UPDATED)).toHaveLength(2)
    expect(said(stream, UPDATED)[0]?.params).toEqual({ uri: uriOf(one), _meta: { [SUBSCRIPTION_ID]: 'listen' } })
    expect(said(both, UPDATED).map(({ params }) => params?.uri)).toEqual([uriOf(other), uriOf(one)])
    for (const open of [stream, both]) open.close()
  })

  test('leaves nothing behind when its client hangs up', async () => {
    const uri = fresh('note://')
    const streams = [
      await listenModern(url(), mine, { resourceSubscriptions: [uriOf(uri)] }),
      await listenModern(url(), theirs, { resourceSubscriptions: [uriOf(uri)] }),
    ]
    const isSubscribed = async () => (await social.report(server, mine)).subscribed.includes(uri)
    await expect.poll(isSubscribed).toBe(true)
    streams[0]?.close()
    // The other one still wants it.
    await call('touch', { uri })
    await expect.poll(() => said(streams[1] as Stream, UPDATED)).toHaveLength(1)
    streams[1]?.close()
    await expect.poll(isSubscribed).toBe(false)
  })

  test('goes on where none of the resources can be had', async () => {
    const wanted = { toolsListChanged: true, resourceSubscriptions: [uriOf('note://forbidden')] }
    const stream = await listenModern(url(), mine, wanted)
    await call('grow', { name: fresh('public_') })
    await expect.poll(() => methods(stream)).toContain(TOOLS)
    stream.close()
  })

  test('goes on where one of the resources cannot be had', async () => {
    const uri = fresh('note://')
    const wanted = { toolsListChanged: true, resourceSubscriptions: [uriOf('note://forbidden'), uriOf(uri)] }
    const stream = await listenModern(url(), mine, wanted)
    expect(methods(stream)).toEqual(['notifications/subscriptions/acknowledged'])
    await call('grow', { name: fresh('public_') })
    await expect.poll(() => methods(stream)).toContain(TOOLS)
    await expect
      .poll(async () => {
        await call('touch', { uri })
        return methods(stream)
      })
      .toContain(UPDATED)
    stream.close()
    await expect.poll(async () => (await social.report(server, mine)).subscribed).not.toContain(uri)
  })

  test('ends with the token', async () => {
    const uri = fresh('note://')
    // Clocks may differ by a minute: what is left of it is a few seconds.
    const short = await social.token({ agents: ['boss'], ttlSeconds: -57 })
    const stream = await listenModern(
      url(),
      short,
      { toolsListChanged: true, resourceSubscriptions: [uriOf(uri)] },
      'e',
    )
    expect(methods(stream)[0]).toBe('notifications/subscriptions/acknowledged')
    await stream.closed
    const last = stream.messages().at(-1)
    if (last?.id !== undefined) expect([last.id, subscriptionOf(last)]).toEqual(['e', 'e'])
    await expect.poll(async () => (await social.report(server, mine)).subscribed).not.toContain(uri)
  })
})

describe('what is asked for', () => {
  test('of what the small tools never announce is nothing: the stream ends', async () => {
    const stream = await listenModern(social.mcp, mine, { toolsListChanged: true, resourceSubscriptions: ['note://1'] })
    await stream.closed
    expect(stream.messages()).toMatchObject([
      { method: 'notifications/subscriptions/acknowledged', params: { notifications: {} } },
      { id: 'listen', result: { resultType: 'complete' } },
    ])
  })

  test.each([{}, { notifications: 'all' }, { notifications: { toolsListChanged: 'yes' } }])(
    'has to be said: %j is refused',
    async params => {
      const { status, answer } = await askModern(social.at('old'), mine, 'subscriptions/listen', params)
      expect([status, answer.error?.code]).toEqual([expect.toBeOneOf([200, 400]), -32602])
    },
  )

  test('needs the headers that go with it', async () => {
    const params = { notifications: { toolsListChanged: true } }
    const wrong = { headers: { 'mcp-method': 'tools/list' } }
    const { status, answer } = await askModern(social.at('old'), mine, 'subscriptions/listen', params, wrong)
    expect([status, answer.error?.code]).toEqual([400, -32020])
  })

  test('is not a method of 2025', async () => {
    const session = await beginSession(social.at('old'), mine)
    const { answer } = await session.request('subscriptions/listen', { notifications: { toolsListChanged: true } })
    expect(answer.error?.code).toBe(-32601)
    await session.end()
  })

  test('of a server that cannot be had is acknowledged, for it may come back', async () => {
    const stream = await listenModern(social.at('broken'), mine, { toolsListChanged: true })
    expect(stream.status).toBe(200)
    stream.close()
  })

  test('of a server that one may not use is refused as of one that is not there', async () => {
    const guest = await social.token({ agents: ['guest'] })
    const listen = (server: string) =>
      askModern(social.at(server), guest, 'subscriptions/listen', { notifications: { toolsListChanged: true } })
    const [denied, absent] = [await listen('new'), await listen('nowhere')]
    expect(denied.status).toBe(404)
    expect(JSON.stringify(denied).replaceAll('new', 'nowhere')).toBe(JSON.stringify(absent))
  })

  test('of more resources than there is room for is acknowledged as far as it is heard', async () => {
    const uris = Array.from({ length: 1_500 }, (_, n) => `note://many/${n}`)
    const stream = await listenModern(social.at('new'), mine, { resourceSubscriptions: uris })
    const [message] = stream.messages()
    if (message?.error) return expect(message.error.code).toBe(-32602)
    const honoured = message?.params?.notifications as { resourceSubscriptions?: string[] } | undefined
    const { resourceSubscriptions = [] } = honoured ?? {}
    expect(resourceSubscriptions).not.toEqual([])
    await expect
      .poll(async () => (await social.report('new', mine)).subscribed)
      .toEqual(expect.arrayContaining(resourceSubscriptions))
    return stream.close()
  })

  test('of a server that one may not use is not heard under direct names either', async () => {
    const guest = await social.token({ agents: ['guest'] })
    const uri = fresh('note://')
    const url = `${social.mcp}?expose=direct`
    const subscriptions = { resourceSubscriptions: [`gateway://new/${uri}`, `gateway://old/${uri}`] }
    const stream = await listenModern(url, guest, subscriptions)
    expect((await social.report('new', mine)).subscribed).not.toContain(uri)
    for (const server of ['new', 'old'])
      await askModern(social.at(server), mine, 'tools/call', { name: 'touch', arguments: { uri } })
    await expect.poll(() => said(stream, UPDATED).map(({ params }) => params?.uri)).toEqual([`gateway://old/${uri}`])
    stream.close()
  })

  test('is limited for each principal', async () => {
    const crowd = await social.token({ agents: ['boss'], sub: 'crowd' })
    const listen = () => listenModern(social.at('new'), crowd, { toolsListChanged: true })
    const streams = await Promise.all(Array.from({ length: 64 }, listen))
    const refused = await exchange(
      social.at('new'),
      modern(crowd, 'subscriptions/listen', { notifications: { toolsListChanged: true } }, { id: 'one too many' }),
    )
    expect(refused.messages()).toMatchObject([{ id: 'one too many', error: { code: -32603 } }])
    const other = await listenModern(social.at('new'), mine, { toolsListChanged: true })
    expect(methods(other)).toHaveLength(1)
    for (const stream of [other, ...streams]) stream.close()
    await expect
      .poll(async () => {
        const stream = await listenModern(social.at('new'), crowd, { toolsListChanged: true })
        stream.close()
        return stream.messages()[0]?.method
      })
      .toBe('notifications/subscriptions/acknowledged')
  })
})

describe.each(['old', 'new', 'web-old', 'web-new'] as const)('clients of 2025 at /servers/%s/mcp', server => {
  const url = () => social.at(server)

  test('are told of the tools that they see', async () => {
    const [own, other] = [await beginSession(url(), mine), await beginSession(url(), theirs)]
    const [stream, unchanged] = [await own.listen(), await other.listen()]
    for (const session of [own, other]) await session.request('tools/list')
    for (const session of [own, other]) await session.call('grow', { name: fresh('secret_') })
    await expect.poll(() => methods(stream)).toContain(TOOLS)
    for (const session of [own, other]) await session.call('notice_prompts')
    await expect.poll(() => methods(unchanged)).toContain(PROMPTS)
    expect(methods(unchanged)).not.toContain(TOOLS)
    for (const session of [own, other]) await session.end()
  })

  test('are told of the resources they subscribed to, until they no longer do', async () => {
    const session = await beginSession(url(), mine)
    const stream = await session.listen()
    const [one, other] = [fresh('note://'), fresh('note://')]
    expect((await session.request('resources/subscribe', { uri: one })).answer.result).toEqual({})
    await touched(session, one, stream)
    await session.call('touch', { uri: other })
    await session.request('resources/unsubscribe', { uri: one })
    const before = said(stream, UPDATED).length
    await session.call('touch', { uri: one })
    await session.call('notice_prompts')
    await expect.poll(() => methods(stream)).toContain(PROMPTS)
    expect(said(stream, UPDATED)).toHaveLength(before)
    expect(said(stream, UPDATED).every(({ params }) => params?.uri === one)).toBe(true)
    await session.end()
  })

  test('may say twice at once that they want a resource, and once that they do not', async () => {
    const session = await beginSession(url(), mine)
    const stream = await session.listen()
    const uri = fresh('note://')
    await Promise.all([1, 2, 3].map(() => session.request('resources/subscribe', { uri })))
    await touched(session, uri, stream)
    await session.request('resources/unsubscribe', { uri })
    const before = said(stream, UPDATED).length
    await session.call('touch', { uri })
    await session.call('notice_prompts')
    await expect.poll(() => methods(stream)).toContain(PROMPTS)
    expect(said(stream, UPDATED)).toHaveLength(before)
    await session.end()
  })

  test('hear it when a resource cannot be subscribed to', async () => {
    const session = await beginSession(url(), mine)
    const { answer } = await session.request('resources/subscribe', { uri: 'note://forbidden' })
    // The stream to a server of 2026 is opened later, and its refusal is nobody's answer.
    if (server.endsWith('old')) expect(answer.error?.code).toBe(-32602)
    expect((await session.request('resources/subscribe', { uri: 5 })).answer.error?.code).toBe(-32602)
    expect((await session.request('resources/unsubscribe', { uri: 'note://never' })).answer.result).toEqual({})
    await session.end()
  })

  test('without a session cannot subscribe', async () => {
    const session = await beginSession(url(), mine)
    const { 'mcp-session-id': _, ...headers } = session.headers()
    const body = { jsonrpc: '2.0', id: 5, method: 'resources/subscribe', params: { uri: 'note://1' } }
    const { messages } = await exchange(url(), { headers, body: JSON.stringify(body) })
    expect(messages().at(-1)).toMatchObject({ id: 5, error: { code: -32601 } })
    await session.end()
  })
})

/** A server of 2026 announces only once the stream for it is open. */
async function touched(session: Awaited<ReturnType<typeof beginSession>>, uri: string, stream: Stream): Promise<void> {
  await expect
    .poll(async () => {
      await session.call('touch', { uri })
      return said(stream, UPDATED).map(({ params }) => params?.uri)
    })
    .toContain(uri)
}
