import { execFileSync } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { mkdir, readFile, rm, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { askModern, beginSession } from '../fixtures/http-clients.js'

let place: string
let gateway: TestGateway
beforeEach(async () => {
  place = join(tmpdir(), `gateway-unwritable-${process.pid}-${Date.now()}`)
  await mkdir(place)
})
afterEach(() => gateway.close())

const ALL = { allow: { servers: ['*'] } }
async function start(rules: Record<string, unknown>, env: Record<string, string> = {}) {
  const files = { servers: { shop: nodeServer('shop.js') }, rules: { agents: { reader: ALL }, ...rules } }
  gateway = await openTestGateway(files, { GATEWAY_AUDIT_LOG: place, ...env }) // a directory cannot be appended to
  await new Promise(resolve => setTimeout(resolve, 100))
}
const call = () => gateway.call('execute_tool', { server: 'shop', tool: 'list_tables' }, 'reader')

test('calls go on without a log, unless the configuration says otherwise', async () => {
  await start({})
  expect((await call()).isError).toBeUndefined()
  await rmdir(place)
})

test.each<[where: string, rules: Record<string, unknown>, env: Record<string, string>]>([
  ['the rules file', { auditRequired: true }, {}],
  ['the environment', {}, { GATEWAY_AUDIT_REQUIRED: 'true' }],
])(
  'with auditRequired in %s, nothing is done that would leave no line; and again when there is a log',
  async (_, rules, env) => {
    await start(rules, env)
    const { isError, structuredContent } = await call()
    expect(isError).toBe(true)
    expect(structuredContent.error).toEqual({ code: 'INTERNAL', message: expect.stringContaining('auditRequired') })
    expect(gateway.gateway.runtime.current.backends.get('shop')?.status().state).toBe('idle')

    const front = await gateway.gateway.serveHttp({ port: 0 })
    const token = await front.issueToken('reader', 60)
    const read = () =>
      askModern(front.url.replace('/mcp', '/mcp?expose=direct'), token, 'resources/read', { uri: 'gateway://shop/a' })
    expect((await read()).answer.error).toMatchObject({
      code: -32603,
      message: expect.stringContaining('auditRequired'),
    })

    await rmdir(place)
    await expect.poll(async () => (await call()).isError).toBeUndefined()
    expect((await read()).answer.error?.message).not.toContain('auditRequired')
  },
)

test('with auditRequired no call runs without a line while a flood fills the queue, and the end of it is noticed', async () => {
  // Nobody reads from it: it takes no line, and does not fail either.
  const pipe = `${place}/pipe`
  execFileSync('mkfifo', [pipe])
  await start({ auditRequired: true }, { GATEWAY_AUDIT_LOG: pipe })
  const isOwn = () => call().then(({ isError }) => !isError)
  const nowhere = { server: 's'.repeat(256), tool: 't'.repeat(512) }
  let executed = 0
  for (let round = 0; round < 100; round++) {
    const flood = Array.from({ length: 90 }, () => gateway.call('execute_tool', nowhere, 'reader'))
    const own = await Promise.all(Array.from({ length: 3 }, isOwn))
    executed += own.filter(Boolean).length
    await Promise.all(flood)
  }
  expect(await call()).toMatchObject({ isError: true, structuredContent: { error: { code: 'INTERNAL' } } })
  const read = text(createReadStream(pipe))
  await expect.poll(isOwn).toBe(true)
  await gateway.gateway.close()
  const written = (await read).trimEnd().split('\n')
  const lines = written.map(line => JSON.parse(line)).filter(({ tool }) => tool === 'list_tables')
  expect(lines.filter(({ code }) => code === 'OK')).toHaveLength(executed + 1)
  await rm(place, { recursive: true })
})

test('a name that a caller has made up does not fill the log', async () => {
  const file = `${place}/audit.jsonl`
  await start({}, { GATEWAY_AUDIT_LOG: file })
  const front = await gateway.gateway.serveHttp({ port: 0 })
  const token = await front.issueToken('reader', 60)
  const session = await beginSession(front.url.replace('/mcp', '/servers/shop/mcp'), token)
  await session.call('x'.repeat(1_000_000))
  await gateway.gateway.close()
  const [line = ''] = (await readFile(file, 'utf8')).split('\n')
  expect(line.length).toBeLessThan(2_000)
  expect(JSON.parse(line).tool).toBe(`${'x'.repeat(512)}…`)
  await rm(place, { recursive: true })
})
