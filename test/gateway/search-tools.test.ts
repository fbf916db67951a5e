import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { nodeServer, openTestGateway, type TestGateway } from '../fixtures/gateway.js'
import { stdioServer } from '../fixtures/servers.js'

interface Found {
  readonly server: string
  readonly name: string
  readonly description?: string
  readonly inputSchema: Record<string, unknown>
  readonly score: number
}

const opened: TestGateway[] = []
afterEach(async () => {
  for (const gateway of opened.splice(0)) await gateway.close()
})

const RULES = {
  agents: {
    admin: { allow: { servers: ['*'] } },
    reader: { allow: { servers: ['files', 'mail'], tools: { files: ['read_*', 'list_*'] } } },
    mailer: { allow: { servers: ['mail'] } },
    nobody: {},
  },
}

const object = { type: 'object' }
const FILES = [
  { name: 'read_file', description: 'Reads a file', inputSchema: { ...object, properties: { path: {} } } },
  { name: 'delete_file', description: 'Deletes a file', inputSchema: object },
  { name: 'list_directory', description: 'Lists the files in a directory', inputSchema: object },
]
const MAIL = [
  { name: 'sendEmail', title: 'Send a message', description: 'Sends an e-mail', inputSchema: object },
  { name: 'mail.read-all', inputSchema: { ...object, properties: { unreadOnly: {} } } },
  { name: 'do_all', inputSchema: object },
]

/** A server that offers these tools; each start and each reading of the list leaves a line in `log`. */
const listing = (tools: unknown, log = '', extra: Record<string, unknown> = {}) => ({
  ...stdioServer('listing', { env: { TOOLS: JSON.stringify(tools), LOG: log } }),
  ...extra,
})

async function open(servers: Record<string, unknown>, rules: Record<string, unknown> = RULES): Promise<TestGateway> {
  const gateway = await openTestGateway({ servers, rules })
  opened.push(gateway)
  return gateway
}

async function find(gateway: TestGateway, args: Record<string, unknown>, agent = 'admin') {
  const { structuredContent, content } = await gateway.call('search_tools', args, agent)
  expect(JSON.parse(String(content[0]?.text))).toEqual(structuredContent)
  return structuredContent as unknown as {
    tools: Found[]
    unavailable?: { server: string; state: string; code: string; reason: string }[]
    error?: Record<string, unknown>
  }
}

const namesOf = ({ tools }: { tools: Found[] }) => tools.map(({ server, name }) => `${server}/${name}`)

describe('search_tools', () => {
  test('gives the tools that fit, best first, with what it takes to call them', async () => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL) })
    const { tools } = await find(gateway, { query: 'remove a document' })
    expect(tools[0]).toEqual({
      server: 'files',
      name: 'delete_file',
      description: 'Deletes a file',
      inputSchema: object,
      score: expect.any(Number),
    })
    const scores = tools.map(({ score }) => score)
    expect(scores).toEqual([...scores].sort((a, b) => b - a))
  })

  test.each([
    ['camelCase names', 'send email', 'mail/sendEmail'],
    ['names with dots and dashes, without any description', 'read mail', 'mail/mail.read-all'],
    ['names that say nothing', 'do all', 'mail/do_all'],
    ['titles', 'message', 'mail/sendEmail'],
    ['descriptions', 'what files are there in a directory', 'files/list_directory'],
    ['parameter names', 'unread', 'mail/mail.read-all'],
    ['typos', 'delte a flie', 'files/delete_file'],
    ['letters the wrong way round', 'direcotry', 'files/list_directory'],
    ['other words for the same', 'browse a folder', 'files/list_directory'],
    ['accents and capitals', 'RÉAD FILE', 'files/read_file'],
  ])('finds by %s', async (_, query, expected) => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL) })
    expect(namesOf(await find(gateway, { query }))[0]).toBe(expected)
  })

  test('leaves out what does not fit at all', async () => {
    const gateway = await open({ files: listing(FILES) })
    expect(await find(gateway, { query: 'zzzzzz' })).toEqual({ tools: [] })
    expect(await find(gateway, { query: '?!' })).toEqual({ tools: [] })
  })

  test('looks at one server when asked to', async () => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL) })
    expect(namesOf(await find(gateway, { query: 'read', server: 'mail' }))).toEqual(['mail/mail.read-all'])
  })

  test('gives five, or as many as asked for', async () => {
    const many = Array.from({ length: 60 }, (_, at) => ({ name: `copy_${at + 10}`, inputSchema: object }))
    const gateway = await open({ many: listing(many) })
    const first = await find(gateway, { query: 'copy' })
    expect(namesOf(first)).toEqual(['many/copy_10', 'many/copy_11', 'many/copy_12', 'many/copy_13', 'many/copy_14'])
    expect((await find(gateway, { query: 'copy', limit: 50 })).tools).toHaveLength(50)
    expect((await find(gateway, { query: 'copy', limit: 1 })).tools).toHaveLength(1)
  })
})

describe('the rules', () => {
  test('decide before the limit is applied', async () => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL) })
    expect(namesOf(await find(gateway, { query: 'delete a file', limit: 1 }, 'reader'))).toEqual(['files/read_file'])
    expect(await find(gateway, { query: 'delete a file' }, 'nobody')).toEqual({ tools: [] })
  })

  test("a server's own filter holds for everybody", async () => {
    const gateway = await open({ files: listing(FILES, '', { tools: { deny: ['delete_*'] } }) })
    expect(namesOf(await find(gateway, { query: 'delete file' }))).not.toContain('files/delete_file')
  })

  test('keep denied tools out of every number that is shown', async () => {
    const without = await open({ files: listing(FILES.filter(({ name }) => name !== 'delete_file')) })
    const denied = await open({ files: listing(FILES) })
    // "delte" may have meant the denied tool only, so nobody may see that it was understood.
    for (const query of ['delete a file', 'delte', 'read file in a directory', 'file']) {
      expect(await find(denied, { query }, 'reader')).toEqual(await find(without, { query }, 'reader'))
    }
  })

  test.each([['files'], ['nowhere']])('a denied and an unknown server answer alike: %s', async server => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL) })
    const { error } = await find(gateway, { query: 'file', server }, 'mailer')
    expect(error).toEqual({
      code: 'DENIED_BY_POLICY',
      message: `the server "${server}" is not available to the agent "mailer": it does not exist, or the rules do not allow it`,
      server,
    })
  })

  test('servers the agent may not use are neither asked nor named', async () => {
    const gateway = await open({ files: listing(FILES), mail: listing(MAIL), broken: nodeServer('nothing-there.js') })
    expect(await find(gateway, { query: 'file' }, 'mailer')).toEqual({ tools: [] })
    const { backends } = gateway.gateway.runtime.current
    expect(backends.get('files')?.status().state).toBe('idle')
    expect(backends.get('broken')?.status().state).toBe('idle')
  })
})

describe('servers', () => {
  test('that fail or take long are named, and spoil nothing', async () => {
    const gateway = await open({
      files: listing(FILES),
      broken: nodeServer('nothing-there.js'),
      slow: stdioServer('taciturn'),
      off: nodeServer('shop.js', { disabled: true }),
      unset: nodeServer('shop.js', { env: { TOKEN: '${NOT_SET}' } }),
    })
    const started = performance.now()
    const result = await find(gateway, { query: 'read a file' })
    expect(performance.now() - started).toBeLessThan(8_000)
    expect(namesOf(result)[0]).toBe('files/read_file')
    expect(result.unavailable).toEqual([
      { server: 'broken', state: 'cooling', code: 'SERVER_UNAVAILABLE', reason: expect.stringContaining('broken') },
      { server: 'slow', state: expect.any(String), code: 'TIMEOUT', reason: expect.stringContaining('slow') },
    ])
    const again = performance.now()
    expect((await find(gateway, { query: 'read a file' })).unavailable).toHaveLength(2)
    expect(performance.now() - again).toBeLessThan(2_000)
  })

  test('that were asked for by name say why they cannot be searched', async () => {
    const gateway = await open({ off: nodeServer('shop.js', { disabled: true }) })
    expect(await find(gateway, { query: 'read', server: 'off' })).toEqual({
      tools: [],
      unavailable: [
        { server: 'off', state: 'disabled', code: 'SERVER_UNAVAILABLE', reason: expect.stringContaining('disabled') },
      ],
    })
  })

  test('are started once, and never again for a list that is known', async () => {
    const gateway = await open({})
    const log = join(gateway.directory, 'log')
    const counted = await open({ files: listing(FILES, log) })
    await Promise.all([find(counted, { query: 'file' }), find(counted, { query: 'read' }, 'reader')])
    const pid = counted.gateway.runtime.current.backends.get('files')?.status().pid
    process.kill(Number(pid))
    await expect.poll(() => counted.gateway.runtime.current.backends.get('files')?.status().state).not.toBe('ready')
    expect(namesOf(await find(counted, { query: 'read a file' }))[0]).toBe('files/read_file')
    expect((await readFile(log, 'utf8')).split('\n').filter(Boolean)).toEqual(['started', 'listed'])
  })

  test('whose list changed are read again, and only those', async () => {
    const gateway = await open({})
    const log = join(gateway.directory, 'log')
    const changing = await open({ files: listing(FILES, log), growing: stdioServer('changing-legacy') })
    expect(namesOf(await find(changing, { query: 'grown' }))).toEqual(['growing/grow'])
    await changing.call('execute_tool', { server: 'growing', tool: 'grow', args: {} }, 'admin')
    await expect.poll(async () => namesOf(await find(changing, { query: 'grown' }))).toContain('growing/grown_1')
    expect((await readFile(log, 'utf8')).split('\n').filter(Boolean)).toEqual(['started', 'listed'])
  })

  test('with a list of their own for each agent share nothing', async () => {
    const gateway = await open({ files: listing(FILES, '', { session: 'per-agent' }) })
    await find(gateway, { query: 'file' })
    const backend = gateway.gateway.runtime.current.backends.get('files')
    expect(backend?.toolsKnownTo({ agent: 'admin', principal: 'local' })).toBeDefined()
    expect(backend?.toolsKnownTo({ agent: 'reader', principal: 'local' })).toBeUndefined()
  })
})

describe('bad input', () => {
  test.each<[string, Record<string, unknown>]>([
    ['no request', {}],
    ['an empty one', { query: '' }],
    ['one of spaces', { query: '   ' }],
    ['100 KB of it', { query: 'file '.repeat(20_000) }],
    ['no text', { query: ['file'] }],
    ['a limit of 0', { query: 'file', limit: 0 }],
    ['a limit beyond reason', { query: 'file', limit: 51 }],
    ['half a limit', { query: 'file', limit: 1.5 }],
    ['a parameter that does not exist', { query: 'file', tool: 'x' }],
  ])('%s is refused', async (_, args) => {
    const gateway = await open({})
    expect((await find(gateway, args)).error).toMatchObject({ code: 'INVALID_ARGUMENTS' })
  })

  test.each([
    ['file.*(+[{'],
    ['\\'],
    ['__proto__ constructor'],
    ['^(a+)+$'],
    ['文件 ファイル'],
    ['\u0000 file \ud800'],
  ])('a request may have any characters: %j', async query => {
    const gateway = await open({ files: listing(FILES) })
    expect((await find(gateway, { query })).error).toBeUndefined()
  })

  test('a list of 10,000 tools with long texts is searched', async () => {
    const gateway = await open({
      huge: nodeServer('hostile.js', { args: [...nodeServer('hostile.js').args, 'crowd'] }),
    })
    const { tools } = await find(gateway, { query: 'the tool with number w9999' })
    expect(tools).toHaveLength(5)
    // As long as a request may be, each word a typo of many.
    const query = Array.from({ length: 300 }, (_, at) => `wrd${at}x`)
      .join(' ')
      .slice(0, 2_000)
    const started = performance.now()
    await find(gateway, { query })
    expect(performance.now() - started).toBeLessThan(2_000)
  })

  test('definitions that are not what they should be do no harm', async () => {
    const odd = [
      { name: 'odd', title: 7, description: { text: 'no' }, inputSchema: { type: 'object', 'x-odd': [1] } },
      { name: 'odder', annotations: null, description: null, inputSchema: {} },
    ]
    const gateway = await open({ odd: listing(odd) })
    expect(namesOf(await find(gateway, { query: 'odd' }))).toEqual(['odd/odd', 'odd/odder'])
  })
})
