import { z } from 'zod'
import type { Backend } from '../backends/backend.js'
import { agentId, describeTool, type GatewayCall, type GatewayTool, parseArguments, toResult } from './tool.js'

const Arguments = z.strictObject({
  include_metadata: z.boolean().optional().describe('Also say how each server is reached'),
  agent_id: agentId,
})

export const listServers: GatewayTool = {
  definition: describeTool(
    'list_servers',
    'Lists the MCP servers you may use, with what each is for and its state. Start here, then call get_server_tools.',
    Arguments,
    { readOnlyHint: true },
  ),

  async run(call, args) {
    const { include_metadata: withMetadata = false, agent_id: requested } = parseArguments(Arguments, args)
    const agent = call.actAs(requested)
    const visible = [...call.snapshot.backends.values()].filter(({ name }) => call.permits(agent, name))
    return toResult({ servers: visible.map(backend => describeServer(call, agent, backend, withMetadata)) })
  },
}

function describeServer(
  call: GatewayCall,
  agent: string,
  backend: Backend,
  withMetadata: boolean,
): Record<string, unknown> {
  const { config, name: server } = backend
  const seen = backend
    .toolsKnownTo(call.owner)
    ?.tools.filter(({ definition }) => call.permits(agent, server, definition))
  return {
    name: server,
    ...(config.description !== undefined && { description: config.description }),
    state: backend.status().state,
    ...(seen && { tools: seen.length }),
    ...(withMetadata && { transport: config.transport, ...backend.address }),
  }
}
