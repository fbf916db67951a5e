import { createHash, randomUUID } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { RawResult } from '../backends/call.js'
import type { BackendTool } from '../backends/tool.js'
import { parseArgumentPath } from '../config/condition-syntax.js'
import { GatewayError } from '../errors/gateway-error.js'
import { inOrder, isJsonObject, type JsonObject } from '../json.js'
import type { Decision } from '../rules/decide.js'
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
  readonly decision: Decision | undefined
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
  readonly tool: BackendTool['definition']
  readonly args: JsonObject
}

interface Waiting {
  /** The principal that was asked, and for which call. */
  readonly by: string
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

  /** Whether a request of this principal only brings the answer to one that came before. */
  awaits({ requestState }: Retry, principal: string): boolean {
    return typeof requestState === 'string' && this.#waiting.get(requestState)?.by === principal
  }

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
    const message = questionAbout(confirmed, call.decision?.arguments)
    const obstacle = canBeAsked(call.caller) ? problemWithSize(confirmed, message) : CANNOT_BE_ASKED
    if (obstacle !== undefined) {
      call.confirmation = 'impossible'
      throw refused(confirmed, `the rules want a person to confirm this call, and ${obstacle}`)
    }
    call.confirmation = 'asked'
    const params = { mode: 'form', message, requestedSchema: NOTHING_TO_FILL_IN }
    return {
      resultType: 'input_required',
      inputRequests: { [CONFIRM_KEY]: { method: 'elicitation/create', params } },
      requestState: this.#wait({ by: call.caller.principal.key, about, isConfirmed: false }),
    }
  }

  /** A backend asks something in the middle of a call that was confirmed: it is not confirmed again for that. */
  carry(call: AskingCall, confirmed: ConfirmedCall, result: RawResult): RawResult {
    const about = digestOf(call, confirmed)
    return {
      ...result,
      requestState: this.#wait({
        by: call.caller.principal.key,
        about,
        isConfirmed: true,
        backendState: result.requestState,
      }),
    }
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

const refused = ({ server, tool: { name } }: ConfirmedCall, message: string): GatewayError =>
  new GatewayError('DENIED_BY_POLICY', `${message}: the tool "${name}" on the server "${server}" was not called`, {
    details: { server, tool: name, confirmation_required: true },
  })

const CANNOT_BE_ASKED = 'this client cannot be asked: it does not support elicitation'

function canBeAsked({ client, era }: AskingCall['caller']): boolean {
  if (!client || missingFor('elicitation/create', { mode: 'form' }, client.capabilities) !== undefined) return false
  return era === 'modern' || client.ask !== undefined
}

const digestOf = ({ caller }: AskingCall, { agent, server, tool, args }: ConfirmedCall): string =>
  createHash('sha256')
    .update(JSON.stringify([caller.principal.key, agent, server, tool.name, inOrder(args)]))
    .digest('base64')

// A person reads this, so it is all there or not asked: what is left out would be what the agent wants nobody to see.
const MAX_ARGUMENTS = 100
const MAX_LENGTH = 16_000

function problemWithSize({ args }: ConfirmedCall, question: string): string | undefined {
  const count = Object.keys(args).length
  const problem =
    count > MAX_ARGUMENTS
      ? `it has ${count} arguments, and the most is ${MAX_ARGUMENTS}`
      : question.length > MAX_LENGTH &&
        `it is ${inDigits(question.length)} characters long, and the most is ${inDigits(MAX_LENGTH)}`
  return problem ? `it is too large to be put to a person: ${problem}` : undefined
}

const inDigits = (count: number): string => count.toLocaleString('en')

/** `asked`: the arguments that the rule is about. */
function questionAbout({ agent, server, tool, args }: ConfirmedCall, asked: readonly string[] = []): string {
  const lines = inReadingOrder(args, [...asked.flatMap(topLevel), ...parametersOf(tool)]).map(
    name => `  ${quote(name)}: ${quote(args[name])}`,
  )
  return [
    `The agent ${quote(agent)} wants to call the tool ${quote(tool.name)} of the server ${quote(server)} ${lines.length === 0 ? 'without arguments.' : 'with these arguments:'}`,
    ...lines,
    'Allow this call?',
  ].join('\n')
}

/** In which order the agent sends them says nothing: what matters comes first, and what the tool does not know comes last. */
const inReadingOrder = (args: JsonObject, first: readonly string[]): string[] =>
  [...new Set([...first, ...Object.keys(args)])].filter(name => Object.hasOwn(args, name))

function topLevel(path: string): string[] {
  const steps = parseArgumentPath(path)
  const [step] = typeof steps === 'string' ? [] : steps
  return typeof step === 'object' && 'key' in step ? [step.key] : []
}

const parametersOf = ({ inputSchema: { properties } }: ConfirmedCall['tool']): string[] =>
  isJsonObject(properties) ? Object.keys(properties) : []

/** As JSON on one line, in which nothing is invisible or makes what follows look like something else. */
const quote = (value: unknown): string => (JSON.stringify(value) ?? '').replace(UNSEEN, escaped)

const UNSEEN = /(?! )[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/gu

const escaped = (character: string): string =>
  Array.from(
    { length: character.length },
    (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`,
  ).join('')
