import { initialize, modern as modernRequest, VERSION_2025 } from '../fixtures/http-clients.js'
import {
  type Call,
  type Draft,
  directTool,
  feature,
  listening,
  type Params,
  type PendingCall,
  SERVERS,
  smallTool,
  someTool,
} from './fuzz-calls.js'
import { pickWeighted } from './fuzz-random.js'

/** A request before it is put into bytes. */
export interface DraftRequest {
  readonly kind: string
  method: string
  target: string
  headers: [name: string, value: string][]
  /** JSON, if there is a body. */
  body?: unknown
}

export const FRAMINGS = ['length', 'chunked', 'short', 'long', 'both', 'twice', 'none', 'pipelined'] as const

/** A request in which something is not as it should be. */
export interface BrokenRequest extends DraftRequest {
  /** The body, once it is no JSON any more. */
  text: Buffer | undefined
  framing: (typeof FRAMINGS)[number]
  /** Where it ends is anybody's guess. */
  isRaw: boolean
  hangsUp: boolean
}

const ELICITATION = { elicitation: { form: {} } }
const ASKING = { ...ELICITATION, sampling: {}, roots: { listChanged: true } }
const CAPABILITIES: readonly Params[] = [{}, {}, {}, ELICITATION, ASKING]
const BOTH_KINDS = 'application/json, text/event-stream'

/** An ordinary request of an ordinary client, of either era, at any door. */
export function draftRequest(draft: Draft): DraftRequest {
  return pickWeighted(draft.random, KINDS)(draft)
}

const DIRECT = '/mcp?expose=direct'
const KINDS: readonly (readonly [number, (draft: Draft) => DraftRequest])[] = [
  [30, draft => modern(draft, { kind: 'call', target: '/mcp', call: ['tools/call', smallTool(draft)] })],
  [8, draft => modern(draft, { kind: 'list', target: anyDoor(draft), call: ['tools/list', {}] })],
  [12, draft => modern(draft, { kind: 'direct', target: DIRECT, call: ['tools/call', directTool(draft)] })],
  [12, draft => atServer(draft)],
  [16, draft => modern(draft, { kind: 'feature', target: otherDoor(draft), call: feature(draft) })],
  [
    2,
    draft =>
      modern(draft, { kind: 'listen', target: anyDoor(draft), call: ['subscriptions/listen', listening(draft)] }),
  ],
  [2, draft => modern(draft, { kind: 'discover', target: anyDoor(draft), call: ['server/discover', {}] })],
  [4, draft => goingOn(draft)],
  [10, draft => legacy({ kind: 'legacy', target: anyDoor(draft), body: anyMessage(draft) })],
  [
    3,
    draft =>
      legacy({ kind: 'batch', target: '/mcp', body: batch(draft), headers: { 'MCP-Protocol-Version': '2025-03-26' } }),
  ],
  [3, draft => beginning(draft)],
  [14, draft => inSession(draft)],
  [3, draft => streamOfSession(draft)],
  [6, draft => plain(draft)],
]

interface Modern {
  readonly kind: string
  readonly target: string
  readonly call: Call
}

function modern({ random }: Draft, { kind, target, call: [method, params] }: Modern): DraftRequest {
  const options = {
    id: random.pick([1, 2, 'a', `id-${random.below(1_000)}`]),
    capabilities: random.pick(CAPABILITIES),
    ...(random.chance(0.05) && { logLevel: 'debug' }),
  }
  const _meta = random.chance(0.1) ? { progressToken: random.below(100) } : undefined
  const { headers = {}, body } = modernRequest('', method, { ...params, ...(_meta && { _meta }) }, options)
  return { kind, method: 'POST', target, headers: toPairs(headers), body: JSON.parse(String(body)) }
}

interface Legacy {
  readonly kind: string
  readonly target: string
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

function legacy({ kind, target, body, headers = {} }: Legacy): DraftRequest {
  const common = { 'Content-Type': 'application/json', Accept: BOTH_KINDS, 'MCP-Protocol-Version': VERSION_2025 }
  return { kind, method: 'POST', target, headers: toPairs({ ...common, ...headers }), body }
}

/** The Authorization header comes later. */
const toPairs = (headers: Readonly<Record<string, string | string[]>>): [string, string][] =>
  Object.entries(headers).flatMap(([name, value]) => (name === 'authorization' ? [] : [[name, String(value)]]))

const anyDoor = ({ random }: Draft): string =>
  random.pick(['/mcp', '/mcp', '/mcp', DIRECT, '/servers/shop/mcp', '/servers/new/mcp', '/servers/nowhere/mcp'])
const otherDoor = ({ random }: Draft): string => random.pick([DIRECT, '/servers/new/mcp', '/servers/shop/mcp'])

function anyMessage(draft: Draft) {
  const { random } = draft
  const [method, params] = random.pick<() => Call>([
    () => ['tools/call', smallTool(draft)],
    () => ['tools/call', directTool(draft)],
    () => ['tools/list', {}],
    () => ['ping', {}],
    () => feature(draft),
    () => feature(draft),
  ])()
  return { jsonrpc: '2.0', id: random.pick([0, 1, 2, 3, 'a', 'b', `id-${random.below(1_000)}`]), method, params }
}

const batch = (draft: Draft): unknown[] => Array.from({ length: 1 + draft.random.below(5) }, () => anyMessage(draft))

function atServer(draft: Draft): DraftRequest {
  const server = draft.random.pick(SERVERS)
  const { name, arguments: args } = someTool(draft, server)
  const call: Call = ['tools/call', { name, arguments: args }]
  return modern(draft, { kind: 'server', target: `/servers/${server}/mcp`, call })
}

/** Comes back with answers: to a call that wants them, or to another one. */
function goingOn(draft: Draft): DraftRequest {
  const { random, loot, nonce } = draft
  const strange: PendingCall = { target: '/mcp', params: {}, requestState: nonce, keys: [nonce] }
  const { target, params, requestState, keys } = random.pick([strange, ...loot.pending])
  const answer = random.pick<unknown>([{ action: 'accept', content: {} }, { action: 'decline' }, null])
  const inputResponses = Object.fromEntries(keys.map(key => [key, answer]))
  const asked = random.chance(0.6) ? params : smallTool(draft)
  return modern(draft, { kind: 'going on', target, call: ['tools/call', { ...asked, inputResponses, requestState }] })
}

// A session at the door of a server of 2025 is a process of its own, and so is a client there that can be asked things.
function beginning({ random }: Draft): DraftRequest {
  const target = random.chance(0.02) ? '/servers/shop/mcp' : random.pick(['/mcp', DIRECT, '/servers/new/mcp'])
  const capabilities = random.chance(0.02) ? random.pick(CAPABILITIES) : {}
  return legacy({ kind: 'initialize', target, body: initialize({ capabilities }) })
}

function sessionOf({ random, loot }: Draft) {
  const { id, target } = random.pick([{ id: loot.foreignSession, target: '/mcp' }, ...loot.sessions])
  return { target, headers: { 'Mcp-Session-Id': id } }
}

function inSession(draft: Draft): DraftRequest {
  const { random } = draft
  const { target, headers } = sessionOf(draft)
  const body = pickWeighted<() => unknown>(random, [
    [3, () => ({ jsonrpc: '2.0', method: 'notifications/initialized' })],
    [2, () => ({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: random.below(4) } })],
    [1, () => ({ jsonrpc: '2.0', method: 'notifications/roots/list_changed' })],
    [2, () => ({ jsonrpc: '2.0', id: random.below(5), result: { action: 'accept', content: {} } })],
    [1, () => ({ jsonrpc: '2.0', id: random.below(5), error: { code: 1, message: 'no' } })],
    [9, () => anyMessage(draft)],
    [1, () => batch(draft)],
  ])()
  return legacy({ kind: 'session', target, body, headers })
}

function streamOfSession(draft: Draft): DraftRequest {
  const { random } = draft
  const { target, headers } = sessionOf(draft)
  const resuming = random.chance(0.5) && { 'Last-Event-ID': String(random.below(20)) }
  const all = { Accept: 'text/event-stream', 'MCP-Protocol-Version': VERSION_2025, ...headers, ...resuming }
  return { kind: 'stream', method: random.chance(0.8) ? 'GET' : 'DELETE', target, headers: toPairs(all) }
}

function plain({ random, nonce }: Draft): DraftRequest {
  const target = random.pick([
    '/health',
    '/ready',
    '/status',
    '/metrics',
    '/',
    '/.well-known/oauth-protected-resource',
    '/.well-known/oauth-protected-resource/mcp',
    `/.well-known/oauth-protected-resource/servers/${nonce}/mcp`,
    '/.well-known/oauth-authorization-server',
    '/.well-known/openid-configuration',
    '/.well-known/jwks.json',
    `/servers/${nonce}/mcp`,
  ])
  const preflight: [string, string][] = [
    ['Origin', 'http://localhost:3000'],
    ['Access-Control-Request-Method', 'POST'],
    ['Access-Control-Request-Headers', 'authorization,mcp-session-id'],
  ]
  const isPreflight = random.chance(0.2)
  return { kind: 'plain', method: isPreflight ? 'OPTIONS' : 'GET', target, headers: isPreflight ? preflight : [] }
}
