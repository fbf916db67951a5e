import type { Progress, RequestId } from '@modelcontextprotocol/client'
import { isJsonObject, type JsonObject } from '../json.js'
import { type CallClock, type ClientPeer, ClientRefusal, type RawResult } from './call.js'

const METHOD_NOT_FOUND = -32601
const INTERNAL_ERROR = -32603
/** Questions of one backend that wait for an answer, on one connection. */
const MAX_ASKED = 64
const MAX_ID_LENGTH = 256

/** What a backend announces: that a list is another one, or a resource has other contents. */
export type BackendChange =
  | { readonly kind: 'tools' | 'prompts' | 'resources' }
  | { readonly kind: 'resource'; readonly uri: string; readonly params: JsonObject }

/** A request under way, for a client that the backend may turn to meanwhile, or for nobody it can turn to. */
export interface InFlight {
  readonly client: ClientPeer | undefined
  readonly clock: CallClock
}

/** A request of the backend, as the SDK's client hands it over. */
export interface ServerRequest {
  readonly id: RequestId
  readonly method: string
  readonly params: JsonObject
  readonly signal: AbortSignal
  /** Sends the backend a notification about its request. */
  readonly notify: (method: string, params: JsonObject) => void
}

export interface ServerMessagesOptions {
  /** The client that the connection is for alone; none where it is shared. */
  readonly client: object | undefined
  /** The client that a session is held for; none where a connection is shared. */
  readonly sessionClient: ClientPeer | undefined
  readonly onChange: (change: BackendChange) => void
}

/** What a backend says by itself on one connection, and to whom: a request or log message means the request it came with. */
export class ServerMessages {
  readonly #options: ServerMessagesOptions
  readonly #inFlight = new Set<InFlight>()
  readonly #cameWith = new Map<RequestId, InFlight>()
  /** Whose requests were given up, which the backend may still have something to say about; two are as good as more. */
  readonly #givenUp = new Set<string | undefined>()
  #sessionClient: ClientPeer | undefined
  #asked = 0
  #isShared: boolean

  constructor(options: ServerMessagesOptions) {
    this.#options = options
    this.#sessionClient = options.sessionClient
    this.#isShared = options.client === undefined
  }

  /** The connection turned out to be one that many share: what belongs to no request is for nobody. */
  share(): void {
    this.#sessionClient = undefined
    this.#isShared = true
  }

  enter(inFlight: InFlight): void {
    this.#inFlight.add(inFlight)
  }

  leave(inFlight: InFlight): void {
    this.#inFlight.delete(inFlight)
    const { client, clock } = inFlight
    if (clock.ended && this.#givenUp.size < 2) this.#givenUp.add(client?.principal)
    for (const [id, origin] of this.#cameWith) if (origin === inFlight) this.#cameWith.delete(id)
  }

  /** The request with this id came on the stream of `origin`, so it is for that client. */
  noteOrigin(id: RequestId, origin: InFlight): void {
    if (this.#inFlight.has(origin) && String(id).length <= MAX_ID_LENGTH) this.#cameWith.set(id, origin)
  }

  /** Puts a request of the backend to the client it is meant for. Rejects with ClientRefusal. */
  async ask({ id, method, params, signal, notify }: ServerRequest): Promise<RawResult> {
    const origin = this.#cameWith.get(id) ?? this.#latest()
    this.#cameWith.delete(id)
    const client = origin?.client ?? this.#sessionClient
    if (!client) throw new ClientRefusal(METHOD_NOT_FOUND, `nobody can be asked ${method.slice(0, 100)} now`)
    const { meta, progressToken } = splitMeta(params)
    const onProgress =
      progressToken === undefined
        ? undefined
        : (progress: Progress) => notify('notifications/progress', { ...progress, progressToken })
    if (this.#asked >= MAX_ASKED)
      throw new ClientRefusal(INTERNAL_ERROR, 'too many questions are waiting for an answer')
    const release = origin?.clock.hold()
    this.#asked++
    try {
      return await client.ask({ method, params: { ...params, ...meta }, signal, onProgress })
    } finally {
      this.#asked--
      release?.()
    }
  }

  /** Takes a notification of the backend to whom it concerns. */
  tell(method: string, params: JsonObject, origin?: InFlight): void {
    const change = toChange(method, params)
    if (change) {
      this.#options.onChange(change)
      return
    }
    const hearer = this.#hearerOf(method, origin)
    if (hearer && (method !== LOG || hearer.takesLogs)) hearer.tell(method, params)
  }

  #hearerOf(method: string, origin: InFlight | undefined): ClientPeer | undefined {
    if (method !== LOG) return origin?.client ?? this.#sessionClient
    // What came with the request of somebody who can be told nothing is for nobody.
    if (origin && !origin.client) return undefined
    const client = origin?.client ?? this.#latest(wantsLogs)?.client
    return client?.takesLogs ? client : this.#sessionClient
  }

  /**
   * The newest request under way, provided that nobody else has any, or had one that was never answered: on a shared connection the
   * message could be meant for that.
   */
  #latest(isMeant: (client: ClientPeer) => boolean = () => true): InFlight | undefined {
    const all = [...this.#inFlight]
    const newest = all.findLast(({ client }) => client !== undefined && isMeant(client))
    const others = [...all.map(({ client }) => client?.principal), ...this.#givenUp]
    const isAlone = others.every(principal => principal === newest?.client?.principal)
    return isAlone || !this.#isShared ? newest : undefined
  }
}

const LOG = 'notifications/message'

const wantsLogs = (client: ClientPeer): boolean => client.takesLogs

/** The progress token is between the backend and the gateway; the client gets one of the gateway's own. */
function splitMeta({ _meta: meta }: JsonObject): { meta: JsonObject; progressToken?: string | number } {
  if (!isJsonObject(meta)) return { meta: {} }
  const { progressToken, ...rest } = meta
  return {
    meta: { _meta: Object.keys(rest).length > 0 ? rest : undefined },
    ...((typeof progressToken === 'string' || typeof progressToken === 'number') && { progressToken }),
  }
}

function toChange(method: string, params: JsonObject): BackendChange | undefined {
  switch (method) {
    case 'notifications/tools/list_changed':
      return { kind: 'tools' }
    case 'notifications/prompts/list_changed':
      return { kind: 'prompts' }
    case 'notifications/resources/list_changed':
      return { kind: 'resources' }
    case 'notifications/resources/updated':
      return typeof params.uri === 'string' ? { kind: 'resource', uri: params.uri, params } : undefined
    default:
      return undefined
  }
}
