import type { Backend } from '../backends/backend.js'
import type { CallClock, RawResult } from '../backends/call.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { traceFieldsOf } from '../observability/trace-context.js'
import { toDirectName, toDirectUri } from './direct-names.js'
import { Patience } from './patience.js'
import type { GatewayCall } from './tool.js'

const MAX_PAGES = 100
const MAX_ENTRIES = 10_000

/** A list that several servers contribute to: what it is called, where, and how its entries read under one roof. */
export interface DirectList {
  readonly method: 'prompts/list' | 'resources/list' | 'resources/templates/list'
  readonly field: 'prompts' | 'resources' | 'resourceTemplates'
  readonly capability: 'prompts' | 'resources'
  readonly rename: (server: string, entry: JsonObject) => JsonObject
}

export const DIRECT_LISTS: readonly DirectList[] = [
  {
    method: 'prompts/list',
    field: 'prompts',
    capability: 'prompts',
    rename: (server, entry) => ({ ...entry, name: toDirectName(server, String(entry.name)) }),
  },
  {
    method: 'resources/list',
    field: 'resources',
    capability: 'resources',
    rename: (server, entry) => ({ ...entry, uri: toDirectUri(server, String(entry.uri)) }),
  },
  {
    method: 'resources/templates/list',
    field: 'resourceTemplates',
    capability: 'resources',
    rename: (server, entry) => ({ ...entry, uriTemplate: toDirectUri(server, String(entry.uriTemplate)) }),
  },
]

/** Usable servers that the agent may use, in the order of their names. */
export function permittedBackends(call: GatewayCall, agent: string): Backend[] {
  return [...call.snapshot.backends.values()]
    .filter(({ name, config }) => !config.disabled && config.misconfigured.length === 0 && call.permits(agent, name))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/**
 * The entries of one list of one server, all its pages. A server that has none, or cannot be had in time, contributes nothing: it
 * does not hold up the others, and what is wrong with it is in `gateway status`.
 */
export async function entriesOf(
  call: GatewayCall,
  backend: Backend,
  list: DirectList,
  patience = new Patience(call),
): Promise<JsonObject[]> {
  return patience.ask(backend, clock => readEntries(call, backend, list, clock)).catch(() => [])
}

async function readEntries(
  call: GatewayCall,
  backend: Backend,
  { method, field, capability }: DirectList,
  clock: CallClock,
): Promise<JsonObject[]> {
  const { capabilities } = await backend.describe(call.owner, clock)
  if (!isJsonObject(capabilities[capability])) return []
  const entries: JsonObject[] = []
  const seen = new Set<unknown>()
  let cursor: unknown
  do {
    const params = cursor === undefined ? {} : { cursor }
    const request = { method, params, meta: traceFieldsOf(call.caller.meta), client: call.peer }
    const page: RawResult = await backend.request(request, { isRepeatable: true }, call.owner, clock)
    const listed = page[field]
    if (Array.isArray(listed)) entries.push(...listed.filter(isJsonObject))
    seen.add(cursor)
    cursor = page.nextCursor
  } while (cursor !== undefined && !seen.has(cursor) && seen.size < MAX_PAGES && entries.length < MAX_ENTRIES)
  return entries.slice(0, MAX_ENTRIES)
}
