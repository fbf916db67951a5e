import type { Backend } from '../../backends/backend.js'
import { type HttpServerConfig, hasOwnAuthorization } from '../../config/servers-file.js'
import type { CredentialStore } from '../../credentials/store.js'
import type { GatewayError } from '../../errors/gateway-error.js'
import { messageOf } from '../../errors/gateway-error.js'
import { parseChallenge } from '../../oauth/challenge.js'
import { oauthOf } from '../../oauth/discovery.js'
import { examineLogin, LOGIN_STEPS } from '../../oauth/examine.js'
import { readLogin } from '../../oauth/login-record.js'
import { type Advise, CONNECTION_CHECKS, examineConnection } from './connection.js'
import { askOnce, type HttpAnswer, type Limit, openLimit, reach } from './reach.js'
import { openSection, type Section } from './section.js'

const CHECKS = ['DNS', 'connection', 'HTTP', ...LOGIN_STEPS, ...CONNECTION_CHECKS]
const REACHED = ['DNS', 'connection', 'HTTP', ...CONNECTION_CHECKS]

export interface HttpExamination {
  readonly backend: Backend
  /** Reads only. Rejects when there is nothing that can be read. */
  readonly store: CredentialStore
  readonly limitMs: number
}

export async function examineHttp(
  section: Section,
  config: HttpServerConfig,
  { backend, store, limitMs }: HttpExamination,
): Promise<void> {
  const names = Object.keys(config.headers)
  if (names.length > 0) section.ok('headers', `its own: ${names.join(', ')}`)
  const limit = openLimit(limitMs)
  try {
    const answer = (await reach(section, config, limit)) ? await ask(section, config, limit) : undefined
    if (!answer) return section.skipRest(REACHED, 'the server cannot be reached')
    if (wantsLogin(config, answer)) section.ok('HTTP', 'HTTP 401: it wants a login')
    const way = { backend, store, answer, limit }
    if (wantsLogin(config, answer) || (await hasLogin(config, store)))
      return await examineWithLogin(section, config, way)
    await examineWithoutLogin(section, config, way)
  } finally {
    limit.stop()
  }
}

interface Way extends Omit<HttpExamination, 'limitMs'> {
  readonly answer: HttpAnswer
  readonly limit: Limit
}

async function ask(section: Section, config: HttpServerConfig, limit: Limit): Promise<HttpAnswer | undefined> {
  try {
    return await askOnce(config, limit)
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    const found = limit.signal.aborted ? messageOf(limit.signal.reason) : `no HTTP answer: ${messageOf(cause)}`
    section.failed(
      'HTTP',
      found,
      'it takes connections and does not answer: see whether it speaks HTTP, and what it logs',
    )
    return undefined
  }
}

const takesPartInOAuth = (config: HttpServerConfig): boolean => config.oauth !== false && !hasOwnAuthorization(config)

const wantsLogin = (config: HttpServerConfig, { status }: HttpAnswer): boolean =>
  status === 401 && takesPartInOAuth(config)

/** One that the server did not ask for now, but may ask for with calls. */
async function hasLogin(config: HttpServerConfig, store: CredentialStore): Promise<boolean> {
  if (!takesPartInOAuth(config)) return false
  if (oauthOf(config).grant === 'client_credentials') return true
  return readLogin(store, config).then(
    login => login !== undefined,
    () => false,
  )
}

async function examineWithLogin(section: Section, config: HttpServerConfig, way: Way): Promise<void> {
  const { backend, store, answer, limit } = way
  const command = `gateway login ${/^[\w.-]+$/.test(config.name) ? config.name : JSON.stringify(config.name)}`
  if (!wantsLogin(config, answer)) section.ok('HTTP', `${statusText(answer)}: answers without a login`)
  const challenge = wantsLogin(config, answer) ? await parseChallenge(answer.challenge) : undefined
  const steps = await examineLogin(config, { challenge, store, timeLeftMs: limit.timeLeftMs, command })
  for (const step of steps) section.add(step)
  const broken = steps.find(({ status }) => status === 'failed')
  if (broken) return section.skipRest(CHECKS, `after "${broken.check}" failed`)
  await examineConnection(section, backend, adviceWith(command))
}

async function examineWithoutLogin(
  section: Section,
  config: HttpServerConfig,
  { backend, answer }: Way,
): Promise<void> {
  const isGood = answer.status >= 200 && answer.status < 300
  if (isGood) {
    section.ok('HTTP', `${statusText(answer)}: answers without a login`)
    await examineConnection(section, backend, adviceWith(undefined))
    return
  }
  // Servers of 2025 refuse the question of 2026 with many a status: what it means is known when they have been asked their way.
  const trial = openSection(section.subject)
  if (await examineConnection(trial, backend, adviceWith(undefined))) {
    section.ok('HTTP', `${statusText(answer)} to the newest question; it is of an older era`)
    for (const finding of trial.findings) section.add(finding)
    return
  }
  section.failed('HTTP', statusText(answer), adviceOn(answer, config))
  section.skipRest(CONNECTION_CHECKS, 'after "HTTP" failed')
}

function statusText({ status, contentType, location }: HttpAnswer): string {
  const where = location === undefined ? '' : `, to ${location.replace(/[?#].*/, '').slice(0, 200)}`
  return `HTTP ${status}${where}${contentType === '' ? '' : `, ${contentType}`}`
}

function adviceOn({ status }: HttpAnswer, config: HttpServerConfig): string {
  if (status === 401 && hasOwnAuthorization(config))
    return 'the server does not take the Authorization header of the servers file: renew what is in it'
  if (status === 401) return 'the server wants a login, and "oauth" is false for it: remove that, then gateway login'
  if (status === 403)
    return 'the server knows this request and refuses it: check headers, account, and its own allow lists'
  if (status === 404 || status === 405 || status === 410)
    return 'there is no MCP at this path: look up the endpoint in its documentation (often /mcp or /sse) and correct "url"'
  if (status === 429) return 'it limits the rate of requests: wait, then try again'
  if (status >= 300 && status < 400) return 'write the URL it leads to into "url", if you trust it'
  if (status >= 500) return 'the server is in trouble: try again later, or look at its log'
  return 'correct "url" and "headers"; the log of the server says what it did not like'
}

const adviceWith =
  (command: string | undefined): Advise =>
  (error: GatewayError | undefined) => {
    if (error?.code === 'AUTH_REQUIRED' && command !== undefined)
      return `the server does not take the token of this login: run ${command}; if that does not help, see "resource" in docs/oauth.md`
    return 'it answers HTTP, but not as an MCP server does: check the path in "url"'
  }
