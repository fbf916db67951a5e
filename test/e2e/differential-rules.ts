import type { Noise, Rule } from './differential-compare.js'

const UUID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g
const LEVEL = /^(debug|info|notice|warning|error|critical|alert|emergency)\b/i
const atSomeTime = (text: string) => text.replace(/created at \d+:\d\d:\d\d [AP]M/, 'created at TIME')

/** What is never the same twice at server-everything itself. */
export const NOISES: readonly Noise[] = [
  {
    name: 'a resource says when it was made',
    steps: ['reference, text', 'resource prompt', 'read a text'],
    path: 'answer.**',
    clean: atSomeTime,
  },
  {
    name: 'a blob says when it was made',
    steps: ['reference, blob', 'read a blob'],
    path: 'answer.**',
    clean: text => {
      const plain = Buffer.from(text, 'base64').toString('utf8')
      return /^Resource \d+: /.test(plain) ? atSomeTime(plain) : text
    },
  },
  {
    name: 'simulated messages have a level by chance',
    steps: ['logging on'],
    path: 'notifications.notifications/message.*.params.*',
    clean: text => text.replace(LEVEL, 'LEVEL').replace(/^LEVEL[- ]level[- ]message/, 'LEVEL message'),
  },
  {
    name: 'an elicitation by URL has a random id',
    steps: ['elicitation by URL, error'],
    path: 'answer.error.data.elicitations.*.elicitationId',
    clean: text => text.replace(UUID, 'ID'),
  },
  {
    name: 'over HTTP, texts name the session',
    steps: [
      'logging on',
      'logging off',
      'subscribe',
      'updates on',
      'updates off',
      'unsubscribe',
      'unsubscribe, and say so',
    ],
    path: '**',
    clean: text => text.replace(UUID, 'SESSION'),
  },
  {
    name: 'each server over HTTP has a port of its own',
    steps: ['environment'],
    path: 'answer.result.content.0.text',
    clean: text => text.replace(/"PORT": "\d+"/, '"PORT": "PORT"'),
  },
]

const INVALID_PARAMS = -32602
const METHOD_NOT_FOUND = -32601

const isAbsent = (value: unknown) => value === undefined
const isEmpty = (via: unknown, direct: unknown) => direct === undefined && JSON.stringify(via) === '{}'
const isFrom = (value: unknown, { code, message }: { code: number; message?: RegExp }): boolean => {
  if (typeof value === 'number') return value === code
  if (typeof value === 'string') return message?.test(value) ?? true
  const error = value as { readonly code?: unknown; readonly message?: unknown; readonly data?: unknown } | undefined
  return error?.code === code && isFrom(error.message, { code, ...(message && { message }) }) && isAbsent(error.data)
}
const isMethodNotFound = (via: unknown) => isFrom(via, { code: METHOD_NOT_FOUND, message: /^Method not found$/ })
const hasOnly = (keys: readonly string[]) => (value: unknown) =>
  typeof value === 'object' && value !== null && Object.keys(value).every(key => keys.includes(key))

const SERVER_INFO = 'io.modelcontextprotocol/serverInfo'
const OWN_INFO = 'agent-mcp-gateway/serverInfo'
const SUBSCRIPTION = 'io.modelcontextprotocol/subscriptionId'

const PAGES = ['resources', 'templates', 'prompts'].flatMap(list => [`${list}, page 2`, `${list}, page 3`])
const CACHEABLE = [
  'initialize',
  'tools',
  'tools, empty params',
  'tools, changed',
  'prompts',
  'prompts, changed',
  'resources',
  'templates',
  'read what was made',
  'read a document',
  'read a text',
  'read a blob',
  'read by template',
  'read',
  ...PAGES,
]
const CHANGES = ['gzip, link', 'gzip, resource', 'updates on', 'change tools', 'change prompts']
const NOT_IN_2026 = ['ping', 'ping with _meta', 'level error', 'level info', 'level loud', 'no level']
const NOBODYS_CURSOR = ['tools, a cursor of nobody', 'prompts, a cursor of nobody', 'resources, a cursor of nobody']
const TASKS = ['tasks', 'no such task']
const MALFORMED = [
  'tools, a cursor that is a number',
  'echo, arguments null',
  'echo, arguments a list',
  'no name',
  'a name that is a number',
  'no params',
  'subscribe without a uri',
  'level loud',
  'no level',
]
const NO_MESSAGE = ['params are a text', 'params are a list']

/**
 * All that a client may see differently through the gateway. `client` is the era of the client in front, `era` that of the server
 * behind; what the server said directly is always said in its own era.
 */
const IDENTITY: readonly Rule[] = [
  {
    in: { client: 'legacy' },
    steps: ['initialize'],
    path: 'answer.result.serverInfo.**',
    why: 'the gateway says who it is',
  },
  {
    in: { client: 'legacy', era: 'legacy' },
    steps: ['initialize'],
    path: 'answer.result._meta',
    holds: hasOnly([OWN_INFO]),
    why: 'and who is behind it',
  },
  {
    in: { client: 'modern' },
    steps: '*',
    path: 'answer.result._meta',
    holds: (via, direct) => direct === undefined && hasOnly([SERVER_INFO, OWN_INFO])(via),
    why: 'results of 2026 name the server that sends them',
  },
  {
    in: { client: 'modern', era: 'legacy' },
    steps: '*',
    path: 'answer.result._meta.io·modelcontextprotocol/serverInfo',
    holds: (via, direct) => direct === undefined && hasOnly(['name', 'title', 'version'])(via),
    why: 'beside what the server has there',
  },
  {
    in: { client: 'modern', era: 'modern' },
    steps: '*',
    path: 'answer.result._meta.io·modelcontextprotocol/serverInfo.**',
    why: 'the gateway is the server that sends them',
  },
  {
    in: { era: 'modern' },
    steps: '*',
    path: 'answer.result._meta.agent-mcp-gateway/serverInfo',
    holds: (via, direct) => direct === undefined && hasOnly(['name', 'version'])(via),
    why: 'the server behind keeps its name, in a place that is not taken',
  },
  {
    in: { client: 'modern', era: 'modern' },
    steps: '*',
    path: 'rounds.*._meta.io·modelcontextprotocol/serverInfo.**',
    why: 'the same of a result that asks for input',
  },
  {
    in: { client: 'modern', era: 'modern' },
    steps: '*',
    path: 'rounds.*._meta.agent-mcp-gateway/serverInfo',
    holds: (via, direct) => direct === undefined && hasOnly(['name', 'version'])(via),
    why: 'the same of a result that asks for input',
  },
  {
    in: { client: 'legacy', era: 'modern' },
    steps: '*',
    path: 'answer.result._meta.io·modelcontextprotocol/serverInfo',
    holds: isAbsent,
    why: '2025 has no such key',
  },
]

const OWN_WORDS: readonly Rule[] = [
  {
    in: {},
    steps: ['resources', 'templates', 'prompts', ...PAGES],
    path: 'answer.result.nextCursor',
    holds: (via, direct) => typeof via === 'string' && typeof direct === 'string',
    why: 'cursors are sealed for whoever gets them; the page that follows is the same',
  },
  {
    in: {},
    steps: ['initialize'],
    path: 'answer.result.capabilities.tasks',
    holds: isAbsent,
    why: 'tasks outlive the request they began with, and are not relayed',
  },
  { in: {}, steps: TASKS, path: 'answer.result', holds: isAbsent, why: 'tasks are not relayed' },
  { in: {}, steps: TASKS, path: 'answer.error.**', holds: isMethodNotFound, why: 'tasks are not relayed' },
  {
    in: {},
    steps: ['unknown tool'],
    path: 'answer.result',
    holds: isAbsent,
    why: 'a tool that is not there and one that is denied look the same, and only the gateway knows the second',
  },
  {
    in: {},
    steps: ['unknown tool'],
    path: 'answer.error.**',
    holds: via => isFrom(via, { code: INVALID_PARAMS, message: /^Unknown tool: no.such.tool$/ }),
    why: 'the same words for both',
  },
  {
    in: {},
    steps: NOBODYS_CURSOR,
    path: 'answer.result',
    holds: isAbsent,
    why: 'cursors are sealed for whoever got them, so the gateway knows one that is not: the server ignores it',
  },
  {
    in: {},
    steps: NOBODYS_CURSOR,
    path: 'answer.error',
    holds: via => isFrom(via, { code: INVALID_PARAMS, message: /^Invalid cursor$/ }),
    why: 'what the specification has for it',
  },
  {
    in: {},
    steps: MALFORMED,
    path: 'answer.error.code',
    holds: (via, direct) => direct === -32603 && via === INVALID_PARAMS,
    why: 'the gateway reads these itself, and has the code for it that the specification wants',
  },
  {
    in: {},
    steps: MALFORMED,
    path: 'answer.error.message',
    holds: via =>
      /^Invalid (params: (name|arguments|uri) must be an? (string|object)|cursor|log level: .*)$/.test(String(via)),
    why: 'the gateway reads these itself, and SDKs print what their validator says',
  },
  {
    in: { client: 'legacy', front: 'http', world: 'server-everything over stdio' },
    steps: NO_MESSAGE,
    path: 'answer',
    holds: via => isFrom((via as { error?: unknown }).error, { code: -32600 }),
    why: 'over HTTP something has to be answered; over stdio the server ignores what is no message',
  },
  {
    in: { client: 'legacy', world: 'server-everything over HTTP' },
    steps: NO_MESSAGE,
    path: 'answer.**',
    why: 'not JSON-RPC, so no business of the server behind: a code of the gateway, with the id if there is one',
  },
  {
    in: { client: 'legacy', era: 'legacy' },
    steps: CHANGES,
    path: 'notifications.*.*.params',
    holds: isEmpty,
    why: 'the gateway announces changes itself, of what this caller sees; empty parameters say no more than none',
  },
  {
    in: {},
    steps: '*',
    path: 'requests.*.params',
    holds: isEmpty,
    why: 'empty parameters (of roots/list) say no more than none',
  },
  {
    in: { world: 'server-everything over stdio' },
    steps: ['roots'],
    path: 'notifications.notifications/tools/list_changed.**',
    why: 'the server adds tools as soon as it is initialized, before the gateway has told anybody of any',
  },
  {
    in: { era: 'modern' },
    steps: ['initialized', 'ping', 'tools', 'test_simple_text', 'without arguments'],
    path: 'notifications.*',
    sometimes: 'the stream may be open before anybody watches',
    holds: (via, direct) =>
      direct === undefined &&
      Array.isArray(via) &&
      via.length === 1 &&
      /^notifications\/(tools|prompts|resources)\/list_changed$/.test(via[0].method),
    why: 'what changed before the stream to a server of 2026 was open, nobody announced: so everything may have',
  },
]

const MODERN_TO_LEGACY = { client: 'modern', era: 'legacy' } as const

const NEWER_CLIENT: readonly Rule[] = [
  {
    in: MODERN_TO_LEGACY,
    steps: '*',
    path: 'answer.result.resultType',
    holds: (via, direct) => direct === undefined && via === 'complete',
    why: 'every result of 2026 has it',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: CACHEABLE,
    path: 'answer.result.ttlMs',
    holds: via => via === 0,
    why: 'what 2026 wants to be told; a server of 2025 says nothing, so nothing is promised',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: CACHEABLE,
    path: 'answer.result.cacheScope',
    holds: (via, direct) => direct === undefined && via === 'private',
    why: 'what 2026 wants to be told',
  },
  {
    in: { client: 'modern', era: 'modern' },
    steps: CACHEABLE,
    path: 'answer.result.cacheScope',
    holds: (via, direct) => direct === 'public' && via === 'private',
    why: 'the rules make an answer the caller’s own',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['initialize'],
    path: 'answer.result.protocolVersion',
    holds: isAbsent,
    why: 'server/discover',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['initialize'],
    path: 'answer.result.serverInfo',
    holds: isAbsent,
    why: 'it is in _meta',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['initialize'],
    path: 'answer.result.supportedVersions',
    holds: via => JSON.stringify(via) === '["2026-07-28"]',
    why: 'server/discover',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['tools', 'tools, empty params'],
    path: 'answer.result.tools.*.execution',
    holds: isAbsent,
    why: 'how a tool is called as a task of 2025, which 2026 has not',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: '*',
    path: 'rounds.*',
    holds: (via, direct) => direct === undefined && hasOnly(['keys', 'requestState', 'resultType', '_meta'])(via),
    why: 'requests of the server come as input_required; what they ask is compared with the requests of 2025',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: '*',
    path: 'requests.*.params._meta',
    holds: (via, direct) => via === undefined && hasOnly(['progressToken'])(direct),
    why: 'nobody can report progress on what comes as input_required',
  },
  { in: MODERN_TO_LEGACY, steps: NOT_IN_2026, path: 'answer.result', holds: isAbsent, why: '2026 has no such method' },
  {
    in: MODERN_TO_LEGACY,
    steps: NOT_IN_2026,
    path: 'answer.error.**',
    holds: isMethodNotFound,
    why: '2026 has no such method',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['initialized', 'subscribe'],
    path: 'notifications.notifications/subscriptions/acknowledged',
    holds: (via, direct) => direct === undefined && Array.isArray(via) && via.length === 1,
    why: 'how a stream of subscriptions/listen begins',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['subscribe', 'unsubscribe'],
    path: 'answer',
    holds: via => via === null,
    why: 'a stream that is open instead of an answer',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['subscribe', 'unsubscribe'],
    path: 'notifications.notifications/message',
    holds: isAbsent,
    why: 'the server logs that it was asked; logs of 2026 belong to a request, and there is none',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['updates on', 'complete a prompt'],
    path: 'notifications.notifications/message',
    sometimes: 'it has to arrive while the next request is under way',
    holds: (via, direct) => direct === undefined && /Received (Uns|S)ubscribe/.test(JSON.stringify(via)),
    why: 'over stdio a message could belong to any request under way',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: CHANGES,
    path: 'notifications.*.*.params',
    holds: (via, direct) => direct === undefined && hasOnly(['_meta'])(via),
    why: 'notifications of 2026 name the subscription, in _meta',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: CHANGES,
    path: 'notifications.*.*.params._meta',
    holds: hasOnly([SUBSCRIPTION]),
    why: 'notifications of 2026 name the subscription',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['elicitation by URL, error'],
    path: 'answer.error',
    holds: isAbsent,
    why: 'URLElicitationRequired is of 2025: the client is asked, and makes the call again',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['elicitation by URL, error'],
    path: 'answer.result',
    why: 'so it has the result that a client of 2025 has after its second call',
  },
  {
    in: MODERN_TO_LEGACY,
    steps: ['elicitation by URL, error'],
    path: 'requests.*',
    why: 'so it is asked for the page of the error, and then for that of the call',
  },
]

const LEGACY_TO_MODERN = { client: 'legacy', era: 'modern' } as const

const OLDER_CLIENT: readonly Rule[] = [
  {
    in: LEGACY_TO_MODERN,
    steps: '*',
    path: 'answer.result.resultType',
    holds: isAbsent,
    why: '2025 has no such key',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: CACHEABLE,
    path: 'answer.result.ttlMs',
    holds: isAbsent,
    why: '2025 has no such key',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: CACHEABLE,
    path: 'answer.result.cacheScope',
    holds: isAbsent,
    why: '2025 has no such key',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: ['initialize'],
    path: 'answer.result.supportedVersions',
    holds: isAbsent,
    why: 'initialize',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: ['initialize'],
    path: 'answer.result.protocolVersion',
    holds: via => via === '2025-11-25',
    why: 'initialize',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: '*',
    path: 'rounds.*',
    holds: isAbsent,
    why: 'what the server asks are requests in 2025; they are compared',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: ['initialized', 'subscribe'],
    path: 'notifications.notifications/subscriptions/acknowledged',
    holds: isAbsent,
    why: 'how a stream of subscriptions/listen begins',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: ['subscribe', 'unsubscribe'],
    path: 'answer',
    holds: via => JSON.stringify((via as { result?: unknown }).result) === '{}',
    why: 'an answer instead of a stream that is open',
  },
  {
    in: LEGACY_TO_MODERN,
    steps: CHANGES,
    path: 'notifications.*.*.params._meta',
    holds: (via, direct) => via === undefined && hasOnly([SUBSCRIPTION])(direct),
    why: 'the subscription is the gateway’s',
  },
]

export const RULES: readonly Rule[] = [...IDENTITY, ...OWN_WORDS, ...NEWER_CLIENT, ...OLDER_CLIENT]
