import { toExitStatus } from '../errors/faces.js'
import { type Gateway, startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { callGatewayTool, type Outcome } from './gateway-tool.js'
import { oneLine, printJson, printTable, visible } from './output.js'
import { usingGateway } from './shutdown.js'

export interface ToolsFlags extends ConfigFlags {
  readonly agent?: string
  readonly json?: boolean
}

interface Definition {
  readonly name: string
  readonly description?: string
}

export async function tools(server: string | undefined, { agent, json, ...flags }: ToolsFlags): Promise<number> {
  return usingGateway(await startGateway({ ...flags, logLevel: 'error' }), async gateway => {
    const names = server === undefined ? await permittedServers(gateway, agent) : [server]
    const outcomes = await Promise.all(
      names.map(async name => ({
        name,
        outcome: await callGatewayTool(gateway, 'get_server_tools', { server: name }, agent),
      })),
    )
    for (const { outcome } of outcomes) if (outcome.error) process.stderr.write(`${visible(outcome.error.message)}\n`)
    const listed = outcomes.flatMap(({ name, outcome }) =>
      definitionsIn(outcome).map(definition => ({ server: name, definition })),
    )
    if (json) printJson({ tools: listed.map(({ server: name, definition }) => ({ server: name, ...definition })) })
    else
      printTable(
        ['SERVER', 'TOOL', 'DESCRIPTION'],
        listed.map(({ server: name, definition }) => [name, definition.name, oneLine(definition.description ?? '')]),
      )
    // One server out of many that is down is news; the one that was asked for is a failure.
    const failed = server === undefined ? undefined : outcomes[0]?.outcome.error
    return failed ? toExitStatus(failed) : 0
  })
}

async function permittedServers(gateway: Gateway, agent: string | undefined): Promise<string[]> {
  const outcome = await callGatewayTool(gateway, 'list_servers', {}, agent)
  if (outcome.error) throw outcome.error
  const { servers } = outcome.result.structuredContent as { servers: { name: string; state: string }[] }
  return servers.filter(({ state }) => state !== 'disabled').map(({ name }) => name)
}

function definitionsIn({ result, error }: Outcome): Definition[] {
  if (error) return []
  return (result.structuredContent as { tools: Definition[] }).tools
}
