import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type GatewayProcess, spawnGateway } from '../fixtures/cli.js'
import { nodeServer, writeFiles } from '../fixtures/gateway.js'
import { ask } from '../fixtures/http.js'
import { openTokens } from '../fixtures/http-clients.js'
import { stdioServer } from '../fixtures/servers.js'
import { worker } from '../fixtures/worker.js'
import { Attack } from './fuzz-attack.js'
import { openVictim, type Victim } from './fuzz-victim.js'

// The same requests every time, so that what fails once fails again; FUZZ_SEED makes others, FUZZ_REQUESTS fewer or more of them.
const SEED = Number(process.env.FUZZ_SEED ?? 20_260_728)
const FULL = 100_000
const REQUESTS = Number(process.env.FUZZ_REQUESTS ?? FULL)
const WARM_UP = REQUESTS / 10
/** The victim makes a call when so many more requests of the attacker are out. */
const REQUESTS_PER_CALL = 50
const MINUTE_MS = 60_000
const SOON = { timeout: 30_000 }

// The process says what it holds when it is asked to, and collects its garbage before.
const MEASURING = `data:text/javascript,${encodeURIComponent(`
  import { writeSync } from 'node:fs'
  import { setFlagsFromString } from 'node:v8'
  import { runInNewContext } from 'node:vm'
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc')
  process.on('SIGUSR2', () => {
    collect()
    writeSync(2, JSON.stringify({ held: process.memoryUsage() }) + '\\n')
  })
`)}`

const vault = `vault${randomBytes(8).toString('hex')}`
const label = `label${randomBytes(12).toString('hex')}`
const servers = {
  shop: nodeServer('shop.js', { timeoutMs: 10_000 }),
  new: stdioServer('social-stdio', { env: { ERA: 'modern' }, timeoutMs: 10_000 }),
  [vault]: worker({ label }),
}
const shop = ['free', 'wrapped', 'list_*', 'drop_table', 'failing', 'refusing', 'documented']
const conditions = [
  { tool: 'query', when: { sql: 'select*' } },
  { tool: 'note', when: { text: '*' }, effect: 'ask' },
]
const rules = {
  agents: {
    attacker: {
      max_result_tokens: 400,
      allow: { servers: ['shop', 'new'], tools: { shop: [...shop, ...conditions] } },
      deny: { tools: { new: ['silent', 'report', 'grow'] } },
    },
    victim: { max_result_tokens: 400, allow: { servers: ['*'] } },
  },
  scopes: { 'shop/drop_*': ['shop:admin'] },
  limits: { tools: { 'shop/list_views': { requestsPerMinute: 100 } } },
}

let files: Awaited<ReturnType<typeof writeFiles>>
let gateway: GatewayProcess
let url: string
let metricsUrl: string
let victim: Victim
let attack: Attack
beforeAll(async () => {
  files = await writeFiles({ servers, rules })
  const env = { ...files.env, LOG_LEVEL: 'info', GATEWAY_METRICS_PORT: '0', NODE_OPTIONS: `--import=${MEASURING}` }
  gateway = spawnGateway(['serve', '--port', '0', '--config', files.config, '--rules', files.rules], { env })
  const logged = (pattern: RegExp) => {
    const found = pattern.exec(gateway.output.stderr)?.[1]
    if (found === undefined) throw new Error(`the gateway does not listen yet: ${gateway.output.stderr}`)
    return found
  }
  url = await vi.waitFor(() => logged(/"url":"([^"]+\/mcp)"/), SOON)
  metricsUrl = logged(/"url":"([^"]+\/metrics)"/)
}, MINUTE_MS)
afterAll(async () => {
  await victim?.close()
  gateway?.kill()
  await files?.close()
})

/** Both sides, with all they need. */
async function openParties(): Promise<void> {
  const sign = await openTokens(files, url)
  const { origin, port } = new URL(url)
  const token = (agent: string, more = {}) => sign({ agents: [agent], ttlSeconds: 3_600, ...more })
  const tokens = {
    attacker: await token('attacker'),
    victim: await token('victim'),
    useless: [
      await token('attacker', { ttlSeconds: -600 }),
      await token('attacker', { audience: 'https://elsewhere.example/mcp' }),
      await token('attacker', { audience: `${origin}/servers/shop/mcp` }),
      await token('nobody'),
      await token('attacker', { agents: [] }),
    ],
    publicKey: JSON.stringify((await ask(`${origin}/.well-known/jwks.json`)).json()),
    issuer: String((await ask(`${origin}/.well-known/oauth-authorization-server`)).json().issuer),
    audience: url,
  }
  victim = await openVictim({ url, token: tokens.victim, vault, label })
  const { secrets, session, handle } = victim
  const foreign = { foreignSession: session.id, foreignHandle: handle }
  const names = [vault, session.id, handle]
  attack = new Attack({ seed: SEED, port: Number(port), tokens, foreign, secrets, names })
}

interface Held {
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
}

const MEGABYTE = 2 ** 20
let measurements = 0

/** What the gateway holds once nothing is under way. */
async function measure() {
  const { pid = 0 } = gateway
  const metric = async (name: string) => {
    const { text } = await ask(metricsUrl)
    return Number(new RegExp(`^mcp_gateway_${name} (\\S+)$`, 'm').exec(text)?.[1])
  }
  await expect.poll(() => metric('calls_in_flight'), SOON).toBe(0)
  process.kill(pid, 'SIGUSR2')
  const said = () =>
    [...gateway.output.stderr.matchAll(/^\{"held":(.+)\}$/gm)].map(([, json = '']) => JSON.parse(json) as Held)
  await expect.poll(() => said().length, SOON).toBe(++measurements)
  const { rss, heapUsed, external } = said().at(-1) as Held
  return {
    rssMb: rss / MEGABYTE,
    heapMb: (heapUsed + external) / MEGABYTE,
    files: readdirSync(`/proc/${pid}/fd`).length,
    sessions: await metric('sessions'),
  }
}

/** Both at once, until the attacker has sent so many requests. */
async function sendUntil(end: number): Promise<void> {
  await Promise.all([attack.sendUntil(end), victim.work(() => attack.advance(REQUESTS_PER_CALL))])
}

/** Shares of all answers that show that the requests got everywhere. */
const SHARES: readonly (readonly [status: number, atLeast: number])[] = [
  [200, 0.15],
  [202, 0.005],
  [204, 0.003],
  [400, 0.1],
  [401, 0.1],
  [403, 0.003],
  [404, 0.03],
  [405, 0.01],
  [409, 0.0001],
  [413, 0.0005],
  [415, 0.001],
  [429, 0.001],
  [431, 0.001],
]
// Sessions of each of the three principals whose tokens the attacker has, and the victim's.
const MOST_SESSIONS = 3 * 100 + 1
// Processes that sessions have for themselves, with their pipes.
const MOST_MORE_FILES = 16 * 6

test(`${REQUESTS} mutated requests (FUZZ_SEED=${SEED})`, { timeout: 10 * MINUTE_MS }, async ({ annotate }) => {
  await openParties()
  const started = performance.now()
  const start = await measure()
  await sendUntil(WARM_UP)
  const warm = await measure()
  await sendUntil(REQUESTS)
  const end = await measure()
  const seconds = (performance.now() - started) / 1_000
  const [statuses, kinds] = [attack.statuses, attack.kinds].map(counts => Object.fromEntries<number>(counts))
  const { left } = attack
  await annotate(JSON.stringify({ seconds, start, warm, end, statuses, kinds, left, calls: victim.answered }))

  expect(attack.problems.join('\n')).toBe('')
  expect([attack.sent, gateway.exitCode, gateway.signalCode]).toEqual([REQUESTS, null, null])
  const said = gateway.output.stderr.split('\n').filter(line => line !== '')
  expect(said.filter(line => !/^\{"(level":"(info|warn)"|held":)/.test(line))).toEqual([])
  expect((await ask(metricsUrl)).text).not.toContain('code="INTERNAL"')

  expect(end.heapMb).toBeLessThan(warm.heapMb + 20)
  expect(end.rssMb).toBeLessThan(warm.rssMb * 1.6)
  expect(end.files).toBeLessThan(start.files + MOST_MORE_FILES)
  expect(end.sessions).toBeLessThanOrEqual(MOST_SESSIONS)
  const asked = performance.now()
  expect((await ask(new URL('/health', url).href)).text).toBe('OK')
  expect(performance.now() - asked).toBeLessThan(1_000)
  victim.expectUndisturbed()

  if (REQUESTS < FULL) return // a short run does not get everywhere
  const share = (status: number) => (attack.statuses.get(status) ?? 0) / REQUESTS
  expect(SHARES.filter(([status, atLeast]) => share(status) < atLeast)).toEqual([])
  expect(victim.answered).toBeGreaterThan(REQUESTS / 1_000)
  expect(left).toBeGreaterThan(REQUESTS / 1_000)
})
