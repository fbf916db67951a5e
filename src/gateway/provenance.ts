import type { RawResult } from '../backends/call.js'
import { isJsonObject } from '../json.js'

const SERVER_INFO = 'io.modelcontextprotocol/serverInfo'

/** Where a backend's own name goes: the specified place is for whoever sends the result. */
export const BACKEND_INFO = 'agent-mcp-gateway/serverInfo'

/** A backend's result as the gateway passes it on. */
export function asOurs(result: RawResult): RawResult {
  const { _meta: meta } = result
  if (!isJsonObject(meta) || !(SERVER_INFO in meta)) return result
  const { [SERVER_INFO]: backend, ...rest } = meta
  // Behind another gateway the name of the server itself is the better one.
  return { ...result, _meta: { [BACKEND_INFO]: backend, ...rest } }
}
