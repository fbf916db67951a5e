import { once } from 'node:events'
import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { loadConfig } from '../src/config/load.js'
import { type AuthorizationServer, openAuthorizationServer } from './fixtures/authorization-server.js'
import { spawnGateway } from './fixtures/cli.js'
import { writeFiles } from './fixtures/gateway.js'
import { openProtectedServer, type ProtectedServer } from './fixtures/protected-server.js'

const guide = await readFile(new URL('../docs/oauth.md', import.meta.url), 'utf8')
const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, text = '']) => text)

let authorizationServer: AuthorizationServer
let server: ProtectedServer
let files: Awaited<ReturnType<typeof writeFiles>>
let env: Record<string, string | undefined>
beforeAll(async () => {
  authorizationServer = await openAuthorizationServer()
  server = await openProtectedServer({ authorizationServer })
  files = await writeFiles({
    servers: { notion: { url: server.url } },
    rules: { agents: { default: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } },
  })
  await rm(files.rules) // the guide begins with servers only
  const browser = join(files.directory, 'browser')
  await writeFile(browser, `#!${process.execPath}\nfetch(process.argv[2])\n`)
  await chmod(browser, 0o755)
  env = {
    ...files.env,
    GATEWAY_CREDENTIALS_KEY: Buffer.alloc(32, 1).toString('base64'),
    GATEWAY_PASSPHRASE: 'open sesame',
    BROWSER: browser,
  }
})
afterAll(async () => {
  await server.close()
  await authorizationServer.close()
  await files.close()
})

/** Runs a line of the guide; whoever reads it would do the rest by hand: open the address, enter the code. */
async function follow(line: string): Promise<{ status: number | null; stderr: string }> {
  const words = line.split(' ').slice(1)
  const child = spawnGateway(words, { env, cwd: files.directory })
  const ended = once(child, 'close')
  if (line.includes('--no-browser')) {
    const address = await vi.waitFor(() => {
      const found = /^http:\S+$/m.exec(child.output.stderr)
      if (!found) throw new Error(`no address yet: ${child.output.stderr}`)
      return found[0]
    }, 10_000)
    await fetch(address)
  }
  if (line.includes('--device')) {
    await vi.waitFor(() => expect(child.output.stderr).toContain('enter the code'), 10_000)
    authorizationServer.approveDevice()
  }
  const [status] = await ended
  return { status, stderr: child.output.stderr }
}

describe('the OAuth guide', () => {
  const commands = blocks('sh').flatMap(text => text.split('\n').filter(line => line.trim() !== ''))

  test('has commands', () => expect(commands.length).toBeGreaterThan(8))

  // In the order of the guide: each stands on what those before it did.
  test.each(commands)('%s', async line => {
    const { status, stderr } = await follow(line)
    expect([status, stderr]).toEqual([0, expect.any(String)])
  })

  test('shows servers files that are valid', async () => {
    const examples = blocks('jsonc')
    expect(examples.length).toBeGreaterThan(3)
    for (const example of examples) {
      const shown = join(files.directory, 'shown.json')
      await writeFile(shown, example)
      const variables = { GITHUB_PAT: 'a', SEARCH_API_KEY: 'b', CORP_SECRET: 'c', REPORTS_SECRET: 'd' }
      const { servers } = await loadConfig({ servers: shown, rules: files.rules }, variables)
      expect(servers.flatMap(({ misconfigured }) => misconfigured)).toEqual([])
    }
  })

  test('links to headings that exist, as the README does', () => {
    const slug = (title: string) =>
      title
        .toLowerCase()
        .replace(/[^\w\s-]/g, '')
        .replaceAll(' ', '-')
    const headings = [...guide.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) => slug(title))
    const inside = [...guide.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor)
    const fromReadme = [...readme.matchAll(/\]\(docs\/oauth\.md#([^)]+)\)/g)].map(([, anchor]) => anchor)
    expect(inside.length).toBeGreaterThan(10)
    expect(fromReadme.length).toBeGreaterThan(1)
    for (const anchor of [...inside, ...fromReadme]) expect(headings).toContain(anchor)
  })
})
