import { GatewayError } from '../errors/gateway-error.js'
import { isLoopbackHost } from './addresses.js'
import { quoted } from './quoted.js'

// RFC 3986 without what a shell, a launcher or a terminal might act on.
const PLAIN = /^[A-Za-z0-9\-._~:/?#[\]@&=+,%*]+$/
const PERCENT_ENCODED = /^(?:[^%]|%[0-9A-Fa-f]{2})*$/
const QUERY = /^\?[^&=]+=[^&=]*(?:&[^&=]+=[^&=]*)*$/

/**
 * The endpoint as a URL that is safe to hand to a browser. It comes from a server, and launchers on some systems have run what
 * such URLs contained (CVE-2025-6514): only a plain `https:` URL, or an `http:` one to loopback, passes. Throws LOGIN_FAILED.
 */
export function checkAuthorizationEndpoint(text: string): URL {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) throw unsafe(text, 'it is not an http: or https: URL')
  if (!PLAIN.test(text) || !PERCENT_ENCODED.test(text)) throw unsafe(text, 'it contains characters a URL does not have')
  const url = new URL(text)
  if (url.protocol !== 'https:' && !isLoopbackHost(url.hostname)) throw unsafe(text, 'it is not https:')
  if (url.username !== '' || url.password !== '') throw unsafe(text, 'it contains a user or password')
  if (url.hostname.split('.').some(label => label.startsWith('-'))) throw unsafe(text, 'its host name is not one')
  if (url.pathname.includes('&') || url.hash !== '' || (url.search !== '' && !QUERY.test(url.search)))
    throw unsafe(text, 'its path, query or fragment is not well-formed')
  return url
}

const unsafe = (text: string, why: string): GatewayError =>
  new GatewayError(
    'LOGIN_FAILED',
    `the authorization server names an authorization_endpoint that is not safe to open, ${quoted(text)}: ${why}`,
  )
