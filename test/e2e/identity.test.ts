import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { type GatewayProcess, gateway, serveGateway, spawnGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'
import { ask, mcpRequest } from '../fixtures/http.js'
import { openIssuer, type TestIssuer } from '../fixtures/issuer.js'

let issuer: TestIssuer
let files: Awaited<ReturnType<typeof writeFiles>>
let env: Record<string, string | undefined>
let serving: GatewayProcess
let url: string
beforeAll(async () => {
  issuer = await openIssuer({ path: '/realms/mcp' })
  const identity = { agents: { team: { 'realm_access.roles': 'analyst' }, person: { groups: 'people' } } }
  const own = { tool: 'query', when: { sql: 'select * from ${principal.name}' } }
  const rules = {
    agents: { team: { allow: { servers: ['*'] } }, person: { allow: { servers: ['shop'], tools: { shop: [own] } } } },
    identity,
  }
  files = await writeFiles({ servers: { shop: nodeServer('shop.js') }, rules })
  env = { ...files.env, OAUTH_GATEWAY_URL: issuer.issuer }
  ;({ process: serving, url } = await serveGateway([], { cwd: files.directory, env }))
})
afterAll(async () => {
  serving.kill()
  await issuer.stop()
  await files.close()
})

const run = (...args: string[]) => gateway(args, { cwd: files.directory, env })
const query = (sql: string) => ({
  name: 'execute_tool',
  arguments: { server: 'shop', tool: 'query', args: { sql } },
})
const execute = query('select 1')
const call = (token: string, params = execute) => ask(url, mcpRequest('modern', token, 'tools/call', params))

async function callOverConnect(where: Parameters<typeof spawnGateway>[1]) {
  const connected = spawnGateway(['connect', '--agent', 'team'], where)
  const answers = createInterface({ input: connected.stdout })[Symbol.asyncIterator]()
  const ask = async (id: number, method: string, params: object) => {
    connected.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, method, params })}\n`)
    return JSON.parse((await answers.next()).value)
  }
  const clientInfo = { name: 'test', version: '1' }
  await ask(1, 'initialize', { protocolVersion: '2025-06-18', capabilities: {}, clientInfo })
  const { result } = await ask(2, 'tools/call', execute)
  connected.kill()
  return result
}

describe('a gateway with an external issuer', () => {
  test('takes its tokens, and does what the rules give to their claims', async () => {
    const analyst = await issuer.sign({ aud: url, realm_access: { roles: ['analyst'] } })
    const { status, json } = await call(analyst)
    expect([status, json().result?.isError ?? false]).toEqual([200, false])
    expect((await run('token', 'inspect', analyst)).status).toBe(0)

    const nobody = await call(await issuer.sign({ aud: url }))
    expect(nobody.json().result?.structuredContent).toMatchObject({ error: { code: 'INVALID_AGENT_ID' } })
    const lines = await files.auditLines()
    expect(lines.map(({ principal, agent }) => [principal, agent])).toContainEqual(['user-1', 'team'])
  })

  test('conditions see what its tokens say about the caller', async () => {
    const ann = await issuer.sign({ aud: url, groups: ['people'], preferred_username: 'ann' })
    const outcome = async (sql: string) => {
      const { result } = (await call(ann, query(sql))).json()
      return result?.isError ? result.structuredContent : 'OK'
    }
    expect(await outcome('select * from ann')).toBe('OK')
    expect(await outcome('select * from bob')).toMatchObject({
      error: { code: 'DENIED_BY_POLICY', arguments: ['sql'] },
    })
  })

  test('takes API keys of another process until they are revoked', async () => {
    const key = (await run('key', 'create', '--agent', 'team')).stdout.trim()
    expect((await call(key)).status).toBe(200)
    expect((await run('key', 'revoke', key.split('_')[1] ?? '')).status).toBe(0)
    expect((await call(key)).status).toBe(401)
  })

  test('refuses tokens of its own, but for `gateway status` and `gateway connect`', async () => {
    const issued = await run('token', 'issue', '--agent', 'team')
    expect(issued.stderr).toContain(issuer.issuer)
    const refused = await call(issued.stdout.trim())
    expect([refused.status, refused.json().error_description]).toEqual([401, expect.stringMatching(/^issuer mismatch/)])

    expect(JSON.parse((await run('status', '--json')).stdout).servers).toMatchObject([{ name: 'shop', state: 'ready' }])

    expect((await callOverConnect({ cwd: files.directory, env })).isError ?? false).toBe(false)
  })

  test('beyond this machine is one for its commands all the same', async () => {
    const rules = { agents: { team: { allow: { servers: ['*'] } } } }
    const others = await writeFiles({ servers: { shop: nodeServer('shop.js') }, rules })
    onTestFinished(() => others.close())
    const own = { MCP_RESOURCE_URI: 'https://gateway.example.com/mcp', OAUTH_GATEWAY_URL: issuer.issuer }
    const where = { cwd: others.directory, env: { ...others.env, ...own } }
    const { process: other } = await serveGateway(['--host', '0.0.0.0'], where)
    onTestFinished(() => void other.kill())
    expect((await callOverConnect(where)).isError ?? false).toBe(false)
    const shop = async () => JSON.parse((await gateway(['status', '--json'], where)).stdout).servers[0]
    const { state, pid } = await shop()
    expect([state, (await shop()).pid]).toEqual(['ready', pid]) // that of the running one
  })

  test('says nowhere what a token is', async () => {
    const token = await issuer.sign({ aud: 'x', realm_access: { roles: ['analyst'] } })
    await call(token)
    expect(serving.output.stderr).not.toContain(token)
    expect(JSON.stringify(await files.auditLines())).not.toContain(token)
  })
})
