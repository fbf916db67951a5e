import { rename, rm, symlink, writeFile } from 'node:fs/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { type GatewayConfig, loadConfig } from '../../src/config/load.js'
import { watchConfig } from '../../src/config/watch.js'
import { type Directory, openDirectory } from '../fixtures/backend.js'

const SERVERS = 'servers.json'
const RULES = 'rules.json'
const serversText = (...names: string[]) =>
  JSON.stringify({ mcpServers: Object.fromEntries(names.map(name => [name, { command: name }])) })
const rulesText = (...agents: string[]) =>
  JSON.stringify({ agents: Object.fromEntries(agents.map(agent => [agent, { allow: { servers: ['*'] } }])) })

let directory: Directory
let seen: (GatewayConfig | string)[]
let watching: { close(): void } | undefined

beforeEach(async () => {
  directory = await openDirectory()
  seen = []
  await writeFile(directory.file(SERVERS), serversText('a'))
  await writeFile(directory.file(RULES), rulesText('one'))
})
afterEach(async () => {
  watching?.close()
  await directory[Symbol.asyncDispose]()
})

const files = () => ({ servers: directory.file(SERVERS), rules: directory.file(RULES) })
const load = () => loadConfig(files(), {})

async function watch(current?: GatewayConfig): Promise<void> {
  watching = watchConfig(current ?? (await load()), {
    env: {},
    onConfig: config => void seen.push(config),
    onError: reason => void seen.push(reason),
  })
}

const namesIn = (config: GatewayConfig | string | undefined) =>
  typeof config === 'object' ? config.servers.map(({ name }) => name) : config
const told = () => seen.map(namesIn)
const write = (name: string, text: string) => writeFile(directory.file(name), text)

/** Replaces a file as editors do that never leave it half. */
async function replace(name: string, text: string): Promise<void> {
  await write(`${name}.tmp`, text)
  await rename(directory.file(`${name}.tmp`), directory.file(name))
}

test('a saved servers file is loaded', async () => {
  await watch()
  await write(SERVERS, serversText('a', 'b'))
  await expect.poll(told).toEqual([['a', 'b']])
})

test('a saved rules file is loaded', async () => {
  await watch()
  await write(RULES, rulesText('one', 'two'))
  await expect.poll(() => seen).toMatchObject([{ rules: { agents: { one: {}, two: {} } } }])
})

test('a file that is replaced by another one is loaded, time and again', async () => {
  await watch()
  await replace(SERVERS, serversText('b'))
  await expect.poll(told).toEqual([['b']])
  await replace(SERVERS, serversText('c'))
  await expect.poll(told).toEqual([['b'], ['c']])
  await write(SERVERS, serversText('d'))
  await expect.poll(told).toEqual([['b'], ['c'], ['d']])
})

test('a link that points elsewhere now is loaded', async () => {
  await write('first.json', serversText('a'))
  await write('second.json', serversText('b'))
  await rm(directory.file(SERVERS))
  await symlink(directory.file('first.json'), directory.file(SERVERS))
  await watch()
  await symlink(directory.file('second.json'), directory.file('link.tmp'))
  await rename(directory.file('link.tmp'), directory.file(SERVERS))
  await expect.poll(told).toEqual([['b']])
})

test('two quick saves are one change: the last', async () => {
  await watch()
  await write(SERVERS, serversText('b'))
  await write(SERVERS, serversText('c'))
  await expect.poll(told).toEqual([['c']])
  await write(SERVERS, serversText('fence'))
  await expect.poll(told).toEqual([['c'], ['fence']])
})

test('both files saved together are one change', async () => {
  await watch()
  await write(SERVERS, serversText('a', 'b'))
  await write(RULES, rulesText('two'))
  await expect.poll(() => seen).toMatchObject([{ servers: [{ name: 'a' }, { name: 'b' }], rules: { agents: { two: {} } } }])
  await write(SERVERS, serversText('fence'))
  await expect.poll(told).toEqual([['a', 'b'], ['fence']])
})

test('spaces, line breaks and comments are no change', async () => {
  await watch()
  // One that takes whatever there is for news.
  const witnessed: unknown[] = []
  const witness = watchConfig(
    { ...(await load()), fingerprint: '' },
    { env: {}, onConfig: ({ fingerprint }) => void witnessed.push(fingerprint), onError: () => {} },
  )
  await write(SERVERS, `// of mine\n{ "mcpServers": {\n\n  "a": { "command": "a", }, /* alone */ } }\n`)
  await write(RULES, `${rulesText('one')}\n\n// the end`)
  await expect.poll(() => witnessed).toEqual([(await load()).fingerprint])
  witness.close()
  await write(SERVERS, serversText('fence'))
  await expect.poll(told).toEqual([['fence']])
})

test('a file that is half written is told of, and the whole one loaded', async () => {
  await watch()
  await write(SERVERS, serversText('a', 'b').slice(0, 30))
  await expect.poll(told).toEqual([expect.stringMatching(/servers\.json:1:\d+: is not valid JSON/)])
  await write(SERVERS, serversText('a', 'b'))
  await expect.poll(told).toEqual([expect.any(String), ['a', 'b']])
})

test('a file that is whole again soon enough is not told of', async () => {
  await watch()
  const text = serversText('a', 'b')
  for (const length of [0, 10, 20, 30]) await write(SERVERS, text.slice(0, length))
  await write(SERVERS, text)
  await expect.poll(told).toEqual([['a', 'b']])
})

test('a mistake names the file and the place; every later good file is loaded, also the one from before', async () => {
  await watch()
  await write(SERVERS, '{ "mcpServers": { "a": { "comand": "a" } } }')
  await expect.poll(told).toEqual([expect.stringContaining('mcpServers.a')])
  expect(String(seen[0])).toContain(directory.file(SERVERS))
  await write(SERVERS, serversText('a'))
  await expect.poll(told).toEqual([expect.any(String), ['a']])
})

test('a file that disappears is told of, and loaded when it returns', async () => {
  await watch()
  await rm(directory.file(SERVERS))
  await expect.poll(told).toEqual([expect.stringContaining(SERVERS)])
  await write(SERVERS, serversText('a'))
  await expect.poll(told).toEqual([expect.any(String), ['a']])
  await rm(directory.file(RULES))
  await expect.poll(told).toEqual([expect.any(String), ['a'], expect.stringContaining(RULES)])
  await write(RULES, rulesText('two'))
  await expect.poll(() => seen.at(-1)).toMatchObject({ rules: { agents: { two: {} } } })
})

test('a file that was saved while it was being loaded the first time is loaded again', async () => {
  const current = await load()
  await write(SERVERS, serversText('b'))
  await watch(current)
  await expect.poll(told, { timeout: 5_000 }).toEqual([['b']])
})

test('two watches of one file do not disturb each other, and a closed one says nothing', async () => {
  const others: unknown[] = []
  const other = watchConfig(await load(), { env: {}, onConfig: config => void others.push(config), onError: () => {} })
  await watch()
  other.close()
  await write(SERVERS, serversText('b'))
  await expect.poll(told).toEqual([['b']])
  expect(others).toEqual([])
})

test('an unset variable condemns its own server only, also in a file that is new', async () => {
  await watch()
  await write(SERVERS, JSON.stringify({ mcpServers: { a: { command: 'a' }, b: { command: '${NOT_SET_ANYWHERE}' } } }))
  await expect.poll(told).toEqual([['a', 'b']])
  expect(seen[0]).toMatchObject({ servers: [{ misconfigured: [] }, { misconfigured: [{ path: 'mcpServers.b.command' }] }] })
})
