import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici'
import type { Env } from './variables.js'

// A proxy elsewhere does not reach what is on this machine.
const NEVER = ['localhost', '127.0.0.1', '::1', '[::1]']

const isThisMachine = (host: string): boolean => /^(localhost|.*\.localhost|127\..*|0\.0\.0\.0|\[::1?\])$/.test(host)

/** What the environment says about proxies, in either spelling; the small letters win, as in curl. */
export function proxySettings(env: Env): { httpProxy?: string; httpsProxy?: string; noProxy: string } | undefined {
  const httpProxy = env.http_proxy || env.HTTP_PROXY
  const httpsProxy = env.https_proxy || env.HTTPS_PROXY
  if (!httpProxy && !httpsProxy) return undefined
  const noProxy = [env.no_proxy || env.NO_PROXY || '', ...NEVER].filter(entry => entry !== '').join(',')
  return { ...(httpProxy && { httpProxy }), ...(httpsProxy && { httpsProxy }), noProxy }
}

/** Connections to where `url` is, through the proxies of the environment where there are any and it is not this machine. */
export function openDispatcher(url: string | URL, options: Agent.Options, env: Env = process.env): Dispatcher {
  const proxies = isThisMachine(new URL(url).hostname) ? undefined : proxySettings(env)
  return proxies ? new EnvHttpProxyAgent({ ...options, ...proxies }) : new Agent(options)
}
