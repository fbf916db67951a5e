import { pickWeighted, type Random } from './fuzz-random.js'

export type Params = Readonly<Record<string, unknown>>
export type Call = readonly [method: string, params: Params]

/** What an attacker has got hold of: its own, and names of things that are somebody else's. */
export interface Loot {
  /** Its own sessions, with the path where they were begun. */
  readonly sessions: readonly { readonly id: string; readonly target: string }[]
  readonly handles: readonly string[]
  readonly pending: readonly PendingCall[]
  /** The victim's session, and a handle of a result that is kept for it. */
  readonly foreignSession: string
  readonly foreignHandle: string
}

/** A call that wants answers before it goes on. */
export interface PendingCall {
  readonly target: string
  readonly params: Params
  readonly requestState: string
  /** What the answers are called. */
  readonly keys: readonly string[]
}

/** What a request is made of. */
export interface Draft {
  readonly random: Random
  readonly loot: Loot
  /** Stands in everything that may be echoed, so that answers can be told apart. */
  readonly nonce: string
}

export const SERVERS = ['shop', 'new', 'shop', 'new', 'vault', 'nowhere']

/** A call of one of the gateway's own tools. */
export function smallTool(draft: Draft): Params {
  const { random, nonce, loot } = draft
  const handles = [loot.foreignHandle, nonce, ...loot.handles]
  const call = (name: string, args: unknown) => ({ name, arguments: args })
  return pickWeighted<() => Params>(random, [
    [14, () => call('execute_tool', backendCall(draft))],
    [2, () => call('execute_tool', { tool: 'execute_tool', args: backendCall(draft) })],
    [2, () => call('list_servers', { include_metadata: random.chance(0.5) })],
    [2, () => call('search_tools', { query: `list tables ${nonce}`, limit: 3 })],
    [2, () => call('get_server_tools', { server: random.pick(SERVERS), pattern: 'l*', max_schema_tokens: 50 })],
    [2, () => call('read_result', { handle: random.pick(handles), offset: random.below(100), limit: 200 })],
    [1, () => call('get_gateway_status', {})],
    [1, () => call(nonce, {})],
  ])()
}

function backendCall(draft: Draft): Params {
  const { random } = draft
  const { server, name, arguments: args } = someTool(draft)
  return {
    server,
    tool: random.chance(0.1) ? `${server}__${name}` : name,
    args: random.chance(0.1) ? JSON.stringify(args) : args,
    ...(random.chance(0.1) && { timeout_ms: 500 }),
    ...(random.chance(0.1) && { agent_id: random.pick(['attacker', 'attacker.part', 'victim', 'nobody']) }),
  }
}

interface BackendTool {
  readonly server: string
  readonly name: string
  readonly arguments: Params
}

/** A tool of a server behind, mostly of the one that has it. */
export function someTool({ random, nonce }: Draft, wanted?: string): BackendTool {
  const tools: readonly [string, string, Params][] = [
    ['shop', 'free', { nonce, list: [1, { deep: nonce }] }],
    ['shop', 'free', { nonce, text: nonce.repeat(random.below(400)) }],
    ['shop', 'query', { sql: `select ${nonce}`, limit: 2 }],
    ['shop', 'query', { sql: `delete ${nonce}` }],
    ['shop', 'note', { text: nonce }],
    ['shop', 'wrapped', { args: JSON.stringify({ nonce }) }],
    ['shop', 'list_tables', {}],
    ['shop', 'list_views', { schema: nonce }],
    ['shop', 'drop_table', { name: nonce }],
    ['shop', 'failing', {}],
    ['shop', 'refusing', {}],
    ['shop', 'dying', {}],
    ['new', 'talk', { label: nonce }],
    ['new', 'ask', { label: nonce, kind: random.pick(['sampling', 'elicitation']) }],
    ['new', 'ask_twice', { label: nonce }],
    ['new', 'touch', { uri: `note://${nonce}` }],
    ['new', 'regional', { region: nonce, shard: 5 }],
  ]
  const own = tools.filter(([server]) => server === wanted)
  const [server, name, args] = random.pick(own.length > 0 ? own : tools)
  return { server: random.chance(0.15) ? random.pick(SERVERS) : server, name, arguments: args }
}

export function directTool(draft: Draft): Params {
  const { server, name, arguments: args } = someTool(draft)
  return { name: `${server}__${name}`, arguments: args }
}

/** What MCP has beside tools. */
export function feature({ random, nonce }: Draft): Call {
  const uri = random.pick([
    'note://1',
    `note://${nonce}`,
    'gateway://new/note://2',
    'gateway://vault/note://1',
    'gateway://%/x',
  ])
  const ref = random.pick<Params>([
    { type: 'ref/prompt', name: 'new__greet' },
    { type: 'ref/resource', uri },
  ])
  return random.pick<Call>([
    ['prompts/list', {}],
    ['prompts/get', { name: random.pick(['greet', 'new__greet', nonce]), arguments: { who: nonce } }],
    ['resources/list', random.chance(0.5) ? {} : { cursor: nonce }],
    ['resources/templates/list', {}],
    ['resources/read', { uri }],
    ['resources/subscribe', { uri }],
    ['resources/unsubscribe', { uri }],
    ['completion/complete', { ref, argument: { name: 'who', value: nonce } }],
    ['logging/setLevel', { level: random.pick(['debug', 'error', nonce]) }],
    ['tasks/get', { taskId: nonce }],
  ])
}

export const listening = ({ random, nonce }: Draft): Params => ({
  notifications: {
    toolsListChanged: random.chance(0.5),
    promptsListChanged: random.chance(0.5),
    resourceSubscriptions: random.chance(0.5) ? [`note://${nonce}`, 'note://1'] : [],
  },
})
