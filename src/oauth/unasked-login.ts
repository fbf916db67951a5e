import type { HttpServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import type { CredentialStore } from '../credentials/store.js'
import { messageOf } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import type { BearerChallenge } from './challenge.js'
import { whyHeadless } from './headless.js'

// After a login that nobody finished: agents try again, people are asked once in a while.
const PAUSE_MS = 10 * 60_000

export interface UnaskedLoginOptions {
  readonly store: CredentialStore
  readonly logger: Logger
  readonly env: Env
}

/**
 * Logins that a running gateway starts by itself when a server wants one: with `GATEWAY_OPEN_BROWSER=true`, or when a person has
 * started it in a terminal with a browser at hand. One at a time for each server. Resolves with the URL that was opened, while the
 * login goes on; undefined where this process must not.
 */
export function createUnaskedLogins({ store, logger, env }: UnaskedLoginOptions) {
  if (!mayOpen(env)) return undefined
  const urls = new Map<string, { url: Promise<string | undefined>; until: number }>()
  return (config: HttpServerConfig, challenge: BearerChallenge): Promise<string | undefined> => {
    const { name } = config
    const running = urls.get(name)
    if (running && Date.now() < running.until) return running.url
    const url = new Promise<string | undefined>(resolve => {
      const ended = startLogin(config, { challenge, onUrl: resolve }).then(
        () => urls.delete(name),
        error => logger.warn({ server: name, reason: messageOf(error) }, 'the login was not finished'),
      )
      void ended.finally(() => resolve(undefined))
    })
    urls.set(name, { url, until: Date.now() + PAUSE_MS })
    return url
  }

  async function startLogin(
    config: HttpServerConfig,
    { challenge, onUrl }: { challenge: BearerChallenge; onUrl: (url: string) => void },
  ): Promise<void> {
    const [{ login }, { openBrowser }] = await Promise.all([import('./login.js'), import('./browser.js')])
    const userAgent = {
      show: ({ url }: { url: string }) => onUrl(url),
      // Whether it opened does not matter: the URL is in the answer, and the callback is waited for in either case.
      open: async (url: string) => (await openBrowser(url)) || true,
      refused() {},
    }
    await login(config, { store, challenge, userAgent })
    logger.info({ server: config.name }, 'logged in')
  }
}

function mayOpen(env: Env): boolean {
  if (env.GATEWAY_OPEN_BROWSER) return env.GATEWAY_OPEN_BROWSER === 'true'
  return process.stdin.isTTY === true && process.stderr.isTTY === true && whyHeadless(env) === undefined
}
