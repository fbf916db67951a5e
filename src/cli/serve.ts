import { startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { print } from './output.js'
import { firstSignal } from './shutdown.js'

export interface ServeFlags extends ConfigFlags {
  readonly host?: string
  readonly port?: number
  readonly debug?: boolean
  readonly quickstart?: string
}

const QUICKSTART_TTL_SECONDS = 24 * 60 * 60

export async function serve({ host, port, quickstart, ...flags }: ServeFlags): Promise<number> {
  const gateway = await startGateway({ ...flags, mayOpenBrowser: true })
  try {
    const stopped = firstSignal()
    const front = await gateway.serveHttp({ host, port })
    if (quickstart !== undefined && front.issuers.length > 0) {
      print(`Agent MCP Gateway is serving ${front.url}\n\nTokens come from ${front.issuers.join(' and ')}`)
    } else if (quickstart !== undefined) {
      print(quickstartText(front.url, await front.issueToken(quickstart, QUICKSTART_TTL_SECONDS), quickstart))
    }
    const signal = await stopped
    gateway.logger.info({ signal }, 'shutting down')
  } finally {
    await gateway.close()
  }
  return 0
}

function quickstartText(url: string, token: string, agent: string): string {
  const call = {
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/call',
    params: { name: 'execute_tool', arguments: { server: 'everything', tool: 'echo', args: { message: 'hello' } } },
  }
  const client = { mcpServers: { gateway: { type: 'http', url, headers: { Authorization: `Bearer ${token}` } } } }
  return `
Agent MCP Gateway is serving ${url}

Token for the agent "${agent}", good for 24 hours:

${token}

Call a tool of a server behind the gateway:

curl -sS ${url} -H 'Authorization: Bearer ${token}' -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -d '${JSON.stringify(call)}'

For a client that speaks HTTP:

${JSON.stringify(client, null, 2)}
`
}
