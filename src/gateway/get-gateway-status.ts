import { z } from 'zod'
import type { BackendStatus } from '../backends/backend.js'
import { version } from '../version.js'
import type { Runtime } from './runtime.js'
import { agentId, describeTool, type GatewayTool, parseArguments, toResult } from './tool.js'

const Arguments = z.strictObject({ agent_id: agentId })

/** Listed only with `--debug`: it shows backends and agents whatever the rules say. */
export const createGetGatewayStatus = (runtime: Runtime): GatewayTool => ({
  definition: describeTool(
    'get_gateway_status',
    'Shows versions, configuration state, all servers and all agents of this gateway. For debugging.',
    Arguments,
    { readOnlyHint: true },
  ),

  async run(call, args) {
    const { agent_id: requested } = parseArguments(Arguments, args)
    call.actAs(requested)
    const { config, rules } = call.snapshot
    const { servers, config: reload } = describeGateway(runtime)
    return toResult({
      version,
      node: process.version,
      uptime_seconds: Math.round(process.uptime()),
      config: { ...config.files, fingerprint: config.fingerprint, ...reload },
      servers,
      agents: [...rules.agents.keys()],
    })
  },
})

/** What `gateway status --json` prints. */
export interface GatewayStatus {
  readonly servers: readonly BackendStatus[]
  readonly config: { readonly last_reload: string; readonly last_error?: string }
}

export function describeGateway({ current, reload: { lastReload, lastError } }: Runtime): GatewayStatus {
  return {
    servers: [...current.backends.values()].map(backend => backend.status()),
    config: { last_reload: lastReload.toISOString(), ...(lastError !== undefined && { last_error: lastError }) },
  }
}
