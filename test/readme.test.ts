import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadConfig } from '../src/config/load.js'
import { gateway } from './fixtures/cli.js'

const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
const blocks = (language: string) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, text = '']) => text)

const commands = blocks('sh').flatMap(text => text.split('\n').filter(line => line.trim() !== ''))

// Run elsewhere: npm's own by .ci/run, `gateway serve` in e2e, `login` with its guide, the benchmark by hand.
const RUN_ELSEWHERE = new Set([
  'npm install --global .',
  'npm start',
  'npm test',
  'npm run check',
  'npm run test:system',
  'npm run conformance',
  'npm run bench',
  'gateway serve',
  'gateway login notion',
])

let directory: string
let env: Record<string, string>
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-readme-'))
  env = { HOME: directory, GATEWAY_STATE_DIR: join(directory, 'state') }
  const server = { command: process.execPath, args: [new URL('fixtures/shop.js', import.meta.url).pathname] }
  await writeFile(join(directory, 'client.json'), JSON.stringify({ mcpServers: { filesystem: server } }))
  await gateway(['init', '--from', './client.json'], { cwd: directory, env })
  await writeFile(
    join(directory, '.mcp-gateway-rules.json'),
    JSON.stringify({
      agents: {
        default: { allow: { servers: ['*'] } },
        backend: { allow: { servers: ['*'] } },
        researcher: { allow: { servers: ['*'] } },
      },
      defaults: { deny_on_missing_agent: false },
    }),
  )
})
afterAll(() => rm(directory, { recursive: true }))

describe('every command in the README', () => {
  test.each(commands.filter(line => !RUN_ELSEWHERE.has(line)))('%s', async line => {
    const words =
      line
        .replace(/^npx agent-mcp-gateway|^gateway/, '')
        .match(/'[^']*'|\S+/g)
        ?.map(word => word.replace(/^'|'$/g, '')) ?? []
    const { status, stderr } = await gateway(words, { cwd: directory, env })
    // Known exceptions: no Claude Desktop here; the stand-in for "filesystem" has no list_directory.
    if (line.includes('--from claude-desktop'))
      expect([status, stderr]).toEqual([78, expect.stringContaining('claude_desktop_config.json')])
    else if (line.includes('list_directory')) expect([status, stderr]).toEqual([1, ''])
    else expect([status, stderr.replace(/^credentials are sealed .*\n/m, '')]).toEqual([0, ''])
  })
})

test('the servers and rules it shows are valid', async () => {
  const [servers = '', rules = ''] = blocks('jsonc')
  await writeFile(join(directory, 'shown.json'), servers)
  await writeFile(join(directory, 'shown-rules.json'), rules)
  const files = { servers: join(directory, 'shown.json'), rules: join(directory, 'shown-rules.json') }
  const config = await loadConfig(files, { SEARCH_API_KEY: 'x', GITHUB_PAT: 'y' })
  expect(config.servers.map(({ name }) => name)).toEqual(['filesystem', 'search', 'github'])
})

test('its contents link to headings that exist', () => {
  const headings = new Set(
    [...readme.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
  const links = [...readme.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor)
  expect(links.length).toBeGreaterThan(5)
  for (const anchor of links) expect(headings).toContain(anchor)
})
