import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { locateConfigFiles, stateDirectory } from '../../src/config/locate.js'
import { ConfigError } from '../../src/config/problem.js'

let cwd: string
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'gateway-locate-'))
})
afterEach(() => rm(cwd, { recursive: true, force: true }))

const places = { here: '', xdg: 'xdg/agent-mcp-gateway', home: 'home/.config/agent-mcp-gateway', config: 'config' }

async function write(...files: string[]): Promise<void> {
  for (const file of files) {
    await mkdir(dirname(join(cwd, file)), { recursive: true })
    await writeFile(join(cwd, file), '{}')
  }
}

describe.each([
  { file: '.mcp.json', kind: 'servers', option: 'config', variable: 'GATEWAY_MCP_CONFIG' },
  { file: '.mcp-gateway-rules.json', kind: 'rules', option: 'rules', variable: 'GATEWAY_RULES' },
] as const)('$file', ({ file, kind, option, variable }) => {
  const otherOption = kind === 'servers' ? { rules: 'other.json' } : { config: 'other.json' }
  const locate = (options: Record<string, string> = {}, env: Record<string, string> = {}) =>
    locateConfigFiles({ ...otherOption, ...options, env: { HOME: join(cwd, 'home'), ...env }, cwd })[kind]
  const everywhere = Object.values(places).map(place => join(place, file))

  test('the option comes first, relative to the working directory', async () => {
    await write(...everywhere)
    expect(locate({ [option]: 'a/b.json' }, { [variable]: 'c.json' })).toBe(join(cwd, 'a', 'b.json'))
  })

  test('then the variable', async () => {
    await write(...everywhere)
    expect(locate({}, { [variable]: 'c.json' })).toBe(join(cwd, 'c.json'))
  })

  test('then the places, in order', async () => {
    const env = { XDG_CONFIG_HOME: join(cwd, 'xdg'), [variable]: '' }
    await write(...everywhere)
    for (const place of [places.here, places.xdg, places.config]) {
      const expected = join(cwd, place, file)
      expect(locate({}, env)).toBe(expected)
      await rm(expected)
    }
  })

  test('~/.config when XDG_CONFIG_HOME is not set', async () => {
    await write(join(places.home, file), join(places.config, file))
    expect(locate()).toBe(join(cwd, places.home, file))
  })
})

test('files that are nowhere are one error that names both and every place', () => {
  const env = { HOME: join(cwd, 'home'), XDG_CONFIG_HOME: join(cwd, 'xdg') }
  const locate = () => locateConfigFiles({ env, cwd })
  expect(locate).toThrow(ConfigError)
  expect(locate).toThrow(
    expect.objectContaining({
      code: 'CONFIG_INVALID',
      problems: [
        expect.objectContaining({ file: '.mcp.json' }),
        expect.objectContaining({ file: '.mcp-gateway-rules.json' }),
      ],
    }),
  )
  for (const place of [cwd, join(cwd, places.xdg), join(cwd, places.config)]) {
    expect(locate).toThrow(join(place, '.mcp.json'))
  }
})

test.each([
  ['GATEWAY_STATE_DIR', { GATEWAY_STATE_DIR: join(tmpdir(), 'state') }, join(tmpdir(), 'state')],
  ['XDG_STATE_HOME', { XDG_STATE_HOME: tmpdir() }, join(tmpdir(), 'agent-mcp-gateway')],
  ['HOME', { HOME: tmpdir() }, join(tmpdir(), '.local', 'state', 'agent-mcp-gateway')],
])('the state directory follows %s', (_, env, directory) => {
  expect(stateDirectory(env)).toBe(directory)
})
