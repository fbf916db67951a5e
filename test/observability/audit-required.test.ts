import { mkdir, rmdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { askModern } from '../fixtures/http-clients.js'

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
