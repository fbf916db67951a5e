import type { CallToolResult } from '@modelcontextprotocol/server'
import { errorCodes, GatewayError } from '../errors/gateway-error.js'
import type { Gateway } from '../start.js'

/** A tool result, and the gateway's own error when the result stands for one. */
export interface Outcome {
  readonly result: CallToolResult
  readonly error: GatewayError | undefined
}

/** Calls one of the gateway's tools as the local user: the same rules, the same audit line as for an agent. */
export async function callGatewayTool(
  gateway: Gateway,
  name: string,
  args: Record<string, unknown>,
  agent: string | undefined,
): Promise<Outcome> {
  const result = await gateway.tools.call(name, args, { principal: gateway.localCaller(agent), era: 'modern' })
  return { result, error: errorIn(result) }
}

function errorIn({ isError, structuredContent }: CallToolResult): GatewayError | undefined {
  if (
    isError !== true ||
    typeof structuredContent !== 'object' ||
    structuredContent === null ||
    !('error' in structuredContent)
  )
    return undefined
  const { error } = structuredContent
  if (typeof error !== 'object' || error === null || !('code' in error) || !('message' in error)) return undefined
  const code = errorCodes.find(known => known === error.code)
  return code && new GatewayError(code, String(error.message))
}
