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
  /** True for a process that a person may have started in a terminal. */
  readonly mayOpenBrowser: boolean
}

export interface UnaskedLogins {
  /**
   * Starts a login and opens a browser, where this process may do so by itself, or joins the one under way. Resolves with its URL;
   * undefined when there was one a short while ago.
   */
  start(config: HttpServerConfig, challenge: BearerChallenge): Promise<string | undefined>
  /** The same for a person who was asked and opens the URL himself. */
  offer(config: HttpServerConfig, challenge: BearerChallenge): Promise<string | undefined>
  /** Ends what is under way. */
  close(): void
}

/**
 * Logins that a running gateway starts by itself when a server wants one: with `GATEWAY_OPEN_BROWSER=true`, or when a person has
 * started it in a terminal with a browser at hand; and those that a client puts to its person.
 */
export function createUnaskedLogins({ store, logger, env, mayOpenBrowser }: UnaskedLoginOptions): UnaskedLogins {
  const opensBrowser = mayOpenBrowser && mayOpen(env)
  const closing = new AbortController()
  const started = new Map<string, { readonly url: Promise<string | undefined>; readonly at: number; isOver: boolean }>()

  return {
    async start(config, challenge) {
      if (!opensBrowser) return undefined
      const last = started.get(config.name)
      // Also after one that went well: a server that takes no token must not open one tab after the other.
      if (last?.isOver && Date.now() < last.at + PAUSE_MS) return undefined
      return begin(config, challenge, true)
    },
    offer: (config, challenge) => begin(config, challenge, false),
    close: () => closing.abort(new Error('the gateway is shutting down')),
  }

  function begin(config: HttpServerConfig, challenge: BearerChallenge, opens: boolean): Promise<string | undefined> {
    const last = started.get(config.name)
    if (last && !last.isOver) return last.url
    let onUrl = (_url: string | undefined): void => {}
    const url = new Promise<string | undefined>(resolve => {
      onUrl = resolve
    })
    const entry = { url, at: Date.now(), isOver: false }
    started.set(config.name, entry)
    void logIn(config, challenge, { onUrl, opens })
      .catch(error => logger.warn({ server: config.name, reason: messageOf(error) }, 'the login was not finished'))
      .finally(() => {
        entry.isOver = true
        onUrl(undefined)
      })
    return url
  }

  async function logIn(
    config: HttpServerConfig,
    challenge: BearerChallenge,
    { onUrl, opens }: { onUrl: (url: string) => void; opens: boolean },
  ): Promise<void> {
    const [{ login }, { openBrowser }] = await Promise.all([import('./login.js'), import('./browser.js')])
    const userAgent = {
      show: ({ url }: { url: string }) => onUrl(url),
      // Whether it opened does not matter: the URL is in the answer, and the callback is waited for in either case.
      open: async (url: string) => (opens && (await openBrowser(url))) || true,
      refused() {},
    }
    await login(config, { store, challenge, userAgent, signal: closing.signal, isUnasked: opens })
    logger.info({ server: config.name }, 'logged in')
  }
}

function mayOpen(env: Env): boolean {
  if (env.GATEWAY_OPEN_BROWSER) return env.GATEWAY_OPEN_BROWSER === 'true'
  return process.stdin.isTTY === true && process.stderr.isTTY === true && whyHeadless(env) === undefined
}
