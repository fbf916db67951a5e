import { z } from 'zod'
import { version } from '../version.js'
import { agentId, describeTool, type GatewayTool, parseArguments, toResult } from './tool.js'

const Arguments = z.strictObject({ agent_id: agentId })

/** Listed only with `--debug`: it shows backends and agents whatever the rules say. */
export const getGatewayStatus: GatewayTool = {
  definition: describeTool(
    'get_gateway_status',
    'Shows versions, configuration state, all servers and all agents of this gateway. For debugging.',
    Arguments,
    { readOnlyHint: true },
  ),

  async run(call, args) {
    const { agent_id: requested } = parseArguments(Arguments, args)
    call.actAs(requested)
    const { config, rules, backends, loadedAt } = call.snapshot
    return toResult({
      version,
      node: process.version,
      uptime_seconds: Math.round(process.uptime()),
      config: { ...config.files, fingerprint: config.fingerprint, last_reload: loadedAt.toISOString() },
      servers: [...backends.values()].map(backend => backend.status()),
      agents: [...rules.agents.keys()],
    })
  },
}
