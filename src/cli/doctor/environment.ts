import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { delimiter } from 'node:path'
import { distance } from 'fastest-levenshtein'
import type { Env } from '../../config/variables.js'
import { messageOf } from '../../errors/gateway-error.js'
import { endingsOf, findProgram } from './programs.js'
import type { Section } from './section.js'

const { engines }: { engines: { node: string } } = createRequire(import.meta.url)('../../../package.json')

const MAX_TYPOS = 3

/** Variables of the gateway itself; `MCP_` and `OAUTH_` are also what others call theirs. */
export const KNOWN_VARIABLES: readonly string[] = [
  'GATEWAY_ALLOWED_HOSTS',
  'GATEWAY_AUDIT_LOG',
  'GATEWAY_AUDIT_MAX_BYTES',
  'GATEWAY_AUDIT_REQUIRED',
  'GATEWAY_CREDENTIALS_KEY',
  'GATEWAY_CREDENTIALS_KEY_FILE',
  'GATEWAY_DEBUG',
  'GATEWAY_DEFAULT_AGENT',
  'GATEWAY_KEYCHAIN',
  'GATEWAY_MCP_CONFIG',
  'GATEWAY_METRICS_PORT',
  'GATEWAY_OPEN_BROWSER',
  'GATEWAY_PASSPHRASE',
  'GATEWAY_RULES',
  'GATEWAY_STATE_DIR',
  'MCP_RESOURCE_URI',
  'MCP_SERVER_HOST',
  'MCP_SERVER_PORT',
  'OAUTH_AUDIENCE',
  'OAUTH_GATEWAY_URL',
  'OAUTH_ISSUER',
  'OAUTH_JWKS_URI',
  'OAUTH_SCOPES',
]

export interface Machine {
  readonly env: Env
  readonly cwd: string
  /** Undefined where apps of the desktop have the PATH that everybody has. */
  readonly desktopPath: string | undefined
}

export async function examineEnvironment(section: Section, { env, cwd, desktopPath }: Machine): Promise<void> {
  const version = process.versions.node
  const needed = engines.node.replace(/^\D+/, '')
  if (isAtLeast(version, needed)) section.ok('Node', `${version} (needs ${needed})`)
  else section.failed('Node', `${version}, needs ${needed}`, `install Node ${needed} or newer: https://nodejs.org`)
  section.ok('platform', `${process.platform} ${process.arch}`)

  const path = env.PATH ?? ''
  const place = { path, cwd, endings: endingsOf(env) }
  const missing = ['npm', 'npx'].filter(name => findProgram(name, place) === undefined)
  if (missing.length === 0) section.ok('npm, npx', findProgram('npx', place) ?? '')
  else {
    section.warning('npm, npx', `not in PATH: ${missing.join(', ')}`, 'servers that npx starts need them: install npm')
  }
  if (path === '') section.failed('PATH', 'is empty', 'set PATH: no command is found without it')
  else section.ok('PATH', inShort(path))
  if (desktopPath === undefined) section.ok('PATH of apps', 'the same for all')
  else section.ok('PATH of apps', `${inShort(desktopPath)} (when a desktop app starts the gateway)`)
  examineSpelling(section, env)
}

const inShort = (path: string): string => {
  const places = path.split(delimiter)
  return places.length > 6 ? `${places.slice(0, 6).join(delimiter)}${delimiter}… (${places.length} places)` : path
}

export function isAtLeast(version: string, needed: string): boolean {
  const [own, wanted] = [version, needed].map(text => text.split('.').map(Number))
  for (const [at, part] of (wanted ?? []).entries()) {
    const difference = (own?.[at] ?? 0) - part
    if (difference !== 0) return difference > 0
  }
  return true
}

/** Names that are nearly one of ours. Those that are far from all of them belong to somebody else. */
function examineSpelling(section: Section, env: Env): void {
  const strangers = Object.keys(env).filter(
    name => /^(GATEWAY|MCP|OAUTH)_/.test(name) && !KNOWN_VARIABLES.includes(name),
  )
  const typos = strangers.flatMap(name => {
    const [nearest] = KNOWN_VARIABLES.map(known => ({ known, typos: distance(name, known) })).sort(
      (a, b) => a.typos - b.typos,
    )
    return nearest && nearest.typos <= MAX_TYPOS ? [{ name, known: nearest.known }] : []
  })
  for (const { name, known } of typos)
    section.warning('variables', `${name} is not one the gateway reads`, `did you mean ${known}?`)
  if (typos.length === 0) section.ok('variables', 'none that looks misspelt')
}

/** What decides how other machines are reached: proxies and certificates. */
export async function examineNetwork(section: Section, env: Env): Promise<void> {
  const proxies = ['HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY'].filter(name => env[name] || env[name.toLowerCase()])
  if (proxies.length === 0) section.ok('proxy', 'none is set')
  else {
    section.warning(
      'proxy',
      `${proxies.map(name => `${name} is ${withoutPassword(env[name] || env[name.toLowerCase()] || '')}`).join(', ')}`,
      'this version of the gateway connects directly: where only the proxy leads out, servers are not reached',
    )
  }
  const exceptions = env.NO_PROXY || env.no_proxy
  if (exceptions && proxies.length > 0) section.ok('NO_PROXY', exceptions)
  if (env.NODE_TLS_REJECT_UNAUTHORIZED === '0') {
    section.warning(
      'certificates',
      'are not checked at all (NODE_TLS_REJECT_UNAUTHORIZED is 0)',
      'unset it, and name the certificate of your own authority with NODE_EXTRA_CA_CERTS',
    )
  }
  await examineAuthorities(section, env.NODE_EXTRA_CA_CERTS)
}

async function examineAuthorities(section: Section, file: string | undefined): Promise<void> {
  const check = 'NODE_EXTRA_CA_CERTS'
  if (!file) return section.ok(check, 'is not set')
  const text = await readFile(file, 'utf8').catch((error: unknown) => ({ error }))
  if (typeof text !== 'string') {
    const advice = 'name a file that exists: Node goes on without it, with one warning only'
    return section.failed(check, `${file} cannot be read: ${messageOf(text.error)}`, advice)
  }
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  const certificates = blocks.map(toCertificate)
  const count = certificates.length
  if (count === 0 || certificates.includes(undefined)) {
    const what = count === 0 ? 'holds no certificate' : 'holds one that cannot be read'
    return section.failed(check, `${file} ${what}`, 'PEM is expected: openssl x509 -inform der -in FILE -out FILE.pem')
  }
  const old = certificates.filter(certificate => certificate && Date.parse(certificate.validTo) < Date.now())
  // Bundles always have some that nobody needs any more.
  if (old.length === count) {
    const found = `${file}: what it holds ran out (${old[0]?.validTo})`
    return section.warning(check, found, 'ask whoever runs the authority for the new certificate')
  }
  section.ok(check, `${file}: ${count} certificate${count === 1 ? '' : 's'}`)
}

function toCertificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem)
  } catch {
    return undefined
  }
}

function withoutPassword(text: string): string {
  if (!URL.canParse(text)) return 'no URL'
  const { protocol, host } = new URL(text)
  return `${protocol}//${host}`
}
