import type { CallToolResult, Progress, Tool } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { type Cancellation, type ClientPeer, ClientRefusal } from '../backends/call.js'
import type { CallOwner } from '../backends/session-pool.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import { resolveAgent } from '../identity/resolve-agent.js'
import type { JsonObject } from '../json.js'
import { entriesFor } from '../rules/compile.js'
import { type Decision, decide } from '../rules/decide.js'
import { featuresIn, missingFor } from './client-features.js'
import type { Snapshot } from './snapshot.js'

/** Who calls and how the call arrived. */
export interface Caller {
  readonly principal: Principal
  readonly era: 'legacy' | 'modern'
  /** Aborted when the caller no longer wants the answer. */
  readonly signal?: Cancellation | undefined
  /** Present when the caller asked for progress. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
  /** `_meta` of the request; what it says about this hop alone is dropped on the way. */
  readonly meta?: JsonObject | undefined
  /** The client, where there is a way back to it. */
  readonly client?: CallingClient | undefined
  /** What a client of 2026 brings along when it comes back with answers. */
  readonly retry?: { readonly inputResponses?: JsonObject; readonly requestState?: unknown } | undefined
}

/** The client behind a call, as far as a backend may turn to it. */
export interface CallingClient {
  /** Its client capabilities, as backends may hear of them. */
  readonly capabilities: JsonObject
  readonly logLevel?: string | undefined
  /** Its session with the gateway (2025). */
  readonly session?: ClientSession | undefined
  /** Puts a request to it while its own is under way; absent where there is no way. */
  readonly ask?: ClientPeer['ask'] | undefined
  readonly tell: ClientPeer['tell']
}

export interface ClientSession {
  readonly id: string
  /** Reaches it beside any request. */
  readonly peer: ClientPeer
}

const METHOD_NOT_FOUND = -32601

/** One call of one of the gateway's tools: one snapshot, and what the audit line will say, filled in as it becomes known. */
export class GatewayCall {
  readonly caller: Caller
  readonly snapshot: Snapshot
  agent: string | undefined
  server: string | undefined
  tool: string | undefined
  decision: Decision | undefined
  /** True where one client talks to one backend as if there were nobody in between. */
  readonly isOneToOne: boolean

  constructor(caller: Caller, snapshot: Snapshot, isOneToOne = false) {
    this.isOneToOne = isOneToOne
    this.caller = { ...caller, meta: withoutHopFields(caller.meta) }
    this.snapshot = snapshot
  }

  /** Settles the agent. Throws when the caller may not act as the one it asked for. */
  actAs(requested: string | undefined): string {
    this.agent = resolveAgent(this.snapshot.rules, this.caller.principal, requested)
    return this.agent
  }

  /** Decides without a trace, for lists. */
  permits(agent: string, server: string, tool?: string): boolean {
    return decide(this.snapshot.rules, { agent, server, tool }).decision === 'allow'
  }

  /** Decides and remembers the decision for the audit line. A server that is not configured is denied as if by a rule. */
  decide(agent: string, server: string, tool?: string): boolean {
    const decision = decide(this.snapshot.rules, { agent, server, tool })
    const isAbsent = decision.decision === 'allow' && !this.snapshot.backends.has(server)
    this.decision = isAbsent ? { decision: 'deny', rule: 'mcpServers', reason: 'no such server' } : decision
    return this.decision.decision === 'allow'
  }

  /**
   * For whom connections are kept apart: the agent by the entry that rules it, because names below an entry are for the caller to
   * make up.
   */
  get owner(): CallOwner {
    const [entry] = entriesFor(this.snapshot.rules, this.agent ?? '')
    const { client, principal } = this.caller
    return { agent: entry?.name ?? '', principal: principal.key, client: client && this.#ownClient(client) }
  }

  /** The client as a backend may turn to it while this call is under way. */
  get peer(): ClientPeer | undefined {
    const { client, principal } = this.caller
    if (!client) return undefined
    const { capabilities, logLevel, session, ask, tell } = client
    const takesLogs = logLevel !== undefined || (this.isOneToOne && session !== undefined)
    return { principal: principal.key, capabilities, logLevel, takesLogs, ask: gated(ask, capabilities), tell }
  }

  /** Clients that can be asked nothing may share a session, unless this entry is one session for one client. */
  #ownClient({ capabilities, session }: CallingClient): CallOwner['client'] {
    const features = featuresIn(capabilities)
    if (session) {
      return features || this.isOneToOne ? { key: session.id, capabilities, session: session.peer } : undefined
    }
    if (!features) return undefined
    // Nobody tells later that its roots have changed.
    const declared = features.roots ? { ...capabilities, roots: {} } : capabilities
    return { key: JSON.stringify([this.caller.principal.key, features]), capabilities: declared }
  }
}

/** Asks only what the client has declared. */
const gated =
  (ask: ClientPeer['ask'] | undefined, capabilities: JsonObject): ClientPeer['ask'] =>
  async request => {
    if (!ask || missingFor(request.method, request.params, capabilities) !== undefined)
      throw new ClientRefusal(METHOD_NOT_FOUND, `the client does not support ${request.method.slice(0, 100)}`)
    return ask(request)
  }

/** `_meta` without the envelope of 2026-07-28 and the progress token: they mean the hop to the gateway. */
function withoutHopFields(meta: Caller['meta']): Caller['meta'] {
  if (meta === undefined) return undefined
  const entries = Object.entries(meta).filter(
    ([key]) => key !== 'progressToken' && !key.startsWith('io.modelcontextprotocol/'),
  )
  return entries.length > 0 ? Object.fromEntries(entries) : undefined
}

/** One of the few tools that agents see. */
export interface GatewayTool {
  readonly definition: Tool
  run(call: GatewayCall, args: unknown): Promise<CallToolResult>
}

/** `agent_id`, which every tool takes. */
export const agentId = z.string().min(1).max(256).optional().describe('Agent to act as, if you may act as several')

/** A tool's name, description and schema as they are listed; the schema is written once, in zod. */
export function describeTool(
  name: string,
  description: string,
  schema: z.ZodType,
  annotations: Tool['annotations'],
): Tool {
  const { $schema: _dialect, ...inputSchema } = z.toJSONSchema(schema, { io: 'input' })
  return { name, description, inputSchema: inputSchema as Tool['inputSchema'], ...(annotations && { annotations }) }
}

/** Checks the arguments of one of the gateway's own tools. The error quotes the parameter's schema. */
export function parseArguments<T>(schema: z.ZodType<T>, args: unknown): T {
  const parsed = schema.safeParse(args ?? {})
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const path = (issue?.path ?? []).map(segment => `/${String(segment)}`).join('')
  const expected = z.toJSONSchema(schema, { io: 'input' })
  const parameter = expected.properties?.[String(issue?.path[0])]
  const message = `${path === '' ? 'the arguments' : path}: ${issue?.message ?? 'not valid'}`
  throw new GatewayError('INVALID_ARGUMENTS', message, {
    details: { path, schema: parameter ?? { properties: expected.properties, required: expected.required } },
  })
}

/** Structured content, and the same JSON as text for clients that read text only. */
export function toResult(content: Record<string, unknown>): CallToolResult {
  return { content: [{ type: 'text', text: JSON.stringify(content) }], structuredContent: content }
}

/** What a caller must not be able to tell apart. */
export const HIDDEN: ReadonlySet<string> = new Set(['DENIED_BY_POLICY', 'TOOL_NOT_FOUND'])

/** Denied, hidden and absent read the same: the refusal must not tell whether something exists. */
export function notAvailable(agent: string, server: string, tool?: string): GatewayError {
  return new GatewayError('DENIED_BY_POLICY', unavailableText(agent, server, tool), {
    details: { server, ...(tool !== undefined && { tool }) },
  })
}

export function unavailableText(agent: string, server: string, tool?: string): string {
  const what = tool === undefined ? `the server "${server}"` : `the tool "${tool}" on the server "${server}"`
  return `${what} is not available to the agent "${agent}": it does not exist, or the rules do not allow it`
}
