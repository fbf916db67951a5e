import { describe, expect, test } from 'vitest'
import { NEIGHBOUR, PUBLIC, useIsland } from './island.js'

const CANARY = 4443

const HOSTILE: readonly string[] = [
  `https://10.1.2.3:${CANARY}`,
  `https://172.16.9.9:${CANARY}`,
  `https://192.168.7.7:${CANARY}`,
  `https://100.64.0.1:${CANARY}`,
  // Link-local: the metadata service of clouds.
  `https://169.254.169.254:${CANARY}`,
  `http://169.254.169.254:${CANARY}`,
  `https://metadata.example:${CANARY}`,
  // Loopback, from a backend that is not there.
  `https://127.0.0.1:${CANARY}`,
  `http://127.0.0.1:${CANARY}`,
  `http://127.9.9.9:${CANARY}`,
  `http://localhost:${CANARY}`,
  `https://localhost.:${CANARY}`,
  `https://sub.localhost:${CANARY}`,
  `https://[::1]:${CANARY}`,
  `https://0.0.0.0:${CANARY}`,
  `https://[::]:${CANARY}`,
  `https://0:${CANARY}`,
  // Other ways to write 10.1.2.3.
  `https://167838211:${CANARY}`,
  `https://0x0a010203:${CANARY}`,
  `https://012.1.2.3:${CANARY}`,
  `https://10.66051:${CANARY}`,
  `https://10.1.2.3.:${CANARY}`,
  `https://[::ffff:10.1.2.3]:${CANARY}`,
  `https://[::ffff:a01:203]:${CANARY}`,
  `https://[64:ff9b::a01:203]:${CANARY}`,
  `https://%31%30.1.2.3:${CANARY}`,
  `https://１０.1.2.3:${CANARY}`,
  `https://[fd00::1]:${CANARY}`,
  // Names.
  `https://private.example:${CANARY}`,
  `https://private.example.:${CANARY}`,
  `https://loop.example:${CANARY}`,
  `https://six.example:${CANARY}`,
  `https://mixed.example:${CANARY}`,
  // Public, but not so.
  `http://${NEIGHBOUR}:${CANARY}`,
  `https://user:password@${NEIGHBOUR}:${CANARY}`,
  `https://user@private.example:${CANARY}`,
  'file:///etc/passwd',
  `ftp://${NEIGHBOUR}:${CANARY}`,
]

const PLACES = [
  'resource_metadata',
  'authorization_servers',
  'token_endpoint',
  'registration_endpoint',
  'redirect',
] as const

interface Outcome {
  readonly names: Readonly<Record<string, unknown>>
  readonly code: string
  readonly message: string
  readonly packets: readonly string[]
}

/** On the island: a backend whose metadata can be set, a canary behind every address, and a login that finishes by itself. */
const STAGE = `
  import { createServer } from 'node:http'
  import { connect, createServer as createTcpServer } from 'node:net'
  import { mkdtemp } from 'node:fs/promises'
  const { login } = await import(modules + 'oauth/login.js')
  const { parseServersFile } = await import(modules + 'config/servers-file.js')
  const { openCredentialStore } = await import(modules + 'credentials/store.js')
  const packets = []
  const canary = createTcpServer(socket => {
    packets.push(socket.localAddress)
    socket.on('error', () => {})
    socket.destroy()
  })
  await new Promise(resolve => canary.listen(${CANARY}, '::', resolve))
  let stage = {}
  const backend = createServer((request, response) => {
    const own = 'http://' + request.headers.host
    const { pathname } = new URL(request.url, own)
    const json = (status, value) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    if (pathname === '/mcp') {
      const challenge = 'Bearer resource_metadata="' + (stage.resource_metadata ?? own + '/prm') + '"'
      return response.writeHead(401, { 'www-authenticate': challenge }).end()
    }
    if (stage.redirect) return response.writeHead(302, { location: stage.redirect }).end()
    if (pathname === '/prm')
      return json(200, { resource: own + '/mcp', authorization_servers: stage.authorization_servers ?? [own] })
    if (pathname === '/.well-known/oauth-authorization-server')
      return json(200, {
        issuer: own,
        authorization_endpoint: 'https://login.example/authorize',
        token_endpoint: stage.token_endpoint ?? own + '/token',
        registration_endpoint: stage.registration_endpoint ?? own + '/register',
        code_challenge_methods_supported: ['S256'],
      })
    if (pathname === '/register') return json(201, { client_id: 'client' })
    if (pathname === '/token') return json(200, { access_token: 'token', token_type: 'bearer' })
    return json(404, {})
  })
  await new Promise(resolve => backend.listen(8080, '::', resolve))
  const userAgent = {
    show() {},
    refused() {},
    async open(url) {
      const { searchParams } = new URL(url)
      const back = searchParams.get('redirect_uri') + '?code=c&state=' + searchParams.get('state')
      void fetch(back).then(response => response.text())
      return true
    },
  }
  const env = { GATEWAY_CREDENTIALS_KEY: Buffer.alloc(32, 7).toString('base64') }
  async function attempt(host, change, oauth = {}) {
    stage = change
    packets.length = 0
    const value = { mcpServers: { shop: { url: 'http://' + host + ':8080/mcp', oauth } } }
    const { servers: [config] } = parseServersFile({ file: 'f', value, problems: [] }, {})
    const store = openCredentialStore({ directory: await mkdtemp(directory + '/state-'), env, warn() {} })
    const { code, message } = await login(config, { store, userAgent, timeLimitMs: 5000 }).then(
      record => ({ code: 'logged in', message: String(record?.tokens?.accessToken) }),
      error => ({ code: error.code ?? error.name, message: error.message }),
    )
    return { code, message, packets: [...packets] }
  }
  const END = () => { backend.closeAllConnections(); backend.close(); canary.close() }
`

const island = useIsland()

test('the canary sees a packet to every address there is', async () => {
  const targets = ['10.1.2.3', '172.16.9.9', '192.168.7.7', '100.64.0.1', '169.254.169.254', '127.0.0.1', '127.9.9.9']
  const others = [
    '::1',
    '0.0.0.0',
    '::',
    'fd00::1',
    '64:ff9b::a01:203',
    '::ffff:10.1.2.3',
    'private.example',
    'six.example',
  ]
  const all = [...targets, ...others, NEIGHBOUR]
  const seen = await island.run<boolean[]>(`${STAGE}
    const seen = []
    for (const host of ${JSON.stringify(all)}) {
      packets.length = 0
      await new Promise(resolve => connect(${CANARY}, host).on('error', () => {}).on('close', resolve))
      seen.push(packets.length > 0)
    }
    print(seen)
    END()`)
  expect(seen).toEqual(all.map(() => true))
})

interface Attempt {
  /** Where the backend is; its port is 8080. */
  readonly host: string
  /** What it names otherwise than it should. */
  readonly names?: Readonly<Record<string, unknown>>
  readonly oauth?: Readonly<Record<string, unknown>>
}

const attemptAll = (attempts: readonly Attempt[]): Promise<Outcome[]> =>
  island.run(`${STAGE}
    const outcomes = []
    for (const { host, names = {}, oauth } of ${JSON.stringify(attempts)})
      outcomes.push({ names, ...(await attempt(host, names, oauth)) })
    print(outcomes)
    END()`)

const refusedUnseen = (outcomes: readonly Outcome[]) =>
  expect(outcomes.filter(({ code, packets }) => code !== 'LOGIN_FAILED' || packets.length > 0)).toEqual([])

test('no packet reaches what a public backend names, wherever it names it', async () => {
  const attempts = PLACES.flatMap(place => {
    const isHeader = ['resource_metadata', 'redirect'].includes(place)
    const urls = HOSTILE.filter(url => !isHeader || !url.includes('１'))
    return urls.map(url => ({
      host: PUBLIC,
      names: { [place]: place === 'authorization_servers' ? [url] : `${url}/x` },
    }))
  })
  const outcomes = await attemptAll(attempts)
  refusedUnseen(outcomes)
  expect(outcomes).toHaveLength(attempts.length)
})

describe('the allowance', () => {
  test('what is configured is reached where it is: the backend, and the issuer', async () => {
    const outcomes = await attemptAll([
      { host: '10.1.2.3' },
      { host: 'private.example' },
      { host: PUBLIC, oauth: { issuer: 'http://192.168.7.7:8080' } },
      { host: '127.0.0.1', names: { authorization_servers: ['http://localhost:8080'] } },
    ])
    expect(outcomes).toMatchObject(outcomes.map(() => ({ code: 'logged in' })))
  })

  test('nothing else is, not even on the same machine', async () => {
    const privately = { host: '10.1.2.3' }
    const locally = { host: '127.0.0.1' }
    const outcomes = await attemptAll([
      { ...privately, names: { authorization_servers: [`http://192.168.7.7:${CANARY}`] } },
      { ...privately, names: { authorization_servers: [`https://192.168.7.7:${CANARY}`] } },
      { ...privately, names: { authorization_servers: [`https://10.1.2.3:${CANARY}`] } },
      { ...privately, names: { token_endpoint: `https://private.example:${CANARY}/token` } },
      { ...privately, names: { token_endpoint: `http://127.0.0.1:${CANARY}/token` } },
      {
        host: PUBLIC,
        names: { token_endpoint: `https://10.1.2.3:${CANARY}` },
        oauth: { issuer: 'http://192.168.7.7:8080' },
      },
      { ...locally, names: { authorization_servers: [`https://10.1.2.3:${CANARY}`] } },
      { ...locally, names: { authorization_servers: [`https://169.254.169.254:${CANARY}`] } },
      // On loopback other ports are allowed, by the names that everybody uses.
      { ...locally, names: { authorization_servers: [`https://loop.example:${CANARY}`] } },
      { ...locally, names: { authorization_servers: [`http://2130706433:${CANARY}`] } },
    ])
    refusedUnseen(outcomes)
    expect(outcomes).toHaveLength(10)
  })

  test('the refusal says what to set', async () => {
    const [outcome] = await attemptAll([
      { host: PUBLIC, names: { authorization_servers: [`https://private.example:${CANARY}`] } },
    ])
    expect(outcome?.message).toContain('10.1.2.3 is not a public address')
    expect(outcome?.message).toContain('"issuer"')
  })
})

test('redirectUri on localhost where there is no IPv6, as in most containers', async () => {
  const names = { token_endpoint: `http://${PUBLIC}:8080/token` }
  const outcome = await island.run<Outcome>(`
    const { execFileSync } = await import('node:child_process')
    execFileSync('ip', ['addr', 'del', '::1/128', 'dev', 'lo'])
    ${STAGE}
    print(await attempt('${PUBLIC}', ${JSON.stringify(names)}, { redirectUri: 'http://localhost:8977/callback' }))
    END()`)
  expect(outcome).toMatchObject({ code: 'logged in' })
})
