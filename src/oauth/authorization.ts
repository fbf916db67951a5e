import { setTimeout as wait } from 'node:timers/promises'
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../errors/gateway-error.js'
import { checkAuthorizationEndpoint } from './authorization-endpoint.js'
import type { CallbackListener } from './callback-listener.js'
import { toOAuth4webapi } from './client-authentication.js'
import { quoted } from './quoted.js'
import { exchangeCode, type TokenEndpoint } from './token-endpoint.js'
import { type Grant, TokenRefusal } from './token-response.js'
import type { UserAgent } from './user-agent.js'

// Nobody can paste any more and no browser is known to be open: a callback may still be on its way, but not for long.
const LAST_CHANCE_MS = 2_000
// More than launchers and many servers take.
const MAX_URL_LENGTH = 16 * 1024

/** One authorization request (RFC 6749, section 4.1.1; RFC 7636; RFC 8707). Good for one answer. */
export interface AuthorizationRequest {
  readonly url: string
  readonly state: string
  readonly verifier: string
  readonly redirectUri: string
}

/** Throws LOGIN_FAILED when the server has no authorization endpoint, or none that is safe to open. */
export async function createAuthorizationRequest(
  { server, client, resource }: TokenEndpoint,
  { redirectUri, scopes }: { readonly redirectUri: string; readonly scopes: readonly string[] },
): Promise<AuthorizationRequest> {
  if (server.authorization_endpoint === undefined)
    throw new GatewayError('LOGIN_FAILED', `${server.issuer} names no authorization_endpoint`)
  const url = checkAuthorizationEndpoint(server.authorization_endpoint)
  const state = oauth.generateRandomState()
  const verifier = oauth.generateRandomCodeVerifier()
  const parameters = {
    response_type: 'code',
    client_id: client.clientId,
    redirect_uri: redirectUri,
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    ...(scopes.length > 0 && { scope: scopes.join(' ') }),
    ...(resource !== undefined && { resource }),
    // OpenID Connect gives a refresh token only when the person is asked (Core, section 11).
    ...(scopes.includes('offline_access') && { prompt: 'consent' }),
  }
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value)
  if (url.href.length > MAX_URL_LENGTH)
    throw new GatewayError(
      'LOGIN_FAILED',
      `${server.issuer} makes for an authorization URL of ${url.href.length} characters`,
    )
  return { url: url.href, state, verifier, redirectUri }
}

export interface Conversation<Kept> {
  readonly listener: CallbackListener
  readonly userAgent: UserAgent
  /** Stores what was granted; the person is told that it worked after that and not before. */
  readonly keep: (grant: Grant) => Promise<Kept>
  /** Ends the wait, with the error to end it with as its reason. */
  readonly signal: AbortSignal
}

/**
 * Sends the person to the authorization server and takes the answer: from the loopback callback or pasted, whichever comes first.
 * Throws LOGIN_FAILED, AUTH_REQUIRED when nobody is there to log in, and what the code exchange rejects with.
 */
export async function authorize<Kept>(
  endpoint: TokenEndpoint,
  request: AuthorizationRequest,
  { listener, userAgent, signal, keep }: Conversation<Kept>,
): Promise<Kept> {
  const done = new AbortController()
  const ended = AbortSignal.any([signal, done.signal])
  const callback = listener.answerTo(request.state)
  userAgent.show({ kind: 'browser', url: request.url, redirectUri: request.redirectUri })
  const opened = userAgent.open?.(request.url).catch(() => false) ?? Promise.resolve(false)
  try {
    const answer = await Promise.race([
      callback,
      pastedAnswer(request.state, userAgent, opened, ended),
      aborted(ended, signal),
    ])
    return await redeem(endpoint, request, { answer, keep })
  } finally {
    done.abort()
  }
}

type Answer = Awaited<ReturnType<CallbackListener['answerTo']>>

/** Exchanges the code; the person's browser shows how that went, and not before. */
async function redeem<Kept>(
  endpoint: TokenEndpoint,
  request: AuthorizationRequest,
  { answer, keep }: { readonly answer: Answer; readonly keep: Conversation<Kept>['keep'] },
): Promise<Kept> {
  const { server, client } = endpoint
  try {
    const parameters = oauth.validateAuthResponse(server, toOAuth4webapi(client), answer.parameters, request.state)
    const kept = await keep(await exchangeCode(endpoint, parameters, request))
    answer.finish('You are logged in', 'You can close this window and go back to where you came from.')
    return kept
  } catch (thrown) {
    const error = explainAnswer(thrown, server)
    answer.finish('The login failed', error instanceof TokenRefusal ? refusalText(error) : error.message)
    throw error
  }
}

/** What is wrong with an authorization response, without trusting a word of one from somebody else. */
function explainAnswer(thrown: unknown, { issuer }: oauth.AuthorizationServer): Error {
  if (thrown instanceof oauth.AuthorizationResponseError) {
    const { error, error_description: description } = thrown
    const text = description === undefined ? error : `${error}: ${description}`
    return new GatewayError('LOGIN_FAILED', `${issuer} refused: ${quoted(text)}`)
  }
  if (thrown instanceof oauth.OperationProcessingError) {
    const got = thrown.cause instanceof Object && 'parameters' in thrown.cause ? issIn(thrown.cause.parameters) : ''
    const values = /iss/.test(thrown.message) ? ` (got ${got}, expected ${quoted(issuer)})` : ''
    return new GatewayError('LOGIN_FAILED', `the answer of the browser was not taken: ${thrown.message}${values}`)
  }
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}

function issIn(parameters: unknown): string {
  const iss = parameters instanceof URLSearchParams ? parameters.get('iss') : null
  return iss === null ? 'none' : quoted(iss)
}

export const refusalText = ({ code, description }: TokenRefusal): string =>
  quoted(`${code}${description === undefined ? '' : `: ${description}`}`)

/** The first pasted line that is the answer to this request. Never resolves without a terminal; rejects when nobody is there at all. */
async function pastedAnswer(
  state: string,
  { pasted, refused }: UserAgent,
  opened: Promise<boolean>,
  ended: AbortSignal,
): Promise<Answer> {
  for await (const line of pasted ?? []) {
    if (line.trim() === '') continue
    const parameters = parsePasted(line)
    if (!parameters) refused('the address must contain ?code=… and &state=…')
    else if (parameters.get('state') !== state) refused('that address belongs to another login (its state differs)')
    else return { parameters, finish() {} }
  }
  if (!(await opened)) {
    await wait(LAST_CHANCE_MS, undefined, { signal: ended })
    throw new GatewayError(
      'AUTH_REQUIRED',
      'the login was not finished: no browser was opened here, and the input ended before the address was pasted',
    )
  }
  return new Promise(() => {})
}

/** A whole redirect URL, or its query. A bare code is no answer: it does not say which login it belongs to. */
function parsePasted(line: string): URLSearchParams | undefined {
  const text = line.trim()
  const query = URL.canParse(text) ? new URL(text).search : text.replace(/^\?/, '')
  const parameters = new URLSearchParams(query)
  return parameters.has('state') && (parameters.has('code') || parameters.has('error')) ? parameters : undefined
}

function aborted(ended: AbortSignal, signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = () => {
      if (signal.aborted) reject(signal.reason)
    }
    if (ended.aborted) onAbort()
    else ended.addEventListener('abort', onAbort, { once: true })
  })
}
