import { hash } from 'node:crypto'
import { type CallToolResult, ProtocolError, type Tool } from '@modelcontextprotocol/server'
import type { RawResult } from '../backends/call.js'
import { parameterHeaderProblem } from '../backends/parameter-headers.js'
import type { BackendChange } from '../backends/server-messages.js'
import { toToolResult } from '../errors/faces.js'
import { GatewayError, messageOf, toGatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import { inOrder, type JsonObject } from '../json.js'
import type { Tracing } from '../observability/tracing.js'
import { resultBudgetOf } from '../rules/compile.js'
import { type AuditedOptions, createAudited } from './audited.js'
import { relayedCapabilities } from './client-features.js'
import { Confirmations } from './confirmation.js'
import { DirectEndpoint } from './direct-endpoint.js'
import { isExposedDirectly } from './direct-mode.js'
import { DiscoverEndpoint } from './discover-endpoint.js'
import type { CutResult, Description, Endpoint, Entry, WatchFilter } from './endpoint.js'
import { executeTool } from './execute-tool.js'
import { createGetGatewayStatus } from './get-gateway-status.js'
import { getServerTools } from './get-server-tools.js'
import { InputRounds, isInputRequired } from './input-rounds.js'
import { KeptResults } from './kept-results.js'
import { listServers } from './list-servers.js'
import { toFailedCall, toProtocolError, toUrlElicitation } from './protocol-errors.js'
import { createReadResult, keepFor } from './read-result.js'
import { withinBudget } from './result-budget.js'
import type { Runtime } from './runtime.js'
import { SealedState } from './sealed-state.js'
import { searchTools } from './search-tools.js'
import { ServerEndpoint } from './server-endpoint.js'
import { toServerSpan } from './spans.js'
import { type Caller, GatewayCall, type LackingScopes, notAvailable } from './tool.js'
import { Watch } from './watch.js'

export interface FrontOptions extends AuditedOptions {
  readonly runtime: Runtime
  readonly tracing?: Tracing | undefined
  /** Also offer get_gateway_status. */
  readonly debug: boolean
}

const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities'

/** Requests that may be answered with questions first (2026-07-28, "Multi Round-Trip Requests"). */
const MAY_ASK: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read'])

/** MCP as clients get it, whichever door and transport they come by. */
export class Front {
  readonly #runtime: Runtime
  readonly #rounds: InputRounds
  readonly #sealed = new SealedState()
  readonly #confirmations = new Confirmations()
  readonly #audited: ReturnType<typeof createAudited>
  readonly #discover: DiscoverEndpoint
  readonly #direct: DirectEndpoint
  readonly #cut: CutResult
  readonly #tracing: Tracing | undefined

  constructor({ runtime, debug, tracing, ...options }: FrontOptions) {
    this.#runtime = runtime
    this.#rounds = new InputRounds(call => this.#isStillPermitted(call))
    this.#tracing = tracing
    this.#audited = createAudited(options)
    const kept = new KeptResults()
    const tools = [
      listServers,
      searchTools,
      getServerTools,
      executeTool,
      ...(debug ? [createGetGatewayStatus(runtime)] : []),
    ]
    const cut: CutResult = (result, call, requested) => {
      const budget = resultBudgetOf(call.snapshot.rules, call.agent ?? '', call.caller.principal)
      return isInputRequired(result) ? result : withinBudget(result, budget, keepFor(kept, call, requested))
    }
    const common = { runtime, audited: this.#audited, cut }
    this.#discover = new DiscoverEndpoint({ ...common, tools, readResult: createReadResult(kept) })
    this.#direct = new DirectEndpoint({ ...common, small: this.#discover })
    this.#cut = cut
    this.smallTools = tools.map(({ definition }) => definition)
  }

  /** The definitions of the small tools. */
  readonly smallTools: readonly Tool[]

  /** Why this caller may not come in by this door; the same for a server that is not there and one it may not use. */
  refusal(entry: Entry, principal: Principal): GatewayError | undefined {
    if (!('server' in entry)) return undefined
    const call = this.#call(entry, { principal, era: 'modern' })
    try {
      const agent = call.actAs(undefined)
      return call.decide(agent, entry.server) ? undefined : notAvailable(agent, entry.server)
    } catch (error) {
      return toGatewayError(error)
    }
  }

  /** Whether a request of this method means anything at this door. */
  has(entry: Entry, method: string, principal: Principal): boolean {
    return this.#endpoint(entry, { principal }).methods.has(method)
  }

  /** Calls back when the rules or the servers are others, until the returned function is called. */
  onSwap(listener: () => void): () => void {
    return this.#runtime.onSwap(listener)
  }

  /** What to tell a client that connects. Rejects with ProtocolError. */
  async describe(entry: Entry, caller: Caller): Promise<Description> {
    try {
      return await this.#endpoint(entry, caller).describe(this.#call(entry, caller))
    } catch (error) {
      throw toProtocolError(error, caller.era)
    }
  }

  /** Answers a request. Rejects with ProtocolError. */
  request(entry: Entry, method: string, params: JsonObject, caller: Caller): Promise<RawResult> {
    if (!this.#tracing) return this.#answer(entry, method, params, caller)
    return this.#tracing.span(toServerSpan(method, params, caller), ({ meta, note }) =>
      this.#answer(entry, method, params, { ...caller, meta, note }),
    )
  }

  async #answer(entry: Entry, method: string, params: JsonObject, caller: Caller): Promise<RawResult> {
    try {
      if (!MAY_ASK.has(method)) return await this.#serve(entry, method, params, caller)
      const serve = (asking: Caller) => this.#serveAsking(entry, method, params, asking)
      return await this.#rounds.run(caller, () => bindingOf(entry, method, params, caller), serve)
    } catch (error) {
      const failed = method === 'tools/call' ? toFailedCall(error) : undefined
      if (failed) return failed
      throw toProtocolError(error, caller.era)
    }
  }

  /**
   * A `tools/call` of which nothing is wanted but the result: the lane without the SDK. Never rejects. A client of 2026 may still
   * be asked something: it comes back with the answer on the other lane.
   */
  async callPlainly(
    entry: Entry,
    { name, args }: { readonly name: string; readonly args: unknown },
    caller: Caller,
  ): Promise<{ readonly result: RawResult } | { readonly error: JsonObject }> {
    try {
      const params = { name, ...(args !== undefined && { arguments: args }) }
      return { result: await this.request(entry, 'tools/call', params, withClient(caller)) }
    } catch (error) {
      const { code, message, data } = toProtocolError(error, caller.era)
      return { error: { code, message, ...(data !== undefined && { data }) } }
    }
  }

  /** Calls one of the small tools for the person at this machine. Never rejects: every failure is a tool result. */
  async callSmallTool(name: string, args: unknown, caller: Caller): Promise<CallToolResult> {
    try {
      return await this.#discover.callTool(new GatewayCall(caller, this.#runtime.current), name, args)
    } catch (error) {
      const message = error instanceof ProtocolError ? error.message : messageOf(error)
      return toToolResult(new GatewayError('TOOL_NOT_FOUND', message)) as CallToolResult
    }
  }

  /**
   * What is wrong with the `Mcp-Param-*` headers of a `tools/call` (2026-07-28, "Custom Headers from Tool Parameters"); undefined
   * when they agree with the body, and for tools that cannot be had.
   */
  async headerProblem(
    entry: Entry,
    { name, args }: { readonly name: string; readonly args: JsonObject },
    header: (name: string) => string | undefined,
    caller: Pick<Caller, 'principal' | 'era' | 'signal'>,
  ): Promise<string | undefined> {
    const endpoint = this.#endpoint(entry, caller)
    if (endpoint === this.#discover) return undefined
    const schema = await endpoint.inputSchema(this.#call(entry, caller), name).catch(() => undefined)
    return schema === undefined ? undefined : parameterHeaderProblem(schema, args, header)
  }

  /**
   * The scopes that a token needs for a `tools/call` and does not have; undefined when it has them, and for calls that are refused
   * for other reasons. Nothing is asked of any scope where the rules name none.
   */
  lackingScopes(
    entry: Entry,
    call: { readonly name: string; readonly args: unknown },
    caller: Pick<Caller, 'principal' | 'era'>,
  ): Promise<LackingScopes | undefined> | undefined {
    return this.#runtime.current.rules.scopes.length === 0 ? undefined : this.#lackingScopes(entry, call, caller)
  }

  async #lackingScopes(
    entry: Entry,
    { name, args }: { readonly name: string; readonly args: unknown },
    caller: Pick<Caller, 'principal' | 'era'>,
  ): Promise<LackingScopes | undefined> {
    const call = this.#call(entry, caller)
    try {
      const target = await this.#endpoint(entry, caller).target(call, name, args)
      if (!target) return undefined
      const { operation, server } = target
      const agent = call.actAs(target.agentId)
      call.server = server
      call.tool = target.tools.at(-1)
      // More scopes do not help where the rules say no.
      const tools = target.tools.filter(tool => call.decide(agent, server, tool))
      const lacking = call.lackingScopes(server, tools)
      if (lacking) this.#audited.refused(operation, call, 'DENIED_BY_POLICY')
      return lacking
    } catch {
      return undefined // the call itself says what is wrong with it
    }
  }

  /** Calls back with changes of what this caller sees, until the returned function is called. Rejects with ProtocolError. */
  async watch(
    entry: Entry,
    caller: Caller,
    filter: WatchFilter,
    onChange: (change: BackendChange) => void,
  ): Promise<() => void> {
    const asking = withClient(caller)
    const look = () => ({ endpoint: this.#endpoint(entry, asking), call: this.#call(entry, asking) })
    const watch = new Watch({ look, filter, onChange })
    const unsubscribe = this.#runtime.onSwap(() => void watch.renew())
    try {
      await watch.open()
    } catch (error) {
      unsubscribe()
      watch.close()
      throw toProtocolError(error, caller.era)
    }
    return () => {
      unsubscribe()
      watch.close()
    }
  }

  /** Passes on what a client says about itself; nobody waits for that. */
  notify(entry: Entry, method: string, params: JsonObject, caller: Caller): void {
    try {
      this.#endpoint(entry, caller).notify(this.#call(entry, caller), method, params)
    } catch {
      // It may not use the server, or no longer.
    }
  }

  /** The client with this session is gone. */
  release(sessionId: string): void {
    for (const backend of this.#runtime.current.backends.values()) backend.release(sessionId)
  }

  /** Nobody comes back any more. */
  close(): void {
    this.#rounds.close()
  }

  #serve(entry: Entry, method: string, params: JsonObject, caller: Caller): Promise<RawResult> {
    const call = this.#call(entry, caller)
    caller.onCall?.(call)
    const serve = () => this.#endpoint(entry, caller).request(call, method, params)
    return call.snapshot.limits && !MAY_ASK.has(method) ? withinLimits(call, serve) : serve()
  }

  async #serveAsking(entry: Entry, method: string, params: JsonObject, caller: Caller): Promise<RawResult> {
    try {
      return await this.#serve(entry, method, params, caller)
    } catch (error) {
      const elicitation = caller.era === 'modern' ? toUrlElicitation(error) : undefined
      if (elicitation) return elicitation
      throw error
    }
  }

  /** By the rules of now: a call that waits for its client may have been begun by others. */
  #isStillPermitted({ caller, agent, server, tool }: GatewayCall): boolean {
    const { current } = this.#runtime
    if (agent === undefined || server === undefined) return true // nothing has been decided yet, so nothing was allowed
    return current.backends.has(server) && new GatewayCall(caller, current).permits(agent, server, tool)
  }

  #call(entry: Entry, caller: Caller): GatewayCall {
    const onlyServer = 'server' in entry ? entry.server : undefined
    return new GatewayCall(caller, this.#runtime.current, { onlyServer, confirmations: this.#confirmations })
  }

  #endpoint(entry: Entry, { principal }: Pick<Caller, 'principal'>): Endpoint {
    if ('server' in entry) {
      const options = { runtime: this.#runtime, audited: this.#audited, sealed: this.#sealed }
      return new ServerEndpoint(entry.server, { ...options, cut: this.#cut, small: this.#discover })
    }
    const isDirect = entry.expose === 'direct' || isExposedDirectly(this.#runtime.current, { principal })
    return isDirect ? this.#direct : this.#discover
  }
}

/** For what leaves no line in the audit log, and is counted all the same. */
async function withinLimits<T>(call: GatewayCall, serve: () => Promise<T>): Promise<T> {
  try {
    call.actAs(undefined)
  } catch {
    // Whether there has to be an agent is for the endpoint to say.
  }
  try {
    await call.admit()
    return await serve()
  } finally {
    call.end()
  }
}

/** With the client as the envelope of 2026-07-28 describes it; nothing can be said to it but the answer. */
function withClient(caller: Caller): Caller {
  if (caller.client || caller.era === 'legacy') return caller
  return { ...caller, client: { capabilities: relayedCapabilities(caller.meta?.[CAPABILITIES]), tell: () => {} } }
}

/** What a request is about: only the same principal, asking the same again, may come back with the state it was given. */
function bindingOf(entry: Entry, method: string, params: JsonObject, { principal }: Caller): readonly unknown[] {
  const digest = hash('sha256', JSON.stringify(inOrder(params)), 'base64')
  return [principal.key, [...principal.agents].sort(), entry, method, digest]
}
