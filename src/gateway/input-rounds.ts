import { setTimeout as wait } from 'node:timers/promises'
import { ProtocolError } from '@modelcontextprotocol/server'
import { type Cancellation, ClientRefusal, type RawResult } from '../backends/call.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { missingFor } from './client-features.js'
import { CONFIRM_KEY } from './confirmation.js'
import { PARKED_MS, ParkedCall, ParkedCalls } from './parked-calls.js'
import { type Binding, SealedState } from './sealed-state.js'
import type { Caller, GatewayCall } from './tool.js'

const INVALID_PARAMS = -32602
const INTERNAL_ERROR = -32603
const MISSING_CAPABILITY = -32021
// A person is not asked more often for one call, and a server that only wants to be asked again has to wait.
const MAX_ROUNDS = 10
const PACE_MS = 1_000
const MAX_QUESTIONS = 64

/** Serves a request; what the backend wants to know first comes as an `input_required` result, or by `caller.client.ask`. */
export type Serve = (caller: Caller) => Promise<RawResult>

/**
 * Requests in the middle of requests, between clients and backends of either era (notes on both: 2026-07-28, "Multi Round-Trip
 * Requests"; 2025-11-25, "Elicitation", "Sampling", "Roots"):
 * - a client of 2025 is asked while its request is under way;
 * - a client of 2026 gets an `input_required` result and comes back with the answers. A backend of its own era forgets the request
 *   meanwhile and gets its state back byte for byte; one of 2025 waits, and its call is parked.
 */
export class InputRounds {
  readonly #sealed = new SealedState()
  readonly #parked = new ParkedCalls()
  readonly #mayGoOn: (call: GatewayCall) => boolean

  /** `mayGoOn` decides anew about a call that was begun a while ago. */
  constructor(mayGoOn: (call: GatewayCall) => boolean) {
    this.#mayGoOn = mayGoOn
  }

  /** `bindingOf` says what the request is about: a state that went out for something else is refused. */
  run(caller: Caller, bindingOf: () => Binding, serve: Serve): Promise<RawResult> {
    if (!caller.client) return serve(caller)
    return caller.era === 'modern'
      ? this.#answerWithInput(caller, caller.client, bindingOf, serve)
      : askMeanwhile(caller, caller.client, serve)
  }

  close(): void {
    this.#parked.close()
  }

  async #answerWithInput(
    caller: Caller,
    client: NonNullable<Caller['client']>,
    bindingOf: () => Binding,
    serve: Serve,
  ): Promise<RawResult> {
    const { inputResponses = {}, requestState } = caller.retry ?? {}
    const state = requestState === undefined ? undefined : this.#open(requestState, bindingOf())
    let call: ParkedCall
    if (state && 'parked' in state) {
      const parked = this.#parked.unpark(String(state.parked))
      if (!parked) throw expired()
      if (parked.call && !this.#mayGoOn(parked.call)) {
        parked.cancel()
        throw expired()
      }
      call = parked
      call.answer(inputResponses)
    } else {
      const retry = caller.retry && { inputResponses, ...(state && { requestState: state.backend }) }
      call = new ParkedCall(caller.principal.key)
      call.start({ ...caller, retry }, client, serve)
    }
    const round = await call.round(caller)
    if ('wanted' in round) {
      const sealed = this.#sealed.seal({ parked: this.#parked.park(call) }, PARKED_MS, bindingOf())
      return { resultType: 'input_required', inputRequests: round.wanted, requestState: sealed }
    }
    const { result } = round
    if (!isInputRequired(result)) return result
    refuseUndeclared(result, client.capabilities)
    if (result.requestState === undefined) return result
    return { ...result, requestState: this.#sealed.seal({ backend: result.requestState }, PARKED_MS, bindingOf()) }
  }

  #open(requestState: unknown, binding: Binding): JsonObject {
    const opened = this.#sealed.open(requestState, binding)?.value
    if (!isJsonObject(opened)) throw expired()
    return opened
  }
}

export const isInputRequired = (result: RawResult): boolean => result.resultType === 'input_required'

/** One text for every reason: it must not tell a forger how near he came. */
const expired = (): ProtocolError =>
  new ProtocolError(INVALID_PARAMS, 'Invalid or expired requestState', { reason: 'invalid_request_state' })

/** A backend may ask only what the client said it can be asked; the specified error says what would be needed. */
function refuseUndeclared({ inputRequests }: RawResult, capabilities: JsonObject): void {
  for (const request of Object.values(isJsonObject(inputRequests) ? inputRequests : {})) {
    const { method, params } = isJsonObject(request) ? request : { method: undefined, params: undefined }
    const missing = missingFor(String(method), isJsonObject(params) ? params : {}, capabilities)
    if (missing === 'unknown')
      throw new ProtocolError(INTERNAL_ERROR, 'The server asked for something that MCP has not')
    if (missing) {
      const message = `The server needs the client for ${String(method)}, which the client has not declared`
      throw new ProtocolError(MISSING_CAPABILITY, message, { requiredCapabilities: missing })
    }
  }
}

/** Puts what an `input_required` result asks to a client of 2025, whose request goes on, and repeats the request with the answers. */
async function askMeanwhile(caller: Caller, client: NonNullable<Caller['client']>, serve: Serve): Promise<RawResult> {
  let retry: Caller['retry']
  for (let round = 0; round <= MAX_ROUNDS; round++) {
    const result = await serve({ ...caller, retry })
    if (!isInputRequired(result)) return result
    const requests = Object.entries(isJsonObject(result.inputRequests) ? result.inputRequests : {})
    if (requests.length === 0) await wait(PACE_MS)
    if (requests.length > MAX_QUESTIONS)
      throw new ProtocolError(INTERNAL_ERROR, `the server asks ${requests.length} questions at once`)
    retry = {
      inputResponses: await answersTo(requests, client, caller.signal),
      ...(result.requestState !== undefined && { requestState: result.requestState }),
    }
    if (caller.signal?.aborted) throw new ProtocolError(INTERNAL_ERROR, 'the caller cancelled the call')
  }
  throw new ProtocolError(INTERNAL_ERROR, `the server asked for input more than ${MAX_ROUNDS} times`)
}

async function answersTo(
  requests: readonly (readonly [string, unknown])[],
  client: NonNullable<Caller['client']>,
  cancellation: Cancellation | undefined,
): Promise<JsonObject> {
  const withdrawn = new AbortController()
  const withdraw = () => withdrawn.abort()
  cancellation?.addEventListener('abort', withdraw)
  try {
    const answers = requests.map(async ([key, request]) => {
      const { method, params = {} } = isJsonObject(request) ? request : { method: undefined }
      if (typeof method !== 'string' || !isJsonObject(params) || !client.ask)
        throw new ClientRefusal(INTERNAL_ERROR, 'the client cannot be asked')
      if (missingFor(method, params, client.capabilities) !== undefined)
        throw new ClientRefusal(
          INTERNAL_ERROR,
          `the client has not declared that it can answer ${method.slice(0, 100)}`,
        )
      const asking = client.ask({ method, params: withElicitationId(method, params), signal: withdrawn.signal })
      // The gateway's own question: whoever does not answer it has not said yes.
      return [key, await (key === CONFIRM_KEY ? asking.catch(() => ({ action: 'cancel' })) : asking)]
    })
    return Object.fromEntries(await Promise.all(answers))
  } catch (error) {
    withdraw()
    throw error
  } finally {
    cancellation?.removeEventListener('abort', withdraw)
  }
}

/** With 2025 an elicitation by URL has an id, which 2026 has no use for. */
const withElicitationId = (method: string, params: JsonObject): JsonObject =>
  method === 'elicitation/create' && params.mode === 'url' && params.elicitationId === undefined
    ? { ...params, elicitationId: crypto.randomUUID() }
    : params
