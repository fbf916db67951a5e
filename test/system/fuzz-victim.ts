import { randomBytes } from 'node:crypto'
import { expect } from 'vitest'
import { ask } from '../fixtures/http.js'
import {
  askModern,
  beginSession,
  type ClientSession,
  listenModern,
  type Message,
  type Stream,
} from '../fixtures/http-clients.js'

/** Somebody who goes on working while the gateway is under attack. */
export interface Victim {
  /** What nobody else may ever be answered with. */
  readonly secrets: readonly string[]
  readonly session: ClientSession
  /** Of a result that is kept for it. */
  readonly handle: string
  /** Makes a call each time it is its turn; rejects as soon as an answer is not exactly its own. */
  work(turn: () => Promise<boolean>): Promise<void>
  /** Calls that were answered as they should be. */
  readonly answered: number
  /** Its streams are as open as they were, and nothing has come on them that is not for it. */
  expectUndisturbed(): void
  close(): Promise<void>
}

export interface VictimOptions {
  /** The gateway's URL. */
  readonly url: string
  readonly token: string
  /** A server that only the victim may use, and what that says about itself. */
  readonly vault: string
  readonly label: string
}

const LONG = 6_000

type Structured = Readonly<Record<string, unknown>>

export async function openVictim({ url, token, vault, label }: VictimOptions): Promise<Victim> {
  const canary = `canary${randomBytes(12).toString('hex')}`
  const execute = (server: string, tool: string, args: object = {}) => ({
    name: 'execute_tool',
    arguments: { server, tool, args },
  })
  const call = async (params: Structured): Promise<Structured> => {
    const { status, answer } = await askModern(url, token, 'tools/call', params)
    const { isError = false, structuredContent } = answer.result ?? {}
    expect([status, answer.error, isError && structuredContent]).toEqual([200, undefined, false])
    return answer.result ?? {}
  }
  const structured = async (params: Structured) => (await call(params)).structuredContent

  const session = await beginSession(url, token)
  const streams: Stream[] = [
    await session.listen(),
    await listenModern(`${new URL(url).origin}/servers/new/mcp`, token, {
      resourceSubscriptions: [`note://${canary}`],
    }),
  ]
  const spoken = streams.map(stream => stream.messages().length)
  const keepLong = async (text: string): Promise<string> => {
    const result = await call(execute('shop', 'free', { text }))
    const cut = (result._meta as Structured)['agent-mcp-gateway/truncated'] as { readonly handle: string }
    expect(cut.handle).toMatch(/^[\w-]{24}$/)
    return cut.handle
  }

  const ways: readonly ((id: string) => Promise<void>)[] = [
    async id => {
      const answer = await structured(execute('shop', 'free', { id }))
      expect(answer).toEqual({ name: 'free', arguments: { id }, meta: {} })
    },
    async id => {
      const { answer, before } = await session.call('execute_tool', execute('shop', 'free', { id }).arguments, {
        progressToken: id,
      })
      expect(answer.result?.structuredContent).toEqual({ name: 'free', arguments: { id }, meta: {} })
      expect(before.map(({ params }: Message) => params?.progressToken)).toEqual([id])
    },
    async () => expect(await structured(execute(vault, 'who'))).toEqual({ pid: expect.any(Number), label }),
    async id => {
      const talk = execute('new', 'talk', { label: id })
      const { answer, before } = await askModern(url, token, 'tools/call', talk, { logLevel: 'debug' })
      expect(answer.result?.structuredContent).toMatchObject({ label: id })
      expect(before.filter(({ params }) => params?.data !== id)).toEqual([])
    },
    async () => {
      const { servers } = (await structured({ name: 'list_servers', arguments: {} })) as { servers: { name: string }[] }
      expect(servers.map(({ name }) => name).sort()).toEqual(['new', 'shop', vault].sort())
    },
    async id => {
      const text = `${id}-`.repeat(LONG / id.length)
      const handle = await keepLong(text)
      let [read, offset] = ['', 0 as number | null]
      while (offset !== null) {
        const page = (await structured({ name: 'read_result', arguments: { handle, offset } })) as {
          text: string
          next_offset: number | null
        }
        read += page.text
        offset = page.next_offset
      }
      expect(read).toContain(JSON.stringify({ text }))
    },
    async () => {
      const { status, text } = await ask(`${new URL(url).origin}/health`)
      expect([status, text]).toEqual([200, 'OK'])
    },
  ]

  const handle = await keepLong(canary.repeat(LONG / canary.length))
  let answered = 0
  return {
    secrets: [token, token.split('.')[2] ?? token, canary, label],
    session,
    handle,
    async work(turn) {
      while (await turn()) {
        await ways[answered % ways.length]?.(`${canary}-${answered}`)
        answered++
      }
    },
    get answered() {
      return answered
    },
    expectUndisturbed() {
      expect(streams.map(({ isClosed }) => isClosed)).toEqual([false, false])
      expect(streams.map(stream => stream.messages().length)).toEqual(spoken)
    },
    async close() {
      for (const stream of streams) stream.close()
      await session.end()
    },
  }
}
