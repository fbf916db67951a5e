import { createInterface } from 'node:readline'
import { loadServers } from '../config/load.js'
import { locateServersFile, stateDirectory } from '../config/locate.js'
import type { HttpServerConfig, ServerConfig } from '../config/servers-file.js'
import { openCredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { openBrowser } from '../oauth/browser.js'
import { whyHeadless } from '../oauth/headless.js'
import { login as logIn, requireOAuth } from '../oauth/login.js'
import { grantedScopes, type LoginRecord } from '../oauth/login-record.js'
import { probe } from '../oauth/probe.js'
import type { LoginPrompt, UserAgent } from '../oauth/user-agent.js'
import type { ConfigFlags } from './config-flags.js'
import { oneLine, print, visible } from './output.js'

// A day: nobody waits longer, and timers cannot.
const MAX_TIMEOUT_SECONDS = 86_400

export interface LoginFlags extends ConfigFlags {
  /** False with `--no-browser`. */
  readonly browser: boolean
  readonly device?: boolean
  /** Seconds. */
  readonly timeout: number
}

export async function login(name: string, { browser, device, timeout, ...flags }: LoginFlags): Promise<number> {
  const config = requireOAuth(await findServer(name, flags))
  const store = openCredentialStore({ directory: stateDirectory(process.env), env: process.env, warn: say })
  const headless = browser ? whyHeadless(process.env) : 'of --no-browser'
  const userAgent = createTerminal(name, headless)
  const record = await logIn(config, {
    store,
    device,
    timeLimitMs: Math.min(timeout, MAX_TIMEOUT_SECONDS) * 1000,
    userAgent,
  }).catch(error => {
    throw withAdvice(error, name)
  })
  print(record ? describe(name, record) : `the server "${name}" asks for no login`)
  if (record?.tokens && (await isRefused(config, record.tokens.accessToken))) {
    say(
      `warning: the server refuses the token it was given (HTTP 401), most likely for its audience: see "resource" in the OAuth guide`,
    )
  }
  return 0
}

/** Better told now than by the first call. */
async function isRefused(config: HttpServerConfig, token: string): Promise<boolean> {
  return probe(config, token).then(
    ({ wantsLogin }) => wantsLogin,
    () => false,
  )
}

/** The server of that name, from the servers file. Throws CONFIG_INVALID that names those there are. */
export async function findServer(name: string, flags: ConfigFlags): Promise<ServerConfig> {
  const file = locateServersFile({ ...flags, env: process.env, cwd: process.cwd() })
  const servers = await loadServers(file, process.env)
  const found = servers.find(server => server.name === name)
  if (found) return found
  const known = servers.map(server => server.name).join(', ') || 'none'
  throw new GatewayError('CONFIG_INVALID', `${file} has no server "${name}" (it has: ${known})`)
}

/** News for the person, on stderr: stdout has the result only. */
export const say = (text: string): void => void process.stderr.write(`${visible(text)}\n`)

/** The person at this terminal, or the script that plays one. `headless` says why no browser is opened. */
function createTerminal(name: string, headless: string | undefined): UserAgent {
  return {
    show: prompt => explainTo(prompt, name, headless),
    ...(headless === undefined && { open: openOrSay }),
    pasted: linesOfStdin(),
    refused: reason => say(`Not taken: ${reason}. Paste the whole address from the browser's address bar:`),
  }
}

/** Reads nothing before it is asked to: an end of stdin that nobody waits for yet would be missed. */
async function* linesOfStdin(): AsyncGenerator<string> {
  yield* createInterface({ input: process.stdin, terminal: false })
}

async function openOrSay(url: string): Promise<boolean> {
  const opened = await openBrowser(url)
  if (!opened) say('No browser could be opened: open the address above by hand.')
  return opened
}

function explainTo(prompt: LoginPrompt, name: string, headless: string | undefined): void {
  if (prompt.kind === 'device') {
    const until = prompt.expiresAt.toISOString().slice(11, 16)
    say(`To log in to "${name}", open this address on any device (until ${until} UTC):\n\n${prompt.url}\n`)
    say(`and enter the code ${oneLine(prompt.userCode, 40)}. Only if you started this login yourself.`)
    return
  }
  const opening = headless === undefined ? 'Your browser should open; if not, open this address' : 'Open this address'
  say(`${opening} to log in to "${name}":\n\n${prompt.url}\n`)
  if (headless === undefined) return
  const { port, hostname } = new URL(prompt.redirectUri)
  say(`(No browser is opened because ${headless}.)`)
  say(`If your browser runs on another machine, it ends at an address that does not load: paste that address here.`)
  if (/^(localhost|127\.|\[::1\])/.test(hostname)) say(`Or forward the port first: ssh -L ${port}:127.0.0.1:${port} …`)
}

function describe(name: string, record: LoginRecord): string {
  const account = record.account === undefined ? '' : ` as ${oneLine(record.account)}`
  const scopes = grantedScopes(record)
  const granted = scopes.length > 0 ? ` (scopes: ${oneLine(scopes.join(' '), 300)})` : ''
  return `logged in to "${name}"${account}${granted}`
}

function withAdvice(error: unknown, name: string): unknown {
  if (!(error instanceof GatewayError)) return error
  if (error.code === 'SERVER_UNAVAILABLE')
    return new GatewayError(error.code, `${error.message}; nothing was changed, try again later`, { cause: error })
  if (error.code !== 'AUTH_REQUIRED') return error
  const command = /^[\w.-]+$/.test(name) ? name : JSON.stringify(name)
  const ways = [
    `run "gateway login ${command}" in a terminal and paste the address the browser ends at`,
    `or "gateway login ${command} --device", if the server has it`,
    `or log in on another machine and bring the login here: "gateway credentials export ${command}" there, "gateway credentials import" here`,
  ]
  return new GatewayError('AUTH_REQUIRED', `${error.message}:\n  ${ways.join('\n  ')}`, { cause: error })
}
