import type { CallToolResult, Progress, Tool } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { type Cancellation, type ClientPeer, ClientRefusal } from '../backends/call.js'
import type { CallOwner } from '../backends/session-pool.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import { resolveAgent } from '../identity/resolve-agent.js'
import type { JsonObject } from '../json.js'
import type { TraceFields } from '../observability/trace-context.js'
import type { ActiveSpan } from '../observability/tracing.js'
import { entriesFor, rolesOf } from '../rules/compile.js'
import type { Facts } from '../rules/conditions.js'
import { type Decision, decide } from '../rules/decide.js'
import { missingScopes, scopesFor } from '../rules/scopes.js'
import { featuresIn, missingFor } from './client-features.js'
import { type Confirmation, Confirmations } from './confirmation.js'
import { Admission } from './limits.js'
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
  /** The trace that the transport belongs to, for a request that names none itself. */
  readonly transportTrace?: TraceFields | undefined
  /** Says more about the span of the request, where there is one. */
  readonly note?: ActiveSpan['note'] | undefined
  /** The client, where there is a way back to it. */
  readonly client?: CallingClient | undefined
  /** What a client of 2026 brings along when it comes back with answers. */
  readonly retry?: { readonly inputResponses?: JsonObject; readonly requestState?: unknown } | undefined
  /** Hears which call its request has become. */
  readonly onCall?: ((call: GatewayCall) => void) | undefined
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

/** Scopes that a call needs, and those of them that the token does not have. */
export interface LackingScopes {
  readonly required: readonly string[]
  readonly missing: readonly string[]
}

export interface CallOptions {
  /** The server whose door the call came in by. */
  readonly onlyServer?: string | undefined
  /** Where questions wait for their answers from one request to the next. */
  readonly confirmations?: Confirmations
}

/** A tool by its name, or by its definition where that is known. */
type ToolRef = string | { readonly name: string; readonly annotations?: unknown }

/** One call of one of the gateway's tools: one snapshot, and what the audit line will say, filled in as it becomes known. */
export class GatewayCall {
  readonly caller: Caller
  readonly snapshot: Snapshot
  agent: string | undefined
  server: string | undefined
  tool: string | undefined
  decision: Decision | undefined
  /** What became of the question, where the rules want a person to be asked. */
  confirmation: Confirmation | undefined
  #confirmations: Confirmations | undefined
  /** True for a request that only answers what the one before was asked. */
  #isAnswer: boolean | undefined
  /** True where one client talks to one backend as if there were nobody in between. */
  readonly isOneToOne: boolean
  /** The server whose door the call came in by. */
  readonly onlyServer: string | undefined
  readonly #admission: Admission | undefined

  constructor(caller: Caller, snapshot: Snapshot, { onlyServer, confirmations }: CallOptions = {}) {
    this.onlyServer = onlyServer
    this.isOneToOne = onlyServer !== undefined
    this.#confirmations = confirmations
    this.caller = { ...caller, meta: withoutHopFields(caller.meta) }
    this.snapshot = snapshot
    this.#admission = snapshot.limits && new Admission(snapshot.limits)
  }

  get confirmations(): Confirmations {
    this.#confirmations ??= new Confirmations()
    return this.#confirmations
  }

  /** Settles the agent. Throws when the caller may not act as the one it asked for. */
  actAs(requested: string | undefined): string {
    this.agent = resolveAgent(this.snapshot.rules, this.caller.principal, requested)
    return this.agent
  }

  /** Takes its share of what the limits leave for whom it is known to be about. Rejects with RATE_LIMITED. */
  async admit(): Promise<void> {
    if (!this.#admission) return
    const { agent, server, tool, caller } = this
    const { principal, retry } = caller
    // Asked once: afterwards the state is spent.
    this.#isAnswer ??= retry !== undefined && this.#confirmations?.awaits(retry, principal.key) === true
    const agents = entriesFor(this.snapshot.rules, agent ?? '').map(({ name }) => name)
    await this.#admission.admit({ principal, agents, agent, server, tool }, { isCounted: !this.#isAnswer })
  }

  /** It is over: what it held of the limits is free again. */
  end(): void {
    this.#admission?.end()
  }

  /** Decides without a trace, for lists: whether there may be a call that the rules allow, asking first included. */
  permits(agent: string, server: string, tool?: ToolRef): boolean {
    const known = typeof tool === 'object' ? { tool: tool.name, definition: tool } : { tool }
    const { principal: caller } = this.caller
    return decide(this.snapshot.rules, { agent, server, caller, ...known }).decision !== 'deny'
  }

  /**
   * Decides by what is known so far, and remembers the decision for the audit line. A server that is not configured is denied as if
   * by a rule.
   */
  decide(agent: string, server: string, tool?: string, facts: Omit<Facts, 'caller'> = {}): boolean {
    const { principal: caller } = this.caller
    const decision = decide(this.snapshot.rules, { agent, server, tool, caller, ...facts })
    const isAbsent = decision.decision !== 'deny' && !this.snapshot.backends.has(server)
    this.decision = isAbsent ? { decision: 'deny', rule: 'mcpServers', reason: 'no such server' } : decision
    return this.decision.decision !== 'deny'
  }

  /**
   * The scopes that the caller's token needs for a tool and does not have, with all that it needs; undefined when it has them, and
   * for the person at this machine, who needs none.
   */
  lackingScopes(server: string, tools: readonly string[]): LackingScopes | undefined {
    const needed = this.caller.principal.isLocal ? undefined : scopesFor(this.snapshot.rules, server, tools)
    const missing = needed && missingScopes(needed.scopes, this.caller.principal.scopes ?? [])
    if (!needed || !missing || missing.length === 0) return undefined
    const reason = `the token lacks ${missing.join(' ')}`
    this.decision = { decision: 'deny', rule: needed.rule, reason }
    return { required: needed.scopes, missing }
  }

  /**
   * For whom connections are kept apart: the agent by the entry that rules it, because names below an entry are for the caller to
   * make up.
   */
  get owner(): CallOwner {
    const { rules } = this.snapshot
    const [entry] = entriesFor(rules, this.agent ?? '')
    const { client, principal } = this.caller
    // A name that no agent can have.
    const byRole = () => ['roles', ...rolesOf(rules, principal).map(({ name }) => name)].join(' ')
    return { agent: entry?.name ?? byRole(), principal: principal.key, client: client && this.#ownClient(client) }
  }

  /** The client as a backend may turn to it while this call is under way. */
  get peer(): ClientPeer | undefined {
    const { client, principal } = this.caller
    if (!client) return undefined
    const { capabilities, logLevel, session, ask, tell } = client
    const takesLogs = logLevel !== undefined || (this.isOneToOne && session !== undefined)
    return {
      principal: principal.key,
      capabilities,
      logLevel,
      takesLogs,
      ask: this.#pausing(gated(ask, capabilities)),
      tell,
    }
  }

  /** A call that waits for a person is not at work. */
  #pausing(ask: ClientPeer['ask']): ClientPeer['ask'] {
    const admission = this.#admission
    if (!admission) return ask
    return async request => {
      const resume = admission.pause()
      try {
        return await ask(request)
      } finally {
        resume()
      }
    }
  }

  /** Clients that can be asked nothing may share a session, unless this entry is one session for one client. */
  #ownClient({ capabilities, session }: CallingClient): CallOwner['client'] {
    const features = featuresIn(capabilities)
    if (session) {
      return features || this.isOneToOne ? { key: session.id, capabilities, session: session.peer } : undefined
    }
    if (!features) return undefined
    // Nobody tells later that its roots have changed.
    const declared = features.roots ? { ...features, roots: {} } : features
    return { key: JSON.stringify([this.caller.principal.key, declared]), capabilities: declared }
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

/** Whether this is one of the refusals that a caller must not be able to tell apart. */
export const hidesExistence = (error: GatewayError): boolean =>
  error.code === 'TOOL_NOT_FOUND' || error instanceof NotAvailable

class NotAvailable extends GatewayError {}

/** Denied, hidden and absent read the same: the refusal must not tell whether something exists. */
export function notAvailable(agent: string, server: string, tool?: string): GatewayError {
  return new NotAvailable('DENIED_BY_POLICY', unavailableText(agent, server, tool), {
    details: { server, ...(tool !== undefined && { tool }) },
  })
}

export function unavailableText(agent: string, server: string, tool?: string): string {
  const what = tool === undefined ? `the server "${server}"` : `the tool "${tool}" on the server "${server}"`
  return `${what} is not available to the agent "${agent}": it does not exist, or the rules do not allow it`
}
