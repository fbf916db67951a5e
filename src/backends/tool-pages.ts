import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { CallClock } from './call.js'
import { announcedLists, type Connection } from './connection.js'
import { type ToolList, toToolList } from './tool.js'

// A list without `ttlMs` from a backend that announces no changes is read again after this time.
const UNANNOUNCED_LIST_MS = 5 * 60_000
// A shorter `ttlMs` would mean to list before every call.
const MIN_LIST_MS = 1_000
const MAX_PAGES = 1_000
const MAX_TOOLS = 10_000
// Characters of all definitions together.
const MAX_LIST_SIZE = 32 * 1024 * 1024

export interface ReadToolsOptions {
  readonly server: string
  /** For one page. */
  readonly timeoutMs: number
  readonly logger: Logger
}

/** Reads `tools/list` to its end, or to where it is plain that it has none. Rejects as Connection.request does. */
export async function readTools(
  connection: Connection,
  { server, timeoutMs, logger }: ReadToolsOptions,
): Promise<ToolList> {
  const { mirrorsParameters, description } = connection
  if (!isJsonObject(description.capabilities.tools))
    return toToolList([], { expiresAt: Number.POSITIVE_INFINITY, mirrorsParameters })
  let definitions: unknown[] = []
  const seen = new Set<string>()
  let cursor: string | undefined
  let ttlMs = 0
  let size = 0
  let beside: JsonObject | undefined
  do {
    const page = await readPage(connection, cursor, timeoutMs)
    if (!Array.isArray(page.tools)) throw new GatewayError('BACKEND_ERROR', 'its tools/list has no array "tools"')
    definitions = definitions.concat(page.tools)
    size += JSON.stringify(page.tools).length
    if (typeof page.ttlMs === 'number' && page.ttlMs > 0) ttlMs = page.ttlMs
    beside ??= besideList(page)
    const next = page.nextCursor
    cursor = typeof next === 'string' ? next : undefined
    if (
      cursor !== undefined &&
      (seen.has(cursor) || seen.size >= MAX_PAGES || definitions.length > MAX_TOOLS || size > MAX_LIST_SIZE)
    ) {
      logger.warn(
        { server, pages: seen.size + 1, tools: definitions.length },
        'tool list does not end: the rest is ignored',
      )
      break
    }
    if (cursor !== undefined) seen.add(cursor)
  } while (cursor !== undefined)
  const lifetime =
    ttlMs > 0
      ? Math.max(ttlMs, MIN_LIST_MS)
      : announcedLists(description.capabilities).includes('tools')
        ? Number.POSITIVE_INFINITY
        : UNANNOUNCED_LIST_MS
  const list = toToolList(definitions.slice(0, MAX_TOOLS), { expiresAt: Date.now() + lifetime, mirrorsParameters })
  return { ...list, ...(ttlMs > 0 && { ttlMs }), ...(beside && { beside }) }
}

/** Fields of the result that are neither the list nor about this hop. */
function besideList({ tools, nextCursor, ttlMs, cacheScope, resultType, ...rest }: JsonObject): JsonObject {
  return rest
}

async function readPage(connection: Connection, cursor: string | undefined, timeoutMs: number) {
  const clock = new CallClock(timeoutMs, timeoutMs)
  try {
    return await connection.request({ method: 'tools/list', params: cursor === undefined ? {} : { cursor } }, clock)
  } finally {
    clock.stop()
  }
}
