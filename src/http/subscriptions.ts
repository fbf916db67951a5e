import { setTimeout as wait } from 'node:timers/promises'
import { createMcpHandler, InMemoryServerEventBus } from '@modelcontextprotocol/server'
import { isJsonObject, type JsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { toAuthInfo } from './bearer.js'
import type { Change, Entry, Front, ListenFilter } from './front.js'
import { type Admitted, whileGood, withEnds } from './streams.js'

// A client waits for the acknowledgement, and a server that starts slowly is no reason to let it.
const READY_MS = 500
const MAX_PER_PRINCIPAL = 64
const MAX_URIS = 1_000

export interface ListenRequest extends Admitted {
  readonly request: Request
  readonly entry: Entry
  readonly parsedBody: JsonObject
}

/**
 * `subscriptions/listen` (2026-07-28). The SDK's handler sends what is published on its bus to every stream it serves; so each stream
 * gets a handler and a bus of its own, on which only what its caller may see is published.
 */
export class Subscriptions {
  readonly #front: Front
  readonly #logger: Logger
  readonly #open = new Map<string, Set<() => Promise<void>>>()

  constructor(front: Front, logger: Logger) {
    this.#front = front
    this.#logger = logger
  }

  async listen({ request, entry, token, recheck, parsedBody }: ListenRequest): Promise<Response> {
    const { principal } = token
    const open = this.#open.get(principal.key) ?? new Set()
    if (open.size >= MAX_PER_PRINCIPAL) {
      const error = { code: -32603, message: 'Subscription limit reached' }
      return Response.json({ jsonrpc: '2.0', id: parsedBody.id, error })
    }
    const bus = new InMemoryServerEventBus()
    const handler = createMcpHandler(context => this.#front.createDeclaringServer(entry, context, READY_MS), {
      legacy: 'reject',
      bus,
      onerror: error => this.#logger.debug({ reason: error.message }, 'subscription'),
    })
    const params = isJsonObject(parsedBody.params) ? parsedBody.params : {}
    const meta = isJsonObject(params._meta) ? params._meta : undefined
    const filter = filterIn(params)
    const caller = { principal, era: 'modern', meta } as const
    const watching = this.#front.watch(entry, caller, filter, change => bus.publish(toEvent(change)))
    watching.catch(error => this.#logger.debug({ reason: String(error) }, 'cannot watch'))
    const expiry = whileGood({ token, recheck })
    let isOver = false
    const end = async () => {
      if (isOver) return
      isOver = true
      expiry.release()
      open.delete(end)
      if (open.size === 0) this.#open.delete(principal.key)
      await handler.close()
      await watching.then(stop => stop()).catch(() => {})
    }
    open.add(end)
    this.#open.set(principal.key, open)
    expiry.signal.addEventListener('abort', () => void end())
    await Promise.race([watching.catch(() => {}), wait(READY_MS, undefined, { ref: false })])
    try {
      const response = await handler.fetch(request, {
        authInfo: toAuthInfo(token),
        parsedBody: asHonoured(parsedBody, params, filter),
      })
      return withEnds(response, { onEnd: () => void end() })
    } catch (error) {
      await end()
      throw error
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#open.values()].flatMap(ends => [...ends].map(end => end())))
  }
}

/** The SDK acknowledges what it reads: no more than what is listened to. */
function asHonoured(body: JsonObject, params: JsonObject, { uris }: ListenFilter): JsonObject {
  const { notifications } = params
  if (!isJsonObject(notifications) || !Array.isArray(notifications.resourceSubscriptions)) return body
  return { ...body, params: { ...params, notifications: { ...notifications, resourceSubscriptions: uris } } }
}

function filterIn(params: JsonObject): ListenFilter {
  const wanted = isJsonObject(params.notifications) ? params.notifications : {}
  const { resourceSubscriptions: uris } = wanted
  return {
    lists: (['tools', 'prompts', 'resources'] as const).filter(list => wanted[`${list}ListChanged`] === true),
    uris: Array.isArray(uris) ? uris.filter(uri => typeof uri === 'string').slice(0, MAX_URIS) : [],
  }
}

const toEvent = (change: Change) =>
  change.kind === 'resource'
    ? ({ kind: 'resource_updated', uri: change.uri, params: { ...change.params } } as const)
    : ({ kind: `${change.kind}_list_changed` } as const)
