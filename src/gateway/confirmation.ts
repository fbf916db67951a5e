import { createHash, randomUUID } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { RawResult } from '../backends/call.js'
import { GatewayError } from '../errors/gateway-error.js'
import { inOrder, isJsonObject, type JsonObject } from '../json.js'
import { missingFor } from './client-features.js'

/** Among the answers of a client: this one is for the gateway, not for the backend. */
export const CONFIRM_KEY = 'agent-mcp-gateway/confirm'
const STATE_PREFIX = `${CONFIRM_KEY}:`
// As long as a person may take, and for how many there is room.
const WAITING_MS = 10 * 60_000
const MAX_WAITING = 10_000

/** What became of a question whether a call may be made. */
export type Confirmation = 'asked' | 'accepted' | 'declined' | 'cancelled' | 'impossible'

/** A call in which a person may be asked. */
interface AskingCall {
  readonly caller: {
    readonly principal: { readonly key: string }
    readonly era: 'legacy' | 'modern'
    readonly client?: { readonly capabilities: JsonObject; readonly ask?: unknown } | undefined
  }
  confirmation: Confirmation | undefined
}

/** Answers to what was asked, and the state that came with the question. */
interface Retry {
  readonly inputResponses?: JsonObject
  readonly requestState?: unknown
}

/** A call as a person confirms it: nothing else may be made of the answer. */
export interface ConfirmedCall {
  readonly agent: string
  readonly server: string
  readonly tool: string
  readonly args: JsonObject
}

interface Waiting {
  readonly about: string
  /** Confirmed before: what is waited for is something that the backend asked. */
  readonly isConfirmed: boolean
  readonly backendState?: unknown
}

/** What a client came back with, taken apart. */
export interface Returned {
  readonly waiting?: Waiting | undefined
  readonly answer?: unknown
  /** What of it is for the backend. */
  readonly retry: Retry | undefined
}

/**
 * Calls that a rule lets a person decide on (`"effect": "ask"`). The question is an `input_required` result (2026-07-28, "Multi
 * Round-Trip Requests"), which clients of 2025 get as an elicitation. A state is good once, and for exactly the call it was given for.
 */
export class Confirmations {
  // Whoever is forgotten here is asked again.
  readonly #waiting = new LRUCache<string, Waiting>({ max: MAX_WAITING, ttl: WAITING_MS })

  /** Takes out what is the gateway's own; from here on its state is spent. */
  take(retry: Retry | undefined): Returned {
    const { inputResponses, requestState } = retry ?? {}
    const isOurs = typeof requestState === 'string' && requestState.startsWith(STATE_PREFIX)
    if (!isOurs && !(inputResponses && CONFIRM_KEY in inputResponses)) return { retry }
    const { [CONFIRM_KEY]: answer, ...others } = inputResponses ?? {}
    const waiting = isOurs ? this.#waiting.get(requestState) : undefined
    if (isOurs) this.#waiting.delete(requestState)
    const state = isOurs ? waiting?.backendState : requestState
    const isEmpty = Object.keys(others).length === 0 && state === undefined
    return {
      waiting,
      answer,
      retry: isEmpty ? undefined : { inputResponses: others, ...(state !== undefined && { requestState: state }) },
    }
  }

  /** The question to put to the person first; undefined once it was answered with yes. Throws DENIED_BY_POLICY for a no. */
  settle(call: AskingCall, confirmed: ConfirmedCall, { waiting, answer }: Returned): RawResult | undefined {
    const about = digestOf(call, confirmed)
    if (waiting?.about === about && (waiting.isConfirmed || isJsonObject(answer))) {
      call.confirmation = waiting.isConfirmed ? 'accepted' : outcomeOf(answer)
      if (call.confirmation === 'accepted') return undefined
      throw refused(confirmed, `the rules want a person to confirm this call, and the person ${call.confirmation} it`)
    }
    if (!canBeAsked(call.caller)) {
      call.confirmation = 'impossible'
      throw refused(
        confirmed,
        'the rules want a person to confirm this call, and this client cannot be asked: it does not support elicitation',
      )
    }
    call.confirmation = 'asked'
    const params = { mode: 'form', message: questionAbout(confirmed), requestedSchema: NOTHING_TO_FILL_IN }
    return {
      resultType: 'input_required',
      inputRequests: { [CONFIRM_KEY]: { method: 'elicitation/create', params } },
      requestState: this.#wait({ about, isConfirmed: false }),
    }
  }

  /** A backend asks something in the middle of a call that was confirmed: it is not confirmed again for that. */
  carry(call: AskingCall, confirmed: ConfirmedCall, result: RawResult): RawResult {
    const about = digestOf(call, confirmed)
    return { ...result, requestState: this.#wait({ about, isConfirmed: true, backendState: result.requestState }) }
  }

  #wait(waiting: Waiting): string {
    const state = STATE_PREFIX + randomUUID()
    this.#waiting.set(state, waiting)
    return state
  }
}

// Accept and decline say it all.
const NOTHING_TO_FILL_IN = { type: 'object', properties: {} }

const outcomeOf = (answer: unknown): Confirmation => {
  const action = isJsonObject(answer) ? answer.action : undefined
  return action === 'accept' ? 'accepted' : action === 'decline' ? 'declined' : 'cancelled'
}

const refused = ({ server, tool }: ConfirmedCall, message: string): GatewayError =>
  new GatewayError('DENIED_BY_POLICY', `${message}: the tool "${tool}" on the server "${server}" was not called`, {
    details: { server, tool, confirmation_required: true },
  })

function canBeAsked({ client, era }: AskingCall['caller']): boolean {
  if (!client || missingFor('elicitation/create', { mode: 'form' }, client.capabilities) !== undefined) return false
  return era === 'modern' || client.ask !== undefined
}

const digestOf = ({ caller }: AskingCall, { agent, server, tool, args }: ConfirmedCall): string =>
  createHash('sha256')
    .update(JSON.stringify([caller.principal.key, agent, server, tool, inOrder(args)]))
    .digest('base64')

// A person reads this: everything that is there is named, and nothing is longer than can be read.
const MAX_ARGUMENTS = 30
const MAX_NAME = 100
const VALUE = { min: 60, max: 300, all: 3_000 }

function questionAbout({ agent, server, tool, args }: ConfirmedCall): string {
  const entries = Object.entries(args)
  const shown = entries.slice(0, MAX_ARGUMENTS)
  const length = Math.max(VALUE.min, Math.min(VALUE.max, Math.floor(VALUE.all / shown.length)))
  const lines = shown.map(([name, value]) => `  ${quote(name, MAX_NAME)}: ${quote(value, length)}`)
  const more = entries.length > shown.length ? [`  and ${entries.length - shown.length} more arguments`] : []
  return [
    `The agent ${quote(agent, MAX_NAME)} wants to call the tool ${quote(tool, MAX_NAME)} of the server ${quote(server, MAX_NAME)} ${entries.length === 0 ? 'without arguments.' : 'with these arguments:'}`,
    ...lines,
    ...more,
    'Allow this call?',
  ].join('\n')
}

/** As JSON on one line, without what would not show or would make what follows look like something else, and cut where it is long. */
function quote(value: unknown, length: number): string {
  const text = JSON.stringify(value) ?? ''
  const shown = text.slice(0, length).replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, '')
  return text.length > length ? `${shown}… (shortened, ${text.length} characters in all)` : shown
}
