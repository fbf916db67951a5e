import { CAPABILITIES, CLIENT, type Era, type Json, type Wire } from './differential-wires.js'

/** One step of a scripted session. */
export interface Step {
  readonly name: string
  /** The id of the request, if it is not the name. */
  readonly id?: number
  readonly method: string
  readonly params?: unknown
  /** A notification; a request that is withdrawn as soon as it is under way; what may not be taken for a request at all. */
  readonly kind?: 'notification' | 'withdrawn' | 'malformed'
  /** What the same is in 2026; `undefined` means that 2026 has no such thing, and the step is left out. */
  readonly modern?: { readonly method: string; readonly params?: unknown } | undefined
  /** How many messages of a method the server sends besides its answer, and in 2026 where that differs. */
  readonly also?: Readonly<Record<string, number>>
  readonly alsoModern?: Readonly<Record<string, number>>
  /** Answers of the client other than the usual ones; `{ error }` refuses. */
  readonly answers?: Readonly<Record<string, Json>>
  /** The step whose `nextCursor` this one goes on from. */
  readonly follows?: string
  /** What is heard belongs to the next step, too: nobody knows how fast the server is. */
  readonly runsOn?: boolean
  /** Turned off and on again until `also` is heard: a subscription of 2026 may be acknowledged before the server knows of it. */
  readonly isToggle?: boolean
}

/** What one step came to. */
export interface Heard {
  readonly answer: Json | null
  /** What the server asked, without ids. */
  readonly requests: readonly Json[]
  /** In their order, by method: those of one method travel on one stream, those of two may not. */
  readonly notifications: Readonly<Record<string, readonly Json[]>>
  /** The rounds of 2026: under which keys it was asked, and whether there was a state. */
  readonly rounds: readonly Json[]
}

const ANSWERS: Readonly<Record<string, Json>> = {
  'roots/list': { roots: [{ uri: 'file:///work', name: 'Work', _meta: { 'example.com/x': 1 } }] },
  'sampling/createMessage': {
    role: 'assistant',
    content: { type: 'text', text: 'Paris' },
    model: 'model-1',
    stopReason: 'endTurn',
  },
  'elicitation/create': { action: 'accept', content: { name: 'Ada', check: true, integer: 7, number: 2.5 } },
}

const MAX_ROUNDS = 5
const MAX_TOGGLES = 3
const TOGGLE_MS = 1_000
const WITHDRAWN = 'withdrawn'

/** Runs the whole session. Ids are the same in every run. */
export async function runScript(wire: Wire, steps: readonly Step[]): Promise<Map<string, Heard>> {
  const heard = new Map<string, Heard>()
  const listening = new Map<string, string>()
  let seen = 0
  const isModern = wire.era === 'modern'
  for (const step of stepsOf(wire.era, steps)) {
    const { method, params: written } = (isModern && step.modern) || step
    const last = step.follows === undefined ? undefined : (heard.get(step.follows)?.answer?.result as Json | undefined)
    const params = last ? { ...(written as Json | undefined), cursor: last.nextCursor } : written
    const { id = step.name } = step
    wire.answerWith = asked => step.answers?.[asked] ?? ANSWERS[asked] ?? {}
    const rounds: Json[] = []
    let answer: Json | undefined
    // A stream of 2026 that stays open stands for what is asked once in 2025.
    if (method === 'subscriptions/listen') {
      const id = `listen to ${step.name}`
      listening.set(JSON.stringify(params), id)
      wire.ask(id, method, params).catch(() => {}) // it is open until it is withdrawn, or everything is over
      await wire.until(() => wire.heard.some(isAcknowledged(id)))
    } else if (method === 'hang up') {
      await wire.withdraw(listening.get(JSON.stringify(params)) ?? '')
    } else if (step.kind === 'notification') {
      await wire.tell(method, params as Json | undefined)
      if (method === 'notifications/initialized') await wire.openStream()
    } else if (step.kind === 'withdrawn') {
      const from = wire.heard.length
      const asked = wire.ask(id, method, params)
      await wire.until(() => wire.heard.length > from)
      await wire.withdraw(id)
      answer = await asked
    } else if (step.kind === 'malformed') {
      answer = await askAndPass(wire, { id, method, params })
    } else answer = await askInRounds(wire, { id, method, params, rounds })
    const also = (isModern && step.alsoModern) || step.also || {}
    const isHeard = () =>
      Object.entries(also).every(
        ([wanted, least]) => wire.heard.slice(seen).filter(message => message.method === wanted).length >= least,
      )
    for (let again = 1; step.isToggle && again <= MAX_TOGGLES && !(await wire.until(isHeard, TOGGLE_MS)); again++) {
      await wire.ask(`${id}, off ${again}`, method, params)
      const answered = await wire.ask(`${id}, on ${again}`, method, params)
      answer = answered && { ...answered, id }
    }
    await wire.until(isHeard)
    if (step.runsOn) {
      heard.set(step.name, { answer: answer ?? null, requests: [], notifications: {}, rounds })
      continue
    }
    const messages = wire.heard.slice(seen)
    seen = wire.heard.length
    heard.set(step.name, { answer: answer ?? null, ...sorted(messages), rounds })
  }
  heard.set('answers to nothing', { answer: null, requests: [...wire.strays], notifications: {}, rounds: [] })
  return heard
}

/** Without what 2026 has not. */
export const stepsOf = (era: Era, steps: readonly Step[]): readonly Step[] =>
  era === 'legacy' ? steps : steps.filter(step => !('modern' in step) || step.modern !== undefined)

async function askInRounds(
  wire: Wire,
  { id, method, params, rounds }: { id: string | number; method: string; params: unknown; rounds: Json[] },
): Promise<Json | undefined> {
  let retry: Json = {}
  for (let round = 0; round <= MAX_ROUNDS; round++) {
    const own = round === 0 ? id : `${id}, round ${round}`
    const asked = round === 0 ? params : { ...(params as Json), ...retry }
    const answer = await wire.ask(own, method, asked)
    const result = answer?.result as Json | undefined
    if (result?.resultType !== 'input_required') return answer?.id === own ? { ...answer, id } : answer
    const { inputRequests, requestState, ...more } = result
    const requests = Object.entries((inputRequests ?? {}) as Record<string, Json>)
    rounds.push({ keys: requests.map(([key]) => key), requestState: typeof requestState, ...more })
    for (const [, request] of requests) wire.heard.push({ jsonrpc: '2.0', ...request, inRounds: true })
    const inputResponses = Object.fromEntries(
      requests.map(([key, request]) => [key, wire.answerWith(String(request.method))]),
    )
    retry = { inputResponses, ...(requestState !== undefined && { requestState }) }
  }
  throw new Error(`${method} asked more than ${MAX_ROUNDS} times`)
}

/** What is ignored has no answer: it would have come before that to the next request. */
async function askAndPass(
  wire: Wire,
  { id, method, params }: { id: string | number; method: string; params: unknown },
): Promise<Json | undefined> {
  const asked = wire.ask(id, method, params)
  if (!wire.answersInOrder) return asked
  return Promise.race([asked, wire.ask(`after-${id}`, 'ping', undefined).then(() => undefined)])
}

const isAcknowledged = (id: string) => (message: Json) =>
  message.method === 'notifications/subscriptions/acknowledged' && JSON.stringify(message.params).includes(`"${id}"`)

function sorted(messages: readonly Json[]): Pick<Heard, 'requests' | 'notifications'> {
  const requests: Json[] = []
  const notifications: Record<string, Json[]> = {}
  for (const { id, inRounds, ...message } of messages) {
    const method = String(message.method)
    if (id !== undefined || inRounds) requests.push(message)
    // Servers may go on, and how much of it comes before it is withdrawn is a matter of speed.
    else if ((message.params as Json | undefined)?.progressToken !== WITHDRAWN)
      notifications[method] = [...(notifications[method] ?? []), message]
  }
  return { requests, notifications }
}

const call = (name: string, args?: unknown, rest: Json = {}) => ({
  method: 'tools/call',
  params: { name, ...(args !== undefined && { arguments: args }), ...rest },
})
const prompt = (name: string, args?: unknown) => ({
  method: 'prompts/get',
  params: { name, ...(args !== undefined && { arguments: args }) },
})
const read = (uri: unknown) => ({ method: 'resources/read', params: { uri } })
const complete = (ref: Json, name: string, value: string, context?: Json) => ({
  method: 'completion/complete',
  params: { ref, argument: { name, value }, ...(context && { context }) },
})
const accepting = (content: Json) => ({ 'elicitation/create': { action: 'accept', content } })
const LOG = 'notifications/message'
const PROGRESS = 'notifications/progress'
const RESOURCES_CHANGED = 'notifications/resources/list_changed'
const UPDATED = 'notifications/resources/updated'

export const INITIALIZE: Step = {
  name: 'initialize',
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: CAPABILITIES, clientInfo: CLIENT },
  modern: { method: 'server/discover' },
  runsOn: true,
}
const LISTS = { toolsListChanged: true, promptsListChanged: true, resourcesListChanged: true }
export const INITIALIZED: Step = {
  name: 'initialized',
  method: 'notifications/initialized',
  kind: 'notification',
  modern: { method: 'subscriptions/listen', params: { notifications: LISTS } },
  runsOn: true,
}
const WATCHED = 'demo://resource/dynamic/text/1'
const listenTo = (uri: string) => ({ notifications: { resourceSubscriptions: [uri] } })
const DATA = 'data:text/plain;base64,aGVsbG8gZnJvbSBhIGZpbGU='

/**
 * The server asks for the roots 350 ms after it was started, and whoever can be asked then, or else with the first call that needs
 * them; so both are one to look at. In 2026 it can only ask while a request is under way.
 */
const ROOTS: readonly Step[] = [
  {
    name: 'a call while the roots are asked for',
    ...call('trigger-long-running-operation', { duration: 1.5, steps: 1 }, { _meta: { 'example.com/trace': 'abc' } }),
    runsOn: true,
  },
  { name: 'roots', ...call('get-roots-list', {}), also: { 'roots/list': 1, [LOG]: 1 } },
]

const REST: readonly Step[] = [
  { name: 'ping', id: 0, method: 'ping' },
  { name: 'ping with _meta', method: 'ping', params: { _meta: { 'example.com/x': 1 } } },

  { name: 'tools', id: -1, method: 'tools/list' },
  { name: 'tools, empty params', method: 'tools/list', params: {} },
  { name: 'tools, a cursor of nobody', method: 'tools/list', params: { cursor: 'nonsense' } },
  { name: 'tools, a cursor that is a number', method: 'tools/list', params: { cursor: 5 } },

  { name: 'echo', id: 2 ** 40, ...call('echo', { message: 'hi' }) },
  { name: 'echo, ünïcode', ...call('echo', { message: 'ünï \u2028 🙂 "quoted" \\ \n' }) },
  { name: 'echo, more arguments than it has', ...call('echo', { message: 'hi', more: [1, { deep: null }] }) },
  { name: 'echo, wrong type', ...call('echo', { message: 5 }) },
  { name: 'echo, no arguments', ...call('echo') },
  { name: 'echo, arguments null', ...call('echo', null) },
  { name: 'echo, arguments a list', ...call('echo', ['hi']) },
  { name: 'unknown tool', ...call('no-such-tool', {}) },
  { name: 'no name', method: 'tools/call', params: { arguments: {} } },
  { name: 'a name that is a number', method: 'tools/call', params: { name: 5 } },
  { name: 'no params', method: 'tools/call', modern: undefined },

  { name: 'annotated, error', ...call('get-annotated-message', { messageType: 'error' }) },
  { name: 'annotated, success', ...call('get-annotated-message', { messageType: 'success', includeImage: true }) },
  { name: 'annotated, debug', ...call('get-annotated-message', { messageType: 'debug', includeImage: false }) },
  { name: 'annotated, no such type', ...call('get-annotated-message', { messageType: 'none' }) },
  { name: 'environment', ...call('get-env', {}) },
  { name: 'links', ...call('get-resource-links', {}) },
  { name: 'links, 10', ...call('get-resource-links', { count: 10 }) },
  { name: 'links, 11', ...call('get-resource-links', { count: 11 }) },
  { name: 'reference, text', ...call('get-resource-reference', { resourceType: 'Text', resourceId: 1 }) },
  { name: 'reference, blob', ...call('get-resource-reference', { resourceType: 'Blob', resourceId: 2 }) },
  { name: 'reference, none', ...call('get-resource-reference', { resourceId: -1 }) },
  { name: 'structured', ...call('get-structured-content', { location: 'Chicago' }) },
  { name: 'structured, nowhere', ...call('get-structured-content', { location: 'Atlantis' }) },
  { name: 'sum', ...call('get-sum', { a: 0.1, b: 2e21 }) },
  { name: 'sum of texts', ...call('get-sum', { a: '1', b: '2' }) },
  { name: 'image', ...call('get-tiny-image', {}) },

  {
    name: 'gzip, link',
    ...call('gzip-file-as-resource', { name: 'a.gz', data: DATA }),
    also: { [RESOURCES_CHANGED]: 1 },
  },
  { name: 'read what was made', ...read('demo://resource/session/a.gz') },
  {
    name: 'gzip, resource',
    ...call('gzip-file-as-resource', { name: 'b.gz', data: DATA, outputType: 'resource' }),
    also: { [RESOURCES_CHANGED]: 1 },
  },
  { name: 'gzip, no URL', ...call('gzip-file-as-resource', { data: 'nonsense' }) },

  { name: 'logging on', ...call('toggle-simulated-logging', {}), also: { [LOG]: 1 } },
  { name: 'logging off', ...call('toggle-simulated-logging', {}) },

  {
    name: 'progress, token 0',
    ...call('trigger-long-running-operation', { duration: 0.06, steps: 6 }, { _meta: { progressToken: 0 } }),
    also: { [PROGRESS]: 6 },
  },
  {
    name: 'progress, token a text',
    ...call('trigger-long-running-operation', { duration: 0.03, steps: 3 }, { _meta: { progressToken: 'träge' } }),
    also: { [PROGRESS]: 3 },
  },
  { name: 'no progress wanted', ...call('trigger-long-running-operation', { duration: 0.03, steps: 3 }) },

  { name: 'elicitation, accepted', ...call('trigger-elicitation-request', {}) },
  {
    name: 'elicitation, declined',
    ...call('trigger-elicitation-request', {}),
    answers: { 'elicitation/create': { action: 'decline' } },
  },
  {
    name: 'elicitation, cancelled',
    ...call('trigger-elicitation-request', {}),
    answers: { 'elicitation/create': { action: 'cancel' } },
  },
  {
    name: 'elicitation by URL',
    ...call('trigger-url-elicitation', { url: 'https://example.com/a', elicitationId: 'mine' }),
    answers: { 'elicitation/create': { action: 'accept' } },
  },
  {
    name: 'elicitation by URL, error',
    ...call('trigger-url-elicitation', { url: 'https://example.com/b', elicitationId: 'yours', errorPath: true }),
    answers: { 'elicitation/create': { action: 'accept' } },
  },
  {
    name: 'elicitation by URL, after the error',
    ...call('trigger-url-elicitation', { url: 'https://example.com/b', elicitationId: 'yours', errorPath: true }),
    answers: { 'elicitation/create': { action: 'decline' } },
    modern: undefined,
  },
  { name: 'sampling', ...call('trigger-sampling-request', { prompt: 'capital of France', maxTokens: 12 }) },
  {
    name: 'sampling, refused',
    ...call('trigger-sampling-request', { prompt: 'capital of France' }),
    answers: { 'sampling/createMessage': { error: { code: -1, message: 'User rejected', data: { why: 'no' } } } },
    modern: undefined,
  },
  { name: 'sampling, wrong arguments', ...call('trigger-sampling-request', {}) },
  {
    name: 'other roots',
    method: 'notifications/roots/list_changed',
    kind: 'notification',
    answers: { 'roots/list': { roots: [{ uri: 'file:///other' }] } },
    also: { 'roots/list': 1, [LOG]: 1 },
    modern: undefined,
  },
  { name: 'roots again', ...call('get-roots-list', {}), modern: undefined },
  { name: 'research without a task', ...call('simulate-research-query', { topic: 'x' }) },
  { name: 'tasks', method: 'tasks/list' },
  { name: 'no such task', method: 'tasks/get', params: { taskId: 'none' } },

  { name: 'prompts', method: 'prompts/list' },
  { name: 'prompts, a cursor of nobody', method: 'prompts/list', params: { cursor: 'nonsense' } },
  { name: 'simple prompt', ...prompt('simple-prompt') },
  { name: 'simple prompt, arguments', ...prompt('simple-prompt', { x: 'y' }) },
  { name: 'args prompt', ...prompt('args-prompt', { city: 'Paris', state: 'Texas' }) },
  { name: 'args prompt, one', ...prompt('args-prompt', { city: 'Paris' }) },
  { name: 'args prompt, none', ...prompt('args-prompt') },
  { name: 'args prompt, a number', ...prompt('args-prompt', { city: 5 }) },
  { name: 'completable prompt', ...prompt('completable-prompt', { department: 'Sales', name: 'Eve' }) },
  { name: 'resource prompt', ...prompt('resource-prompt', { resourceType: 'Text', resourceId: '3' }) },
  { name: 'resource prompt, none', ...prompt('resource-prompt', { resourceType: 'Text', resourceId: 'x' }) },
  { name: 'unknown prompt', ...prompt('no-such-prompt') },
  { name: 'prompt without a name', method: 'prompts/get', params: {} },

  { name: 'resources', method: 'resources/list' },
  { name: 'resources, a cursor of nobody', method: 'resources/list', params: { cursor: 'nonsense' } },
  { name: 'templates', method: 'resources/templates/list' },
  { name: 'read a document', ...read('demo://resource/static/document/features.md') },
  { name: 'read a text', ...read('demo://resource/dynamic/text/4') },
  { name: 'read a blob', ...read('demo://resource/dynamic/blob/5') },
  { name: 'read a bad number', ...read('demo://resource/dynamic/text/zero') },
  { name: 'read nothing', ...read('demo://resource/nothing') },
  { name: 'read no URI', ...read('not a uri') },
  { name: 'read a number', ...read(5) },
  { name: 'read, no uri', method: 'resources/read', params: {} },

  {
    name: 'subscribe',
    method: 'resources/subscribe',
    params: { uri: WATCHED },
    modern: { method: 'subscriptions/listen', params: listenTo(WATCHED) },
    also: { [LOG]: 1 },
    alsoModern: {},
  },
  { name: 'updates on', ...call('toggle-subscriber-updates', {}), also: { [UPDATED]: 1 }, isToggle: true },
  { name: 'updates off', ...call('toggle-subscriber-updates', {}) },
  {
    name: 'unsubscribe',
    method: 'resources/unsubscribe',
    params: { uri: WATCHED },
    modern: { method: 'hang up', params: listenTo(WATCHED) },
    also: { [LOG]: 1 },
    alsoModern: {},
  },
  { name: 'subscribe without a uri', method: 'resources/subscribe', params: {}, modern: undefined },
  { name: 'level error', method: 'logging/setLevel', params: { level: 'error' } },
  { name: 'subscribe in silence', method: 'resources/subscribe', params: { uri: 'demo://x' }, modern: undefined },
  { name: 'level info', method: 'logging/setLevel', params: { level: 'info' } },
  {
    name: 'unsubscribe, and say so',
    method: 'resources/unsubscribe',
    params: { uri: 'demo://x' },
    also: { [LOG]: 1 },
    modern: undefined,
  },
  { name: 'level loud', method: 'logging/setLevel', params: { level: 'loud' } },
  { name: 'no level', method: 'logging/setLevel', params: {} },

  {
    name: 'complete a prompt',
    ...complete({ type: 'ref/prompt', name: 'completable-prompt' }, 'department', 'S'),
  },
  {
    name: 'complete with a context',
    ...complete({ type: 'ref/prompt', name: 'completable-prompt' }, 'name', '', { arguments: { department: 'Sales' } }),
  },
  {
    name: 'complete a template',
    ...complete({ type: 'ref/resource', uri: 'demo://resource/dynamic/text/{resourceId}' }, 'resourceId', '12'),
  },
  { name: 'complete an unknown argument', ...complete({ type: 'ref/prompt', name: 'args-prompt' }, 'none', 'x') },
  { name: 'complete an unknown prompt', ...complete({ type: 'ref/prompt', name: 'none' }, 'x', 'x') },
  { name: 'complete an unknown template', ...complete({ type: 'ref/resource', uri: 'none://{x}' }, 'x', 'x') },
  { name: 'complete nothing there is', ...complete({ type: 'ref/other', name: 'x' }, 'x', 'x') },
  { name: 'complete without anything', method: 'completion/complete', params: {} },

  { name: 'unknown method', method: 'no/such', params: { x: 1 } },
  { name: 'unknown notification', method: 'notifications/no/such', kind: 'notification', modern: undefined },
  { name: 'params are a text', method: 'prompts/get', params: 'text', kind: 'malformed', modern: undefined },
  { name: 'params are a list', method: 'prompts/get', params: [1], kind: 'malformed', modern: undefined },
  {
    name: 'withdrawn',
    ...call('trigger-long-running-operation', { duration: 30, steps: 60 }, { _meta: { progressToken: WITHDRAWN } }),
    kind: 'withdrawn',
  },
  { name: 'after all', ...call('echo', { message: 'still there' }) },
]

/** For server-everything. */
export const everythingScript = (era: Era): readonly Step[] =>
  era === 'legacy'
    ? [INITIALIZE, INITIALIZED, ...ROOTS, ...REST]
    : [...ROOTS, INITIALIZE, { ...INITIALIZED, runsOn: false }, ...REST]

/** For the server of the conformance suite, built with the SDK of both eras. */
export const conformanceScript = (): readonly Step[] => CONFORMANCE

const plain = (name: string): Step => ({ name, ...call(name, {}) })
const SILENT = 'test://watched-resource'

const CONFORMANCE: readonly Step[] = [
  INITIALIZE,
  { ...INITIALIZED, runsOn: false },
  { name: 'ping', method: 'ping', id: 1, modern: undefined },
  { name: 'tools', id: 0, method: 'tools/list' },
  plain('test_simple_text'),
  { name: 'without arguments', ...call('test_simple_text') },
  plain('test_image_content'),
  plain('test_audio_content'),
  plain('test_embedded_resource'),
  plain('test_multiple_content_types'),
  plain('test_error_handling'),
  { name: 'unknown tool', ...call('no_such_tool', {}) },
  { name: 'no name', method: 'tools/call', params: { arguments: {} } },
  { name: 'schema', ...call('json_schema_2020_12_tool', { name: 'Ada', email: 'a@b.c', contactMethod: 'email' }) },
  { name: 'schema, not kept', ...call('json_schema_2020_12_tool', { contactMethod: 'phone', email: 'a@b.c' }) },
  { name: 'parameter header', ...call('test_x_mcp_header', { region: 'north' }) },
  { name: 'no parameter header', ...call('test_x_mcp_header', {}) },
  {
    name: 'progress',
    ...call('test_tool_with_progress', {}, { _meta: { progressToken: 'p-1' } }),
    also: { [PROGRESS]: 3 },
  },
  {
    name: 'progress, token 0',
    ...call('test_tool_with_progress', {}, { _meta: { progressToken: 0 } }),
    also: { [PROGRESS]: 3 },
  },
  plain('test_tool_with_progress'),
  { name: 'level debug', method: 'logging/setLevel', params: { level: 'debug' }, modern: undefined },
  { name: 'logs', ...call('test_tool_with_logging', {}), also: { [LOG]: 3 } },
  { name: 'change tools', ...call('test_trigger_tool_change', {}), also: { 'notifications/tools/list_changed': 1 } },
  { name: 'tools, changed', method: 'tools/list' },
  {
    name: 'change prompts',
    ...call('test_trigger_prompt_change', {}),
    also: { 'notifications/prompts/list_changed': 1 },
  },
  { name: 'prompts, changed', method: 'prompts/list' },

  { name: 'elicitation', ...call('test_elicitation', { message: 'Who are you?' }) },
  {
    name: 'elicitation, declined',
    ...call('test_elicitation', { message: 'Who are you?' }),
    answers: { 'elicitation/create': { action: 'decline' } },
  },
  { name: 'elicitation without its message', ...call('test_elicitation', {}) },
  { name: 'defaults', ...call('test_elicitation_sep1034_defaults', {}), answers: accepting({ age: 3 }) },
  { name: 'enums', ...call('test_elicitation_sep1330_enums', {}), answers: accepting({}) },
  { name: 'name', ...call('test_input_required_result_elicitation', {}), answers: accepting({ name: 'Ada' }) },
  { name: 'sampling', ...call('test_sampling', { prompt: 'Capital of France?' }) },
  plain('test_input_required_result_sampling'),
  plain('test_input_required_result_list_roots'),
  { name: 'state', ...call('test_input_required_result_request_state', {}), answers: accepting({ ok: true }) },
  {
    name: 'all at once',
    ...call('test_input_required_result_multiple_inputs', {}),
    answers: accepting({ name: 'Ada' }),
  },
  {
    name: 'two rounds',
    ...call('test_input_required_result_multi_round', {}),
    answers: accepting({ name: 'Ada', color: 'blue' }),
  },
  { name: 'what it can', ...call('test_input_required_result_capabilities', {}), answers: accepting({ name: 'Ada' }) },
  plain('test_missing_capability'),

  { name: 'prompts', method: 'prompts/list' },
  { name: 'simple prompt', ...prompt('test_simple_prompt') },
  { name: 'prompt with arguments', ...prompt('test_prompt_with_arguments', { arg1: 'a', arg2: 'ü' }) },
  { name: 'prompt without its arguments', ...prompt('test_prompt_with_arguments', { arg1: 'a' }) },
  { name: 'prompt with a resource', ...prompt('test_prompt_with_embedded_resource', { resourceUri: 'test://x' }) },
  { name: 'prompt with an image', ...prompt('test_prompt_with_image', {}) },
  {
    name: 'prompt that asks',
    ...prompt('test_input_required_result_prompt'),
    answers: accepting({ context: 'a test' }),
  },
  { name: 'unknown prompt', ...prompt('none') },
  { name: 'resources', method: 'resources/list' },
  { name: 'templates', method: 'resources/templates/list' },
  { name: 'read a text', ...read('test://static-text') },
  { name: 'read a blob', ...read('test://static-binary') },
  { name: 'read by template', ...read('test://template/123/data') },
  { name: 'read nothing', ...read('test://none') },
  { name: 'read, no uri', method: 'resources/read', params: {} },
  {
    name: 'subscribe',
    method: 'resources/subscribe',
    params: { uri: SILENT },
    modern: { method: 'subscriptions/listen', params: listenTo(SILENT) },
  },
  {
    name: 'unsubscribe',
    method: 'resources/unsubscribe',
    params: { uri: SILENT },
    modern: { method: 'hang up', params: listenTo(SILENT) },
  },
  {
    name: 'complete a prompt',
    ...complete({ type: 'ref/prompt', name: 'test_prompt_with_arguments' }, 'arg1', 'testV'),
  },
  { name: 'complete a template', ...complete({ type: 'ref/resource', uri: 'test://template/{id}/data' }, 'id', 'te') },
  { name: 'complete an unknown prompt', ...complete({ type: 'ref/prompt', name: 'none' }, 'x', '') },
  { name: 'complete without anything', method: 'completion/complete', params: {} },
  { name: 'unknown method', method: 'no/such', params: {} },
]
