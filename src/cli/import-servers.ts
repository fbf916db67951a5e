import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { type JsonDocument, readJsonDocument } from '../config/json-document.js'
import { ConfigError } from '../config/problem.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'

export interface ImportedServers {
  readonly servers: Readonly<Record<string, JsonObject>>
  /** What was changed or left out on the way, in words. */
  readonly notes: readonly string[]
}

interface Place {
  readonly env: Env
  readonly cwd: string
}

// Of a client's entry only this is meant for a server; the rest (alwaysAllow, autoApprove, envFile, …) is the client's own.
const KEPT = ['description', 'command', 'args', 'env', 'cwd', 'url', 'headers', 'type', 'transport', 'disabled']

/** Reads the MCP servers that a client has configured. Throws when the client, the file or its servers cannot be found. */
export async function importServers(source: string, place: Place): Promise<ImportedServers> {
  const files = filesOf(source, place)
  const documents = await Promise.all(files.map(readJsonDocument))
  const readable = documents.filter(({ value }) => value !== undefined)
  if (readable.length === 0) throw new ConfigError(documents.flatMap(({ problems }) => problems))
  const notes: string[] = []
  const servers = new Map<string, JsonObject>()
  for (const document of readable) {
    for (const [name, entry] of entriesIn(document, place.cwd)) {
      if (isGateway(entry)) notes.push(`"${name}" is the gateway itself and was left out`)
      else if (!servers.has(name)) servers.set(name, convert(name, entry, notes))
    }
  }
  return { servers: Object.fromEntries(servers), notes }
}

/** Where each client keeps its servers; the project's own file comes first. */
function filesOf(source: string, { env, cwd }: Place): string[] {
  const home = env.HOME || homedir()
  const config =
    process.platform === 'darwin'
      ? join(home, 'Library', 'Application Support')
      : process.platform === 'win32'
        ? (env.APPDATA ?? home)
        : env.XDG_CONFIG_HOME || join(home, '.config')
  switch (source) {
    case 'claude-desktop':
      return [join(config, 'Claude', 'claude_desktop_config.json')]
    case 'claude-code':
      return [join(cwd, '.mcp.json'), join(home, '.claude.json')]
    case 'cursor':
      return [join(cwd, '.cursor', 'mcp.json'), join(home, '.cursor', 'mcp.json')]
    case 'vscode':
      return [join(cwd, '.vscode', 'mcp.json'), join(config, 'Code', 'User', 'mcp.json')]
    default:
      if (!/[/\\.]/.test(source))
        throw new GatewayError(
          'CONFIG_INVALID',
          `--from ${source}: expected claude-desktop, claude-code, cursor, vscode, or a path to a file`,
        )
      return [resolve(cwd, source)]
  }
}

/** `mcpServers` (Claude, Cursor), `servers` (VS Code), and what Claude Code keeps for this project. */
function entriesIn({ value }: JsonDocument, cwd: string): ReadonlyMap<string, JsonObject> {
  if (!isJsonObject(value)) return new Map()
  const project = isJsonObject(value.projects) ? value.projects[cwd] : undefined
  const sources = [isJsonObject(project) ? project.mcpServers : undefined, value.mcpServers, value.servers]
  const entries = sources.flatMap(source => (isJsonObject(source) ? Object.entries(source) : []))
  const found = new Map<string, JsonObject>()
  for (const [name, entry] of entries) if (isJsonObject(entry) && !found.has(name)) found.set(name, entry)
  return found
}

function convert(name: string, entry: JsonObject, notes: string[]): JsonObject {
  const dropped = Object.keys(entry).filter(key => !KEPT.includes(key))
  if (dropped.length > 0) notes.push(`"${name}": left out ${dropped.join(', ')}`)
  const kept = Object.fromEntries(Object.entries(entry).filter(([key]) => KEPT.includes(key)))
  // VS Code asks for ${input:api-key}; here it is an environment variable.
  const text = JSON.stringify(kept).replace(/\$\{input:([^}]+)\}/g, (_, input: string) => {
    const variable = input.toUpperCase().replace(/[^A-Z0-9]+/g, '_')
    notes.push(`"${name}": set the environment variable ${variable} (was the input "${input}")`)
    return `\${${variable}}`
  })
  const converted: unknown = JSON.parse(text)
  return isJsonObject(converted) ? converted : {}
}

const isGateway = ({ command, args }: JsonObject): boolean => /agent-mcp-gateway/.test(JSON.stringify([command, args]))
