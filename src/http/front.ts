import type { McpRequestContext, Server } from '@modelcontextprotocol/server'
import type { GatewayError } from '../errors/gateway-error.js'
import type { Principal } from '../identity/principal.js'
import type { JsonObject } from '../json.js'
import type { TraceFields } from '../observability/trace-context.js'

/** The door that a request came to: `/mcp`, or `/servers/NAME/mcp`. */
export type Entry = { readonly server: string } | { readonly expose?: 'direct' | undefined }

/** Who calls, as far as HTTP knows. */
export interface HttpCaller {
  readonly principal: Principal
  readonly era: 'legacy' | 'modern'
  readonly signal?: Cancellation | undefined
  readonly meta?: JsonObject | undefined
  /** The trace that the HTTP request belongs to. */
  readonly transportTrace?: TraceFields | undefined
}

/** The parts of an AbortSignal that a call needs. */
export type Cancellation = Pick<AbortSignal, 'aborted'> & {
  addEventListener(type: 'abort', listener: () => void): void
  removeEventListener(type: 'abort', listener: () => void): void
}

/** What a `subscriptions/listen` asks for. */
export interface ListenFilter {
  readonly lists: readonly ('tools' | 'prompts' | 'resources')[]
  readonly uris: readonly string[]
}

export type Change =
  | { readonly kind: 'tools' | 'prompts' | 'resources' }
  | { readonly kind: 'resource'; readonly uri: string; readonly params: JsonObject }

/** All the scopes that a call needs, and those of them that its token does not have. */
export interface LackingScopes {
  readonly required: readonly string[]
  readonly missing: readonly string[]
}

/** What is behind the front door: MCP, without a transport. */
export interface Front {
  /** Why this caller may not come in here; undefined when it may. */
  refusal(entry: Entry, principal: Principal): GatewayError | undefined
  /** Calls back when rules or servers have changed, until the returned function is called. */
  onSwap(listener: () => void): () => void
  /** The SDK's server for one exchange or one session. */
  createServer(entry: Entry, context: McpRequestContext): Server
  /** The same, once it is known what there is to declare; after that time it declares everything. */
  createDeclaringServer(entry: Entry, context: McpRequestContext, patienceMs: number): Promise<Server>
  /** Calls a tool without the SDK. Never rejects. */
  callPlainly(
    entry: Entry,
    call: { readonly name: string; readonly args: unknown },
    caller: HttpCaller,
  ): Promise<{ readonly result: JsonObject } | { readonly error: JsonObject }>
  /** What a token lacks for a call that is otherwise permitted; undefined when nothing. */
  lackingScopes(
    entry: Entry,
    call: { readonly name: string; readonly args: unknown },
    caller: HttpCaller,
  ): Promise<LackingScopes | undefined> | undefined
  /** What is wrong with the headers that repeat parameters; undefined when nothing is. */
  headerProblem(
    entry: Entry,
    call: { readonly name: string; readonly args: JsonObject },
    header: (name: string) => string | undefined,
    caller: HttpCaller,
  ): Promise<string | undefined>
  watch(entry: Entry, caller: HttpCaller, filter: ListenFilter, onChange: (change: Change) => void): Promise<() => void>
}
