import { setTimeout as wait } from 'node:timers/promises'
import type { BackendAuthorization, Refusal } from './backends/authorization.js'
import { Backend } from './backends/backend.js'
import { stateDirectory } from './config/locate.js'
import { findRunning, type RunningGateway } from './config/running.js'
import { parseServersFile } from './config/servers-file.js'
import type { Env } from './config/variables.js'
import { openCredentialStore } from './credentials/store.js'
import { GatewayError } from './errors/gateway-error.js'
import { Front } from './gateway/front.js'
import { Runtime } from './gateway/runtime.js'
import { ServerFactory } from './gateway/server.js'
import { openStdioFront, stdinEnded } from './gateway/stdio-front.js'
import { openEmbeddedIssuer } from './identity/embedded-issuer.js'
import { localPrincipal } from './identity/principal.js'
import { openLog } from './observability/logger.js'
import { createRedactor } from './observability/redactor.js'
import { compileRules } from './rules/compile.js'

const NAME = 'gateway'
const TOKEN_TTL_SECONDS = 10 * 60
const TOKEN_SPARE_MS = 2 * 60_000
const KNOWN_AFTER_MS = 5_000
const LOOK_MS = 50
// A restart takes seconds, and clients wait a minute.
const PATIENCE = { waitMs: 30_000, maxRetryMs: 1_000 }

export interface ConnectOptions {
  readonly env: Env
  /** The gateway to attach to. */
  readonly target: ConnectTarget
  readonly agent: string
}

/** Where a running gateway is, and whom tokens for it are made out to. */
export type ConnectTarget = Pick<RunningGateway, 'url' | 'audience'>

export interface Connector {
  /** Resolves when stdin ends. */
  run(): Promise<void>
  close(): Promise<void>
}

/**
 * A stdio entry that hands everything to a running gateway: the one server of a gateway of its own, relayed as it is. So it speaks
 * both eras on both sides, and a restart of the gateway is a server that was away for a moment.
 */
export async function startConnector({ env, target, agent }: ConnectOptions): Promise<Connector> {
  const redactor = createRedactor()
  const log = openLog({ level: env.LOG_LEVEL ?? 'warn', redactor })
  const { logger } = log
  const store = openCredentialStore({ directory: stateDirectory(env), env, warn: message => logger.warn(message) })
  const issuer = await openEmbeddedIssuer(store)
  const find = async () => (await findRunning(stateDirectory(env))).find(({ url }) => url === target.url)?.audience
  // Whoever can read the key of the issuer could give itself any scope.
  const issue = (audience: string) => issuer.issue({ agent, audience, ttlSeconds: TOKEN_TTL_SECONDS, scope: '*' })
  const entry = { url: target.url, timeoutMs: ONE_DAY_MS, maxTimeoutMs: ONE_DAY_MS }
  const document = { file: 'gateway connect', value: { mcpServers: { [NAME]: entry } }, problems: [] }
  const [server] = parseServersFile(document, {}).servers
  if (!server) throw new GatewayError('CONFIG_INVALID', `${target.url} is not the URL of a gateway`)
  const backend = new Backend(server, {
    env: {}, // never through a proxy: it is on this machine
    logger,
    redactor,
    patience: PATIENCE,
    authorize: () => new OwnToken({ find, issue, first: target.audience }),
  })
  const rules = { agents: { [agent]: { allow: { servers: [NAME] } } }, defaults: { deny_on_missing_agent: true } }
  const config = {
    files: { servers: '', rules: '' },
    servers: [server],
    rules,
    warnings: [],
    secrets: [],
    fingerprint: '',
  }
  const runtime = new Runtime({
    config,
    rules: compileRules(rules, [server]),
    backends: new Map([[NAME, backend]]),
    loadedAt: new Date(),
  })
  const audit = { write() {}, async close() {} } // the gateway itself writes the lines
  const front = new Front({ runtime, audit, logger, debug: false })
  const principal = localPrincipal({ pinnedAgent: agent })
  const handle = openStdioFront(new ServerFactory(front, () => principal), { server: NAME }, logger)
  return {
    run: stdinEnded,
    async close() {
      front.close()
      await handle.close()
      await runtime.close(0)
      await log.close()
    },
  }
}

// The gateway keeps the times of calls; here they only must not be shorter.
const ONE_DAY_MS = 24 * 60 * 60_000

interface OwnTokenOptions {
  /** Whom tokens for the gateway that runs now are made out to; undefined while none lets itself be known. */
  readonly find: () => Promise<string | undefined>
  readonly issue: (audience: string) => Promise<string>
  /** The audience of the gateway that was there in the beginning. */
  readonly first: string
}

/** A token of the embedded issuer, issued anew before it ends: whoever can read its key is at home. */
class OwnToken implements BackendAuthorization {
  readonly problem = undefined
  readonly #options: OwnTokenOptions
  #token: { readonly value: string; readonly audience: string; readonly until: number } | undefined
  #renewing: Promise<void> | undefined

  constructor(options: OwnTokenOptions) {
    this.#options = options
  }

  async token(): Promise<string> {
    const { find, first } = this.#options
    if (this.#token && Date.now() < this.#token.until) return this.#token.value
    return this.#issue((await find()) ?? first)
  }

  onAccepted(): void {}

  /** The gateway was started anew: it is another audience, and takes no token of the one before. */
  async onUnauthorized({ token }: Refusal): Promise<void> {
    if (this.#token && this.#token.value !== token) return // another call was here before
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined
    })
    await this.#renewing
  }

  async offerLogin(): Promise<undefined> {}

  async hasUntriedToken(): Promise<boolean> {
    return false
  }

  status() {
    return { kind: 'header' } as const
  }

  close(): void {}

  /** A gateway listens a moment before it lets itself be known. */
  async #renew(): Promise<void> {
    const { find, first } = this.#options
    const refused = this.#token?.audience ?? first
    const until = Date.now() + KNOWN_AFTER_MS
    while (Date.now() < until) {
      const audience = await find()
      if (audience !== undefined && audience !== refused) {
        await this.#issue(audience)
        return
      }
      await wait(LOOK_MS)
    }
    const message = 'the running gateway refuses the token of this user: it was started with another GATEWAY_STATE_DIR'
    throw new GatewayError('AUTH_REQUIRED', message)
  }

  async #issue(audience: string): Promise<string> {
    const value = await this.#options.issue(audience)
    this.#token = { value, audience, until: Date.now() + TOKEN_TTL_SECONDS * 1000 - TOKEN_SPARE_MS }
    return value
  }
}

/** Waits until a gateway of this user is running that `isMeant`; undefined when none has come up in time. */
export async function waitForRunning(
  env: Env,
  isMeant: (gateway: RunningGateway) => boolean,
  patienceMs: number,
): Promise<RunningGateway | undefined> {
  const until = Date.now() + patienceMs
  for (;;) {
    const found = (await findRunning(stateDirectory(env))).find(isMeant)
    if (found || Date.now() >= until) return found
    await wait(100)
  }
}
