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

export interface UnaskedLogins {
  /** Starts a login, or joins the one under way. Resolves with its URL; undefined when there was one a short while ago. */
  start(config: HttpServerConfig, challenge: BearerChallenge): Promise<string | undefined>
  /** Ends what is under way. */
  close(): void
}

/**
 * Logins that a running gateway starts by itself when a server wants one: with `GATEWAY_OPEN_BROWSER=true`, or when a person has
 * started it in a terminal with a browser at hand. Undefined where this process must not.
 */
export function createUnaskedLogins({ store, logger, env }: UnaskedLoginOptions): UnaskedLogins | undefined {
  if (!mayOpen(env)) return undefined
  const closing = new AbortController()
  const started = new Map<string, { readonly url: Promise<string | undefined>; readonly at: number; isOver: boolean }>()

  return {
    async start(config, challenge) {
      const last = started.get(config.name)
      if (last && !last.isOver) return last.url
      // Also after one that went well: a server that takes no token must not open one tab after the other.
      if (last && Date.now() < last.at + PAUSE_MS) return undefined
      let onUrl = (_url: string | undefined): void => {}
      const url = new Promise<string | undefined>(resolve => {
        onUrl = resolve
      })
      const entry = { url, at: Date.now(), isOver: false }
      started.set(config.name, entry)
      void logIn(config, challenge, onUrl)
        .catch(error => logger.warn({ server: config.name, reason: messageOf(error) }, 'the login was not finished'))
        .finally(() => {
          entry.isOver = true
          onUrl(undefined)
        })
      return url
    },
    close: () => closing.abort(new Error('the gateway is shutting down')),
  }

  async function logIn(
    config: HttpServerConfig,
    challenge: BearerChallenge,
    onUrl: (url: string) => void,
  ): Promise<void> {
    const [{ login }, { openBrowser }] = await Promise.all([import('./login.js'), import('./browser.js')])
    const userAgent = {
      show: ({ url }: { url: string }) => onUrl(url),
      // Whether it opened does not matter: the URL is in the answer, and the callback is waited for in either case.
      open: async (url: string) => (await openBrowser(url)) || true,
      refused() {},
    }
    await login(config, { store, challenge, userAgent, signal: closing.signal, isUnasked: true })
    logger.info({ server: config.name }, 'logged in')
  }
}

function mayOpen(env: Env): boolean {
  if (env.GATEWAY_OPEN_BROWSER) return env.GATEWAY_OPEN_BROWSER === 'true'
  return process.stdin.isTTY === true && process.stderr.isTTY === true && whyHeadless(env) === undefined
}
