import type { Backend } from '../backends/backend.js'
import type { CallClock, RawResult } from '../backends/call.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject } from '../json.js'
import { missingFor } from './client-features.js'
import type { Caller } from './tool.js'

/** Among the answers of a client: this one is for the gateway, not for the backend. */
const KEY = 'agent-mcp-gateway/login'

/**
 * A server wants a login, and the person is at this machine behind a client that can be asked to open a page: asks for that
 * (2025-11-25 and later, "Elicitation", URL mode). Undefined where that is not so; then the error says which command logs in.
 */
export async function toLoginElicitation(
  error: unknown,
  backend: Backend,
  { client, principal, retry }: Caller,
): Promise<RawResult | undefined> {
  if (!(error instanceof GatewayError) || error.code !== 'AUTH_REQUIRED' || !client || !principal.isLocal)
    return undefined
  if (missingFor('elicitation/create', { mode: 'url' }, client.capabilities) !== undefined) return undefined
  if (retry?.inputResponses && KEY in retry.inputResponses) return undefined // once is enough
  const url = typeof error.details.url === 'string' ? error.details.url : await backend.offerLogin()
  if (url === undefined) return undefined
  const message = `The server "${backend.name}" wants a login. Open this page to log in.`
  const request = { method: 'elicitation/create', params: { mode: 'url', message, url } }
  return { resultType: 'input_required', inputRequests: { [KEY]: request } }
}

/** The client's answers that are for the backend; one to the question above is waited upon first. */
export async function withoutLogin(
  { retry, principal }: Caller,
  backend: Backend,
  clock: CallClock,
): Promise<JsonObject | undefined> {
  if (!retry?.inputResponses || !(KEY in retry.inputResponses)) return retry
  const { [KEY]: answer, ...others } = retry.inputResponses
  // Nobody else is asked, so nobody else has an answer.
  const wasAsked = principal.isLocal && backend.failure?.code === 'AUTH_REQUIRED'
  if (wasAsked && isJsonObject(answer) && answer.action === 'accept') await backend.untilLoggedIn(clock)
  const { requestState } = retry
  if (Object.keys(others).length === 0 && requestState === undefined) return undefined
  return { inputResponses: others, ...(requestState !== undefined && { requestState }) }
}
