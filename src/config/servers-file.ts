import { createHash } from 'node:crypto'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { isJsonObject } from '../json.js'
import type { JsonDocument } from './json-document.js'
import { formatPath, type Problem } from './problem.js'
import { toProblems, unknownKey } from './schema.js'
import { type Env, expandVariables } from './variables.js'

/** What every server has, whatever it is reached by. Times are milliseconds. */
interface CommonConfig {
  readonly name: string
  readonly description?: string | undefined
  readonly disabled: boolean
  /** Per call; progress resets it, `maxTimeoutMs` bounds it whatever happens. */
  readonly timeoutMs: number
  readonly maxTimeoutMs: number
  readonly startupTimeoutMs: number
  /** Ends a connection that nobody has used for so long; undefined: never. */
  readonly idleTimeoutMs?: number | undefined
  /** Tools that anybody may see; `undefined` allow means all. */
  readonly tools: { readonly allow?: readonly string[] | undefined; readonly deny: readonly string[] }
  readonly session: 'shared' | 'per-agent' | 'per-user'
  /** Why this server alone cannot run (an unset variable); the others are not touched by it. */
  readonly misconfigured: readonly Problem[]
  /** Equal fingerprints mean that nothing about the server changed. */
  readonly fingerprint: string
}

export interface StdioServerConfig extends CommonConfig {
  readonly transport: 'stdio'
  readonly command: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string | undefined
  readonly inheritEnv: readonly string[]
}

export interface HttpServerConfig extends CommonConfig {
  readonly transport: 'http' | 'sse'
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly oauth: OAuthConfig | false
}

export type ServerConfig = StdioServerConfig | HttpServerConfig

export type OAuthConfig = Readonly<z.infer<typeof OAuth>>

export interface ServersFile {
  readonly servers: readonly ServerConfig[]
  readonly problems: readonly Problem[]
  /** Values that must never be printed: what came out of the environment, headers, and anything named like a secret. */
  readonly secrets: readonly string[]
}

// setTimeout takes no more than a signed 32-bit number.
const milliseconds = z
  .number()
  .int()
  .positive()
  .max(2 ** 31 - 1)
const TIMEOUT_MS = 60_000
const MAX_TIMEOUT_MS = 30 * 60_000
const globs = z.array(z.string().min(1))

const OAuth = z.strictObject({
  grant: z.enum(['authorization_code', 'client_credentials']).optional(),
  clientId: z.string().min(1).optional(),
  clientSecret: z.string().min(1).optional(),
  privateKeyFile: z.string().min(1).optional(),
  signingAlgorithm: z.string().min(1).optional(),
  scopes: z.array(z.string().min(1)).optional(),
  callbackPort: z.number().int().min(1).max(65535).optional(),
  redirectUri: z.url().optional(),
  /** `false`: requests carry no `resource` at all, for servers that refuse it together with scopes. */
  resource: z.union([z.url(), z.literal(false)]).optional(),
  issuer: z.url().optional(),
  clientMetadataUrl: z.url().optional(),
  tokenEndpointAuthMethod: z.enum(['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt']).optional(),
})

const Common = z.strictObject({
  description: z.string().optional(),
  disabled: z.boolean().default(false),
  timeoutMs: milliseconds.optional(),
  maxTimeoutMs: milliseconds.optional(),
  startupTimeoutMs: milliseconds.default(120_000),
  idleTimeoutMs: milliseconds.optional(),
  tools: z.strictObject({ allow: globs.optional(), deny: globs.default([]) }).default({ deny: [] }),
  session: z.enum(['shared', 'per-agent', 'per-user']).default('shared'),
})

const Stdio = Common.extend({
  transport: z.literal('stdio'),
  command: z.string().min(1),
  args: z.array(z.string()).default([]),
  env: z.record(z.string(), z.string()).default({}),
  cwd: z.string().min(1).optional(),
  inheritEnv: z.array(z.string().min(1)).default([]),
})

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

const Http = Common.extend({
  transport: z.enum(['http', 'sse']),
  url: z
    .string()
    .refine(isHttpUrl, 'must be an http: or https: URL')
    .refine(hasNoUserInfo, 'must not contain a user or password: write an Authorization header'),
  headers: z
    .record(
      z.string().regex(HEADER_NAME, 'is not a header name (RFC 9110, section 5.1)'),
      z.string().refine(isFieldValue, 'must not contain line breaks'),
    )
    .default({}),
  oauth: z.union([OAuth, z.literal(false)]).default({}),
})

// A name is shown to agents, put into URLs and in front of tool names: no control characters, no slashes.
const SERVER_NAME = /^[^\p{Cc}/\\]{1,64}$/u

/** Reads the servers file: every mistake is collected, an unset variable condemns its own server only. */
export function parseServersFile({ file, value, problems }: JsonDocument, env: Env): ServersFile {
  const found = [...problems]
  const secrets = new Set<string>()
  const servers: ServerConfig[] = []
  if (value === undefined) return { servers, problems: found, secrets: [] }
  if (!isJsonObject(value))
    return {
      servers,
      problems: [...found, { file, path: '', message: 'must be an object with "mcpServers"' }],
      secrets: [],
    }
  for (const key of Object.keys(value)) {
    if (key !== 'mcpServers' && key !== '$schema')
      found.push({ file, path: formatPath([key]), message: unknownKey(key, ['mcpServers']) })
  }
  const entries = value.mcpServers
  if (!isJsonObject(entries)) {
    found.push({ file, path: 'mcpServers', message: 'is missing: an object that maps names to servers is expected' })
    return { servers, problems: found, secrets: [] }
  }
  for (const [name, entry] of Object.entries(entries)) {
    const parsed = parseServer({ file, name, entry, env })
    found.push(...parsed.problems)
    if (parsed.server) servers.push(parsed.server)
    for (const secret of parsed.secrets) secrets.add(secret)
  }
  return { servers, problems: found, secrets: [...secrets] }
}

/** True when the configuration itself brings the credentials: then a 401 is no reason to log in. */
export function hasOwnAuthorization(config: ServerConfig): boolean {
  return (
    config.transport !== 'stdio' && Object.keys(config.headers).some(name => name.toLowerCase() === 'authorization')
  )
}

interface RawServer {
  readonly file: string
  readonly name: string
  readonly entry: unknown
  readonly env: Env
}

interface ParsedServer {
  readonly server?: ServerConfig
  readonly problems: readonly Problem[]
  readonly secrets: readonly string[]
}

function parseServer({ file, name, entry, env }: RawServer): ParsedServer {
  const path = ['mcpServers', name]
  const refuse = (at: readonly PropertyKey[], message: string): ParsedServer => ({
    problems: [{ file, path: formatPath(at), message }],
    secrets: [],
  })
  if (!SERVER_NAME.test(name))
    return refuse(path, 'a server name has 1 to 64 characters and no slash or control character')
  if (!isJsonObject(entry)) return refuse(path, 'must be an object with "command" or "url"')
  if ('command' in entry && 'url' in entry)
    return refuse(path, 'has both "command" and "url": keep the one that reaches the server')
  if (!('command' in entry) && !('url' in entry)) {
    const known = [...new Set([...Object.keys(Stdio.shape), ...Object.keys(Http.shape), 'type'])]
    const strangers = Object.keys(entry).filter(key => !known.includes(key))
    const problems = strangers.map(key => ({ file, path: formatPath([...path, key]), message: unknownKey(key, known) }))
    const missing = {
      file,
      path: formatPath(path),
      message: 'needs "command" (a local process) or "url" (a remote server)',
    }
    return { problems: [missing, ...problems], secrets: [] }
  }
  if ('type' in entry && 'transport' in entry)
    return refuse([...path, 'type'], 'says the same as "transport": keep one of the two')

  const transport = transportOf(entry)
  if (transport === undefined) {
    const key = 'transport' in entry ? 'transport' : 'type'
    const expected = 'command' in entry ? '"stdio"' : '"http", "streamable-http" or "sse"'
    return refuse([...path, key], `is ${JSON.stringify(entry[key])}, expected ${expected}`)
  }
  const { type: _type, ...rest } = entry
  const unset: Problem[] = []
  const secrets = new Set<string>()
  const expanded = mapStrings(rest, path, (text, at) => {
    const expansion = expandVariables(text, env)
    for (const value of expansion.values) secrets.add(value)
    for (const variable of expansion.missing) {
      unset.push({
        file,
        path: formatPath(at),
        message: `the variable ${variable} is not set: set it, or write \${${variable}:-default}`,
      })
    }
    return expansion.text
  })
  const schema = transport === 'stdio' ? Stdio : Http
  const parsed = schema.safeParse({ ...(isJsonObject(expanded) ? expanded : {}), transport })
  // With a variable unset, a field may not look right (a URL, say); that is one mistake, not two.
  if (!parsed.success) {
    const problems = toProblems(file, parsed.error, schema, path)
    const unexplained = problems.filter(problem => !unset.some(({ path: at }) => at === problem.path))
    if (unexplained.length > 0) return { problems: unexplained, secrets: [...secrets] }
    return { server: placeholder(name, transport, entry, unset), problems: [], secrets: [...secrets] }
  }
  const { timeoutMs, maxTimeoutMs } = parsed.data
  if (timeoutMs !== undefined && maxTimeoutMs !== undefined && maxTimeoutMs < timeoutMs) {
    return refuse([...path, 'maxTimeoutMs'], `is less than timeoutMs (${timeoutMs})`)
  }
  const incomplete = problemOfGrant(parsed.data)
  if (incomplete) return refuse([...path, 'oauth'], incomplete)
  const config = withAbsoluteKeyFile({ ...parsed.data, ...timeouts(parsed.data) }, file)
  for (const secret of secretsOf(config)) secrets.add(secret)
  const misconfigured = config.disabled ? [] : unset
  return {
    server: { ...config, name, misconfigured, fingerprint: fingerprintOf(config) },
    problems: [],
    secrets: [...secrets],
  }
}

/** A machine's login has nobody to ask for what is missing. */
function problemOfGrant(config: Configured): string | undefined {
  if (config.transport === 'stdio' || config.oauth === false) return undefined
  const { grant, clientId, clientSecret, privateKeyFile } = config.oauth
  if (grant !== 'client_credentials') return undefined
  if (clientId === undefined) return 'the grant "client_credentials" needs "clientId"'
  if (clientSecret !== undefined || privateKeyFile !== undefined) return undefined
  return 'the grant "client_credentials" needs "clientSecret" or "privateKeyFile"'
}

/** Relative to the servers file: the directory a client starts the gateway in is anybody's guess. */
function withAbsoluteKeyFile<T extends Configured>(config: T, file: string): T {
  if (config.transport === 'stdio' || config.oauth === false || config.oauth.privateKeyFile === undefined) return config
  const privateKeyFile = resolve(dirname(file), config.oauth.privateKeyFile)
  return { ...config, oauth: { ...config.oauth, privateKeyFile } }
}

/** A server that cannot be built because of an unset variable still has a name, a transport and a reason. */
function placeholder(
  name: string,
  transport: ServerConfig['transport'],
  entry: Record<string, unknown>,
  unset: readonly Problem[],
): ServerConfig {
  const { data = Common.parse({}) } = Common.pick({ description: true, disabled: true }).loose().safeParse(entry)
  const parsed = Common.parse({ description: data.description, disabled: data.disabled })
  const misconfigured = parsed.disabled ? [] : unset
  const common = { ...parsed, ...timeouts(parsed), name, misconfigured, fingerprint: fingerprintOf(entry) }
  if (transport === 'stdio') return { ...common, transport, command: '', args: [], env: {}, inheritEnv: [] }
  return { ...common, transport, url: '', headers: {}, oauth: false }
}

/** The limit that is not written gives way to the one that is. */
function timeouts({ timeoutMs, maxTimeoutMs }: { timeoutMs?: number | undefined; maxTimeoutMs?: number | undefined }) {
  const max = maxTimeoutMs ?? Math.max(timeoutMs ?? 0, MAX_TIMEOUT_MS)
  return { timeoutMs: timeoutMs ?? Math.min(TIMEOUT_MS, max), maxTimeoutMs: max }
}

function transportOf(entry: Readonly<Record<string, unknown>>): ServerConfig['transport'] | undefined {
  const stated = entry.transport ?? entry.type
  if ('command' in entry) return stated === undefined || stated === 'stdio' ? 'stdio' : undefined
  if (stated === undefined || stated === 'http' || stated === 'streamable-http') return 'http'
  return stated === 'sse' ? 'sse' : undefined
}

type Configured = z.infer<typeof Stdio> | z.infer<typeof Http>

const NAMED_LIKE_A_SECRET = /key|token|secret|pass|auth|cred|pat$/i

function secretsOf(config: Configured): string[] {
  if (config.transport === 'stdio') {
    return Object.entries(config.env).flatMap(([name, value]) => (NAMED_LIKE_A_SECRET.test(name) ? [value] : []))
  }
  const query = URL.canParse(config.url) ? [...new URL(config.url).searchParams.values()] : []
  const credentials = Object.values(config.headers).flatMap(value => [value, value.replace(/^\S+\s+/, '')])
  if (config.oauth !== false && config.oauth.clientSecret !== undefined) credentials.push(config.oauth.clientSecret)
  return [...credentials, ...query]
}

const fingerprintOf = (config: unknown): string =>
  createHash('sha256').update(JSON.stringify(config)).digest('hex').slice(0, 16)

function mapStrings(
  value: unknown,
  path: readonly PropertyKey[],
  map: (text: string, path: readonly PropertyKey[]) => string,
): unknown {
  if (typeof value === 'string') return map(value, path)
  if (Array.isArray(value)) return value.map((item, index) => mapStrings(item, [...path, index], map))
  if (!isJsonObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mapStrings(item, [...path, key], map)]))
}

function isHttpUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)
}

function hasNoUserInfo(text: string): boolean {
  if (!URL.canParse(text)) return true
  const { username, password } = new URL(text)
  return username === '' && password === ''
}

function isFieldValue(text: string): boolean {
  // These end a header (RFC 9110, section 5.5).
  return !/[\r\n\0]/.test(text)
}
