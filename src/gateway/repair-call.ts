import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject, parseJson } from '../json.js'

// A model that nests a call does so once or twice; more is no call.
const MAX_NESTING = 3
const CALL_FIELDS = new Set(['server', 'tool', 'args', 'arguments', 'timeout_ms', 'agent_id'])

/**
 * The call a model meant when it nested the whole call in itself: `{ tool: "execute_tool", args: { server, tool, args } }`.
 * `isRealTool` tells whether the outer call, taken literally, names a tool that exists.
 */
export function unnestCall(raw: unknown, isRealTool: (server: unknown, tool: unknown) => boolean): unknown {
  let call = typeof raw === 'string' ? (toFields(raw) ?? raw) : raw
  for (let depth = 0; depth < MAX_NESTING; depth++) {
    if (!isJsonObject(call)) return call
    const { tool, server, agent_id: agent, timeout_ms: timeout } = call
    if (tool !== undefined && (tool !== 'execute_tool' || isRealTool(server, tool))) return call
    const inner = toFields(call.args ?? call.arguments)
    if (!inner || typeof inner.tool !== 'string' || !Object.keys(inner).every(key => CALL_FIELDS.has(key))) return call
    call = {
      ...(agent !== undefined && { agent_id: agent }),
      ...(timeout !== undefined && { timeout_ms: timeout }),
      ...inner,
    }
  }
  return call
}

/**
 * The server and the names a tool may be meant by. `server__tool` given as the tool also stands for `tool`; without a server
 * its prefix says which one. The literal name comes first.
 */
export function toolCandidates(
  server: string | undefined,
  tool: string,
  servers: Iterable<string>,
): { server: string; tools: string[] } | undefined {
  if (server !== undefined) {
    const prefix = `${server}__`
    return {
      server,
      tools: tool.startsWith(prefix) && tool.length > prefix.length ? [tool, tool.slice(prefix.length)] : [tool],
    }
  }
  const owners = [...servers].filter(name => tool.startsWith(`${name}__`) && tool.length > name.length + 2)
  const owner = owners.sort((a, b) => b.length - a.length)[0]
  if (owner !== undefined) return { server: owner, tools: [tool.slice(owner.length + 2)] }
  // A server that is not there is denied like one that the caller may not use.
  const at = tool.indexOf('__')
  return at > 0 && at < tool.length - 2 ? { server: tool.slice(0, at), tools: [tool.slice(at + 2)] } : undefined
}

/** The parts of a tool that repairing its arguments needs. */
export interface ArgumentTarget {
  readonly definition: { readonly name: string; readonly inputSchema: { readonly properties?: unknown } }
  readonly checkArguments: (args: JsonObject) => unknown
}

/**
 * The arguments as an object: a JSON string is parsed; `{ args: { … } }` and the same call once more are unwrapped where the tool
 * has no such parameters. Nothing inside is touched: a string stays a string, whatever it looks like. Throws INVALID_ARGUMENTS.
 */
export function repairArguments(given: unknown, tool: ArgumentTarget): JsonObject {
  let args = given === undefined || given === null ? {} : toFields(given)
  if (!args) {
    const details = { path: '', schema: tool.definition.inputSchema }
    throw new GatewayError('INVALID_ARGUMENTS', `args must be an object, got ${describe(given)}`, { details })
  }
  const { properties } = tool.definition.inputSchema
  const declared = isJsonObject(properties) ? Object.keys(properties) : []
  for (let depth = 0; depth < MAX_NESTING; depth++) {
    const inner = unwrap(args, declared, tool.definition.name)
    if (!inner || (declared.length === 0 && tool.checkArguments(args) === undefined)) return args
    args = inner
  }
  return args
}

/** What is inside one wrapping too many, if that is what this is. */
function unwrap(args: JsonObject, declared: readonly string[], tool: string): JsonObject | undefined {
  const keys = Object.keys(args)
  if (keys.length === 0 || keys.some(key => declared.includes(key) || !CALL_FIELDS.has(key))) return undefined
  const isSameCall = typeof args.tool === 'string' && (args.tool === tool || args.tool.endsWith(`__${tool}`))
  if (keys.length > 1 && !isSameCall) return undefined
  return toFields(args.args ?? args.arguments)
}

/** An object, or a string that is the JSON of one. */
function toFields(given: unknown): JsonObject | undefined {
  const value = typeof given === 'string' ? parseJson(given)?.value : given
  return isJsonObject(value) ? value : undefined
}

function describe(value: unknown): string {
  if (typeof value === 'string') return 'a string that is not the JSON of an object'
  return Array.isArray(value) ? 'an array' : typeof value
}
