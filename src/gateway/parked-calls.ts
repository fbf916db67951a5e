import { randomUUID } from 'node:crypto'
import { setTimeout as wait } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import { type BackendAsk, type ClientPeer, ClientRefusal, type RawResult } from '../backends/call.js'
import type { JsonObject } from '../json.js'
import type { Caller, GatewayCall } from './tool.js'

/** How long a client may take to answer, and how many calls of one principal may wait for that. */
export const PARKED_MS = 10 * 60_000
const MAX_PARKED_PER_PRINCIPAL = 32
const MAX_PARKED = 1_024
// What a backend asks in one breath is asked in one round, although it comes message by message.
const BREATH_MS = 25
const METHOD_NOT_FOUND = -32601

/** The requests of a backend that a client has to answer before its call goes on. */
export type InputRequests = Readonly<Record<string, { readonly method: string; readonly params: JsonObject }>>

interface Asked {
  readonly request: BackendAsk
  readonly resolve: (answer: RawResult) => void
  readonly reject: (error: Error) => void
}

/**
 * A call whose backend asks its client something while the client can only be told with the answer (2025 behind, 2026 in front):
 * the call goes on waiting here, between one request of the client and the next.
 */
export class ParkedCall {
  readonly principal: string
  /** What its request has become. */
  call: GatewayCall | undefined
  readonly #asked = new Map<string, Asked>()
  readonly #abort = new AbortController()
  #outcome: Promise<RawResult> | undefined
  #leg: Caller | undefined
  #onAsk: (() => void) | undefined
  #lastKey = 0

  constructor(principal: string) {
    this.principal = principal
  }

  /** Starts the call. What it says goes to the request of the client that is under way, if there is one. */
  start(caller: Caller, client: NonNullable<Caller['client']>, serve: (caller: Caller) => Promise<RawResult>): void {
    const ask: ClientPeer['ask'] = request => this.#ask(request)
    this.#outcome = serve({
      ...caller,
      signal: this.#abort.signal,
      onCall: call => {
        this.call = call
      },
      ...(caller.onProgress && { onProgress: progress => this.#leg?.onProgress?.(progress) }),
      client: { ...client, ask, tell: (method, params) => this.#leg?.client?.tell(method, params) },
    })
    this.#outcome.catch(() => {}) // whoever comes back for it hears of it
  }

  /** The client is here: resolves with the result, or with what the backend wants to know first. */
  async round(caller: Caller): Promise<{ readonly result: RawResult } | { readonly wanted: InputRequests }> {
    this.#leg = caller
    const giveUp = () => this.cancel()
    caller.signal?.addEventListener('abort', giveUp)
    if (caller.signal?.aborted) giveUp()
    try {
      for (;;) {
        const done = await Promise.race([this.#outcome?.then(result => ({ result })), this.#whenAsked()])
        if (done) return done
        const wanted = this.#wanted()
        if (Object.keys(wanted).length > 0) return { wanted } // else it was withdrawn meanwhile
      }
    } finally {
      caller.signal?.removeEventListener('abort', giveUp)
      this.#leg = undefined
      this.#onAsk = undefined
    }
  }

  /** Hands the client's answers to the backend; those to questions nobody asked are ignored. */
  answer(responses: JsonObject): void {
    for (const [key, { resolve }] of [...this.#asked]) {
      const response = responses[key]
      if (typeof response !== 'object' || response === null) continue
      this.#asked.delete(key)
      resolve(response as RawResult)
    }
  }

  cancel(): void {
    this.#abort.abort()
    for (const { reject } of this.#asked.values()) reject(new ClientRefusal(-32603, 'the client did not answer'))
    this.#asked.clear()
  }

  #ask(request: BackendAsk): Promise<RawResult> {
    return new Promise((resolve, reject) => {
      const key = `${request.method.split('/')[0]}-${++this.#lastKey}`
      this.#asked.set(key, { request, resolve, reject })
      request.signal.addEventListener('abort', () => {
        this.#asked.delete(key)
        reject(new ClientRefusal(METHOD_NOT_FOUND, 'the backend withdrew the request'))
      })
      this.#onAsk?.()
    })
  }

  async #whenAsked(): Promise<undefined> {
    if (this.#asked.size === 0) {
      await new Promise<void>(resolve => {
        this.#onAsk = resolve
      })
    }
    await wait(BREATH_MS)
    return undefined
  }

  #wanted(): InputRequests {
    return Object.fromEntries(
      [...this.#asked].map(([key, { request }]) => [key, { method: request.method, params: request.params }]),
    )
  }
}

/** The calls that wait for a client to come back. One that does not is cancelled at its backend. */
export class ParkedCalls {
  readonly #calls = new LRUCache<string, ParkedCall>({
    max: MAX_PARKED,
    ttl: PARKED_MS,
    ttlAutopurge: true,
    dispose: (call, _id, reason) => {
      if (reason !== 'delete') call.cancel()
    },
  })

  get size(): number {
    return this.#calls.size
  }

  /** Gives the id to come back with, which is good once. */
  park(call: ParkedCall): string {
    const others = [...this.#calls].filter(([, { principal }]) => principal === call.principal)
    const [oldest, forgotten] = others.length >= MAX_PARKED_PER_PRINCIPAL ? (others.at(-1) ?? []) : []
    forgotten?.cancel()
    if (oldest !== undefined) this.#calls.delete(oldest)
    const id = randomUUID()
    this.#calls.set(id, call)
    return id
  }

  /** The call, which is parked no more: a second retry with the same state finds nothing. */
  unpark(id: string): ParkedCall | undefined {
    const call = this.#calls.get(id)
    this.#calls.delete(id)
    return call
  }

  close(): void {
    for (const call of [...this.#calls.values()]) call.cancel()
    this.#calls.clear()
  }
}
