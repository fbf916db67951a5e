import { setTimeout as wait } from 'node:timers/promises'
import * as oauth from 'oauth4webapi'
import { GatewayError } from '../errors/gateway-error.js'
import { parseJson } from '../json.js'
import { checkAuthorizationEndpoint } from './authorization-endpoint.js'
import { toClientAuth, toOAuth4webapi } from './client-authentication.js'
import { exchangeDeviceCode, requestOptions, type TokenEndpoint } from './token-endpoint.js'
import { type Grant, TokenRefusal } from './token-response.js'
import type { UserAgent } from './user-agent.js'

export const DEVICE_GRANT = 'urn:ietf:params:oauth:grant-type:device_code'

const DEFAULT_INTERVAL_SECONDS = 5
const SLOW_DOWN_SECONDS = 5
const MAX_INTERVAL_SECONDS = 60
// No code is worth waiting for longer than this.
const MAX_LIFETIME_SECONDS = 30 * 60

/** A login on another device with a code (RFC 8628). Throws LOGIN_FAILED, TokenRefusal, or what the fetch rejects with. */
export async function authorizeDevice(
  endpoint: TokenEndpoint,
  scopes: readonly string[],
  { userAgent, signal }: { readonly userAgent: UserAgent; readonly signal: AbortSignal },
): Promise<Grant> {
  const device = await requestDeviceCode(endpoint, scopes)
  const lifetime = Math.min(device.expires_in, MAX_LIFETIME_SECONDS)
  const expiresAt = new Date(Date.now() + lifetime * 1000)
  const { href: url } = checkAuthorizationEndpoint(device.verification_uri_complete ?? device.verification_uri)
  userAgent.show({ kind: 'device', url, userCode: device.user_code, expiresAt })
  let interval = Math.min(device.interval ?? DEFAULT_INTERVAL_SECONDS, MAX_INTERVAL_SECONDS)
  while (Date.now() < expiresAt.getTime()) {
    await wait(interval * 1000, undefined, { signal }).catch(() => {
      throw signal.reason
    })
    try {
      return await exchangeDeviceCode(endpoint, device.device_code)
    } catch (error) {
      interval = nextInterval(error, interval)
    }
  }
  throw new GatewayError('LOGIN_FAILED', 'the code was not entered in time')
}

async function requestDeviceCode(
  { server, client, settings, resource, fetch }: TokenEndpoint,
  scopes: readonly string[],
): Promise<oauth.DeviceAuthorizationResponse> {
  if (server.device_authorization_endpoint === undefined) {
    throw new GatewayError('LOGIN_FAILED', `${server.issuer} has no login by device code: leave --device out`)
  }
  const named = toOAuth4webapi(client)
  const auth = await toClientAuth(client, settings, server)
  const parameters = {
    ...(scopes.length > 0 && { scope: scopes.join(' ') }),
    ...(resource !== undefined && { resource }),
  }
  const response = await oauth.deviceAuthorizationRequest(server, named, auth, parameters, requestOptions(fetch))
  if (!response.ok) throw refusalOf(server, response.status, await response.text())
  return oauth.processDeviceAuthorizationResponse(server, named, response).catch(error => {
    throw new GatewayError('LOGIN_FAILED', `${server.issuer} gave no usable device code: ${error.message}`)
  })
}

function refusalOf({ issuer }: oauth.AuthorizationServer, status: number, body: string): Error {
  const { error, error_description: description } = Object(parseJson(body)?.value)
  if (status >= 500 || status === 429 || typeof error !== 'string')
    return new GatewayError('SERVER_UNAVAILABLE', `the device endpoint of ${issuer} answered HTTP ${status}`)
  return new TokenRefusal(error, typeof description === 'string' ? description : undefined)
}

/** RFC 8628, section 3.5: pending is no failure, and a server in trouble is asked less often. Throws everything that is final. */
function nextInterval(error: unknown, interval: number): number {
  if (error instanceof TokenRefusal && error.code === 'authorization_pending') return interval
  if (error instanceof TokenRefusal && error.code === 'slow_down') return interval + SLOW_DOWN_SECONDS
  if (error instanceof GatewayError && error.code === 'SERVER_UNAVAILABLE')
    return Math.min(interval * 2, MAX_INTERVAL_SECONDS)
  throw error
}
