import { readdir, readFile, stat } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openAuthorizationServer } from '../fixtures/authorization-server.js'
import { openProtectedServer } from '../fixtures/protected-server.js'
import { executing, openWorld } from './login-world.js'

const CLIENT_SECRET = 'canary-client-secret-4f1b'
const SECRET_PARAMETERS = ['code', 'code_verifier', 'refresh_token', 'client_secret', 'token']

test.concurrent('no token, code, verifier or secret is anywhere but where it belongs', async () => {
  const registration = { token_endpoint_auth_method: 'client_secret_post', client_secret: CLIENT_SECRET } as const
  await using authorizationServer = await openAuthorizationServer({ registration })
  await using server = await openProtectedServer({ authorizationServer })
  await using world = await openWorld({ notes: { url: server.url } }, { LOG_LEVEL: 'trace', SERVE_LOG_LEVEL: 'trace' })
  const seen: string[] = []
  const hear = ({ stdout, stderr }: { stdout: string; stderr: string }) => seen.push(stdout, stderr)
  const front = await world.serve()
  const call = async (tool = 'echo') => seen.push(JSON.stringify(await front.call(...executing('notes', tool))))

  await call()
  const login = await world.startLogin('notes', ['--no-browser'])
  const redirect = (await fetch(login.url, { redirect: 'manual' })).headers.get('location')
  login.process.stdin.write(`${redirect}\n`)
  const loggedIn = await login.ended
  expect(loggedIn.status).toBe(0)
  hear(loggedIn)
  await call()
  await call('admin') // too little scope
  authorizationServer.set({ tokenFailure: { how: 'html 403', times: 1 } })
  authorizationServer.expireAccessTokens()
  await call()
  await call()
  authorizationServer.revokeEverything()
  await call()
  hear(await world.logIn('notes'))
  await call()
  for (const args of [['status'], ['credentials', 'list', '--json'], ['logout', 'notes']]) hear(await world.run(args))
  hear(front.process.output)

  const state = join(world.directory, 'state')
  const entries = await readdir(state, { recursive: true, withFileTypes: true })
  expect(entries.map(({ name }) => name)).toEqual(expect.arrayContaining(['audit.jsonl', 'credentials.json']))
  for (const entry of entries) {
    const path = join(entry.parentPath, entry.name)
    expect([path, (await stat(path)).mode & 0o777]).toEqual([path, entry.isDirectory() ? 0o700 : 0o600])
    if (entry.isFile()) seen.push(await readFile(path, 'utf8'))
  }
  expect((await stat(state)).mode & 0o777).toBe(0o700)

  const sent = authorizationServer.requests.flatMap(({ params }) =>
    SECRET_PARAMETERS.flatMap(name => (typeof params[name] === 'string' ? [params[name]] : [])),
  )
  const bearers = server.authorizations().map(header => header.slice('Bearer '.length))
  const secrets = new Set([...sent, ...bearers, CLIENT_SECRET])
  for (const kind of [/^at-/, /^rt-/, /^canary/]) expect([...secrets]).toContainEqual(expect.stringMatching(kind))
  expect(secrets.size).toBeGreaterThan(8)
  const everything = seen.join('\n')
  expect(everything).toContain('AUTH_REQUIRED')
  expect(everything).toContain('HTTP 403')
  expect(everything).toContain('hello')
  for (const secret of secrets) expect(everything).not.toContain(secret)

  const audit = await world.auditLines()
  expect(audit.length).toBeGreaterThanOrEqual(7)
  expect(new Set(audit.map(({ server: name }) => name))).toEqual(new Set(['notes']))
})

test.concurrent('a server that repeats the token in its errors does not show it to the agent', async () => {
  await using authorizationServer = await openAuthorizationServer()
  const echoing = createServer((request, response) => void answer(request, response))
  await new Promise<void>(resolve => echoing.listen(0, '127.0.0.1', resolve))
  const origin = `http://127.0.0.1:${(echoing.address() as AddressInfo).port}`
  const heard = new Set<string>()

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const json = (status: number, body: unknown, headers = {}) =>
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
    const metadata = `${origin}/.well-known/oauth-protected-resource/mcp`
    if (request.url?.startsWith('/.well-known/'))
      return void json(200, { resource: `${origin}/mcp`, authorization_servers: [authorizationServer.issuer] })
    const { authorization } = request.headers
    if (authorization === undefined)
      return void json(401, {}, { 'www-authenticate': `Bearer resource_metadata="${metadata}"` })
    const token = authorization.slice('Bearer '.length)
    heard.add(token)
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const { id, method, params } = JSON.parse(Buffer.concat(chunks).toString('utf8') || '{}')
    const serverInfo = { name: 'echoing', version: '1' }
    const tools = ['rpc', 'http', 'once', 'html'].map(name => ({ name, inputSchema: { type: 'object' } }))
    const reply = (body: object, status = 200) => void json(status, { jsonrpc: '2.0', id, ...body })
    if (request.method !== 'POST') return void json(405, {})
    if (method === 'initialize')
      return reply({ result: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo } })
    if (method === 'tools/list') return reply({ result: { tools } })
    if (id === undefined) return void response.writeHead(202).end()
    if (method !== 'tools/call') return reply({ error: { code: -32601, message: 'unknown' } })
    const message = `HEARD: Authorization: Bearer ${token} is not liked (${encodeURIComponent(token)})`
    if (params.name === 'rpc') return reply({ error: { code: -32000, message, data: { token } } })
    if (params.name === 'http') return reply({ error: { code: -32000, message } }, 400)
    if (params.name === 'once') return void json(401, {}, { 'www-authenticate': `Bearer error="${token}"` })
    response.writeHead(500, { 'content-type': 'text/html', 'x-token': token }).end(`<p>${message}</p>`)
  }

  try {
    await using world = await openWorld({ echo: { url: `${origin}/mcp` } })
    expect(await world.logIn('echo')).toMatchObject({ status: 0 })
    const front = world.stdio({ LOG_LEVEL: 'trace' })
    const answers: string[] = []
    for (const tool of ['rpc', 'http', 'html', 'once'])
      answers.push(JSON.stringify(await front.call(...executing('echo', tool, {}))))
    expect(answers[0]).toContain('HEARD')
    expect(answers[1]).toContain('HEARD')
    expect(heard.size).toBeGreaterThan(0)
    for (const token of heard) expect(answers.join('\n') + front.process.output.stderr).not.toContain(token)
  } finally {
    echoing.closeAllConnections()
    echoing.close()
  }
})
