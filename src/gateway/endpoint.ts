import { type CallToolResult, ProtocolError, type Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { RawResult } from '../backends/call.js'
import type { JsonObject } from '../json.js'
import type { GatewayCall } from './tool.js'

/** Which door a client came in by: the small tools, everything under direct names, or one server as it is. */
export type Entry = { readonly server: string } | { readonly expose?: 'direct' | undefined }

/** What a client is told when it connects. */
export interface Description {
  readonly capabilities: JsonObject
  readonly instructions?: string | undefined
  /** More about what is behind, for `_meta`. */
  readonly meta?: JsonObject | undefined
}

/** What somebody wants to hear of. */
export interface WatchFilter {
  readonly lists: readonly ('tools' | 'prompts' | 'resources')[]
  readonly uris: readonly string[]
}

/** The tool of a server that a call is for, under the names it may be meant by. */
export interface CallTarget {
  /** What the call is in the audit log. */
  readonly operation: string
  readonly server: string
  readonly tools: readonly string[]
  /** The agent that the call itself asks for. */
  readonly agentId?: string | undefined
}

/** What MCP offers behind one door. Results are in the words of 2026-07-28, `input_required` included. */
export interface Endpoint {
  /** The methods of requests that mean something here. */
  readonly methods: ReadonlySet<string>
  describe(call: GatewayCall): Promise<Description>
  /** Rejects with ProtocolError, or with a GatewayError for what is no fault of the request. */
  request(call: GatewayCall, method: string, params: JsonObject): Promise<RawResult>
  /** The input schema that a tool is listed with; undefined when the caller may not know of it, or it has nothing to do with headers. */
  inputSchema(call: GatewayCall, name: string): Promise<unknown>
  /** What a `tools/call` is for; undefined, or rejected, where it is for no tool of a server. */
  target(call: GatewayCall, name: string, args: unknown): Promise<CallTarget | undefined>
  /** The tools that this caller sees; what it costs to find out is paid by whoever listens for changes. */
  visibleTools(call: GatewayCall): Promise<readonly Tool[]>
  /** The servers behind this door, as far as this caller may use them. */
  backends(call: GatewayCall): readonly Backend[]
  /** Of these resources those of one server, under the names it knows; and the other way round. */
  ownUris(server: string, uris: readonly string[]): readonly string[]
  publicUri(server: string, uri: string): string
  /** Passes on what the client says about itself. */
  notify(call: GatewayCall, method: string, params: JsonObject): void
}

/** Cuts a result that costs the agent more than its rules allow. `requested` is the call's own `agent_id`. */
export type CutResult = (result: CallToolResult, call: GatewayCall, requested?: string) => CallToolResult

const INVALID_PARAMS = -32602
const METHOD_NOT_FOUND = -32601

export const methodNotFound = (): ProtocolError => new ProtocolError(METHOD_NOT_FOUND, 'Method not found')

/** The same for a tool that is not there and one that the caller may not see. */
export const unknownTool = (name: string): ProtocolError =>
  new ProtocolError(INVALID_PARAMS, `Unknown tool: ${name.slice(0, 128)}`)

export const invalidParams = (message: string, data?: unknown): ProtocolError =>
  new ProtocolError(INVALID_PARAMS, message, data)
