import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { loadServers } from '../config/load.js'
import { GatewayError } from '../errors/gateway-error.js'
import { type ImportedServers, importServers } from './import-servers.js'
import { print } from './output.js'

export interface InitFlags {
  readonly from?: string
  readonly force?: boolean
}

const STARTER: ImportedServers = {
  servers: {
    filesystem: {
      description: 'Files below this directory',
      command: 'npx',
      args: ['-y', '@modelcontextprotocol/server-filesystem', '.'],
    },
  },
  notes: [],
}

/** Writes `.mcp.json` and `.mcp-gateway-rules.json` into this directory; files that exist stay as they are unless forced. */
export async function init({ from, force = false }: InitFlags): Promise<number> {
  if (from === undefined && !force && existsSync('.mcp.json') && !existsSync('.mcp-gateway-rules.json'))
    return initRules()
  const { servers, notes } =
    from === undefined ? STARTER : await importServers(from, { env: process.env, cwd: process.cwd() })
  const names = Object.keys(servers)
  if (names.length === 0) throw new GatewayError('CONFIG_INVALID', `no MCP servers were found in ${from}`)
  const files = [
    { file: resolve('.mcp.json'), content: { mcpServers: servers } },
    { file: resolve('.mcp-gateway-rules.json'), content: rulesFor(names) },
  ]
  for (const { file, content } of files) await write(file, content, force)
  for (const note of notes) process.stderr.write(`note: ${note}\n`)
  print(`wrote ${files.map(({ file }) => file).join(' and ')} (${names.length} servers: ${names.join(', ')})`)
  print('next: gateway check, then gateway status')
  return 0
}

/** There are servers and no rules yet: then only those are written. */
async function initRules(): Promise<number> {
  const names = (await loadServers(resolve('.mcp.json'), process.env)).map(({ name }) => name)
  const file = resolve('.mcp-gateway-rules.json')
  await write(file, rulesFor(names), false)
  print(`wrote ${file} for the servers of .mcp.json (${names.join(', ')})`)
  print('next: gateway check, then gateway status')
  return 0
}

/** The person at this machine may use what they already used; every further agent gets what is written for it. */
const rulesFor = (names: readonly string[]) => ({
  agents: { default: { allow: { servers: names } } },
  defaults: { deny_on_missing_agent: false },
})

/** Mode 0600: imported servers may carry keys. */
async function write(file: string, content: unknown, force: boolean): Promise<void> {
  try {
    await writeFile(file, `${JSON.stringify(content, null, 2)}\n`, { flag: force ? 'w' : 'wx', mode: 0o600 })
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    throw new GatewayError('CONFIG_INVALID', `${file} exists already: add --force to replace it`, { cause: error })
  }
}
