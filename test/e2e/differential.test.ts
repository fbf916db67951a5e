import { spawn } from 'node:child_process'
import { type AddressInfo, createServer } from 'node:net'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startGateway } from '../../src/start.js'
import { BIN } from '../fixtures/cli.js'
import { writeFiles } from '../fixtures/gateway.js'
import { openByHand } from '../fixtures/servers.js'
import { differences, type Noise, type Rule, unruly, withoutNoise } from './differential-compare.js'
import { createPages, pagesScript } from './differential-pages.js'
import { NOISES, RULES } from './differential-rules.js'
import {
  conformanceScript,
  everythingScript,
  type Heard,
  runScript,
  type Step,
  stepsOf,
} from './differential-script.js'
import { type Era, overHttp, overStdio, type Wire } from './differential-wires.js'

/** The gateway must be the only difference between a client at its server and a client at the gateway. */
interface World {
  readonly name: string
  readonly script: (era: Era) => readonly Step[]
  /** The era of the server, and so of the client that talks to it directly. */
  readonly era: Era
  /** A server of one run alone: nothing that another run did is to be seen in it. */
  readonly serve: () => Promise<Server>
  readonly via: readonly { readonly client: Era; readonly front: 'http' | 'stdio' }[]
}

interface Server {
  /** As the servers file has it. */
  readonly entry: { readonly command: string; readonly args: readonly string[] } | { readonly url: string }
  readonly stop: () => Promise<void> | void
}

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const EVERYTHING = file('../../node_modules/@modelcontextprotocol/server-everything/dist/index.js')
const CONFORMANCE = file('../conformance/everything-server.js')
const HOME = process.cwd()

const WORLDS: readonly World[] = [
  {
    name: 'server-everything over stdio',
    script: everythingScript,
    era: 'legacy',
    serve: async () => ({ entry: { command: process.execPath, args: [EVERYTHING] }, stop: () => {} }),
    via: [
      { client: 'legacy', front: 'http' },
      { client: 'modern', front: 'http' },
      { client: 'legacy', front: 'stdio' },
      { client: 'modern', front: 'stdio' },
    ],
  },
  {
    name: 'server-everything over HTTP',
    script: everythingScript,
    era: 'legacy',
    serve: () => serveEverything(),
    via: [
      { client: 'legacy', front: 'http' },
      { client: 'modern', front: 'http' },
    ],
  },
  {
    name: 'conformance server of 2025',
    script: conformanceScript,
    era: 'legacy',
    serve: () => serveConformance('legacy'),
    via: [
      { client: 'legacy', front: 'http' },
      { client: 'modern', front: 'http' },
    ],
  },
  {
    name: 'conformance server of 2026',
    script: conformanceScript,
    era: 'modern',
    serve: () => serveConformance('modern'),
    via: [
      { client: 'modern', front: 'http' },
      { client: 'modern', front: 'stdio' },
      { client: 'legacy', front: 'http' },
    ],
  },
  ...(['legacy', 'modern'] as const).map(
    (era): World => ({
      name: `server by hand of ${era === 'legacy' ? 2025 : 2026}`,
      script: pagesScript,
      era,
      serve: async () => {
        const { url, close } = await openByHand(createPages(era))
        return { entry: { url }, stop: close }
      },
      via: [
        { client: 'legacy', front: 'http' },
        { client: 'modern', front: 'http' },
      ],
    }),
  ),
]

const DIRECT = ['direct', 'direct-again'] as const

const met = new Set<Noise>()
const used = new Set<Rule>()

const runs = new Map<string, Map<string, Heard>>()
const closers: (() => Promise<unknown> | unknown)[] = []

beforeAll(async () => {
  // Two at a time: one waits while the other works, and more processes than that are too many.
  const waiting = [...WORLDS]
  const runOn = async (): Promise<void> => {
    for (let world = waiting.shift(); world; world = waiting.shift()) await runWorld(world)
  }
  await Promise.all([runOn(), runOn()])
}, 120_000)
afterAll(async () => {
  for (const close of closers.reverse()) await close()
})

describe.each(WORLDS)('$name', ({ name: world, script, era, via }) => {
  const heardBy = (name: string) => runs.get(`${world}: ${name}`) ?? new Map<string, Heard>()
  // What answers nothing counts as one.
  const sizeOf = (client: Era) => stepsOf(client, script(client)).length + 1

  test('two direct runs differ by what is noise, and by nothing else', () => {
    const [first, second] = DIRECT.map(name => withoutNoise(heardBy(name), NOISES, met))
    expect(first?.size).toBe(sizeOf(era))
    expect(first).toEqual(second)
  })

  test.each(via)('what a $client client hears over $front differs by what is on the allow-list', way => {
    const direct = withoutNoise(heardBy('direct'), NOISES)
    const heard = withoutNoise(heardBy(nameOf(way)), NOISES)
    expect(heard.size).toBe(sizeOf(way.client))
    expect(unruly(differences(direct, heard), { world, era, ...way }, RULES, used)).toEqual([])
  })
})

test('no rule of the allow-list, and no noise, is there for nothing', () => {
  expect(RULES.filter(rule => !used.has(rule) && !rule.sometimes)).toEqual([])
  expect(NOISES.filter(noise => !met.has(noise))).toEqual([])
})

/** Every run of a world at once, each with a server of its own. */
async function runWorld({ name: world, script, era, serve, via }: World): Promise<void> {
  const start = async (name: string) => {
    const { entry, stop } = await serve()
    closers.push(stop)
    return [name, entry] as const
  }
  const entries = Object.fromEntries(await Promise.all([...DIRECT, ...via.map(nameOf)].map(start)))
  const gateway = await openGateway(entries)
  closers.push(gateway.close)
  const run = async (name: string, wire: Wire) => {
    runs.set(`${world}: ${name}`, await runScript(wire, script(wire.era)))
    await wire.close()
  }
  await Promise.all([
    ...DIRECT.map(async name => run(name, await openDirectly(era, entries[name]))),
    ...via.map(async ({ client, front }) => {
      const name = nameOf({ client, front })
      await run(name, await gateway.open(client, front, name))
    }),
  ])
}

function nameOf({ client, front }: { readonly client: Era; readonly front: string }): string {
  return `${client}-over-${front}`
}

async function openDirectly(era: Era, entry: Server['entry'] | undefined): Promise<Wire> {
  if (!entry) throw new Error('no server')
  if ('url' in entry) return overHttp(era, entry.url)
  return overStdio(era, entry.args, { env: { PATH: process.env.PATH, HOME } })
}

async function openGateway(servers: Record<string, unknown>) {
  const rules = { agents: { default: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } }
  const files = await writeFiles({ servers, rules })
  const env = { ...files.env, HOME }
  const gateway = await startGateway({ config: files.config, rules: files.rules, env })
  const http = await gateway.serveHttp({ port: 0 })
  const token = await http.issueToken('default', 600)
  return {
    open: async (client: Era, front: 'http' | 'stdio', server: string) =>
      front === 'http'
        ? overHttp(client, new URL(`/servers/${server}/mcp`, http.url).href, token)
        : overStdio(client, [BIN, 'stdio', '--server', server], { env, cwd: files.directory }),
    close: async () => {
      await gateway.close()
      await files.close()
    },
  }
}

async function serveEverything(): Promise<Server> {
  const port = await freePort()
  const child = spawn(process.execPath, [EVERYTHING, 'streamableHttp'], {
    env: { PATH: process.env.PATH, HOME, PORT: String(port) },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  await lineOf(child.stderr, 'listening')
  return { entry: { url: `http://127.0.0.1:${port}/mcp` }, stop: () => void child.kill() }
}

async function serveConformance(era: Era): Promise<Server> {
  const child = spawn(process.execPath, [CONFORMANCE, '--era', era], { stdio: ['ignore', 'pipe', 'ignore'] })
  const { url } = JSON.parse(await lineOf(child.stdout, 'url'))
  return { entry: { url }, stop: () => void child.kill() }
}

async function lineOf(stream: Readable, word: string): Promise<string> {
  for await (const line of createInterface({ input: stream })) if (line.includes(word)) return line
  throw new Error('the server ended')
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
