import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { isAtLeast, KNOWN_VARIABLES } from '../../src/cli/doctor/environment.js'
import { desktopPath, pathIn } from '../../src/cli/doctor/programs.js'
import type { Keychain, KeychainAnswer } from '../../src/credentials/keychain.js'
import { openCredentialStore } from '../../src/credentials/store.js'
import { openEmbeddedIssuer } from '../../src/identity/embedded-issuer.js'
import { openIssuer } from '../fixtures/issuer.js'
import { listen } from '../fixtures/servers.js'
import { SELF_SIGNED } from './doctor-certificate.js'
import { openPatient, RULES } from './doctor-patient.js'

const newKey = () => randomBytes(32).toString('base64')

describe('environment', () => {
  test('what there is', async () => {
    const { one } = await (await openPatient({})).examine({ desktopPath: '/usr/bin:/bin' })
    expect(one('environment', 'Node')).toMatchObject({ status: 'ok', found: `${process.versions.node} (needs 20.19)` })
    expect(one('environment', 'npm, npx').status).toBe('ok')
    expect(one('environment', 'PATH of apps').found).toMatch(/^\/usr\/bin:\/bin /)
  })

  test.each([
    ['20.19.0', '20.19', true],
    ['20.18.3', '20.19', false],
    ['22.0.0', '20.19', true],
    ['20.19', '20.19.1', false],
  ])('Node %s where %s is needed: %s', (version, needed, isEnough) => expect(isAtLeast(version, needed)).toBe(isEnough))

  test('npm that is missing, and a PATH that is empty', async () => {
    const { one } = await (await openPatient({})).examine({ env: { PATH: '' } })
    expect(one('environment', 'npm, npx')).toMatchObject({ status: 'warning', found: 'not in PATH: npm, npx' })
    expect(one('environment', 'PATH').status).toBe('failed')
  })

  test('the PATH of apps', () => {
    expect(desktopPath('darwin')).toBe('/usr/bin:/bin:/usr/sbin:/sbin')
    expect(desktopPath('win32')).toBeUndefined()
    expect(desktopPath('linux')).toContain('/usr/bin')
    expect(pathIn('LANG=C\nPATH="/a:/b"\n')).toBe('/a:/b')
    expect(pathIn('PATH=$HOME/bin:/b')).toBeUndefined()
  })

  test('variables that are nearly right, and others of the same kind', async () => {
    const env = {
      GATEWAY_STAT_DIR: 'canary',
      MCP_SERVER_PROT: '1',
      MCP_SOMETHING_OF_OTHERS: 'x',
      OAUTH_TOKEN: 'canary',
    }
    const { all } = await (await openPatient({})).examine({ env })
    expect(all.filter(({ check }) => check === 'variables')).toMatchObject([
      {
        status: 'warning',
        found: expect.stringContaining('GATEWAY_STAT_DIR'),
        advice: 'did you mean GATEWAY_STATE_DIR?',
      },
      { status: 'warning', found: expect.stringContaining('MCP_SERVER_PROT'), advice: 'did you mean MCP_SERVER_PORT?' },
    ])
    expect(JSON.stringify(all)).not.toContain('canary')
  })

  test('it knows every variable that the gateway reads', () => {
    const root = fileURLToPath(new URL('../../src/', import.meta.url))
    const sources = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter(file => file.endsWith('.ts'))
    const text = sources.map(file => readFileSync(join(root, file), 'utf8')).join('\n')
    const read = [...text.matchAll(/\benv\.((?:GATEWAY|MCP|OAUTH)_[A-Z_]+)/g)].map(([, name]) => name)
    expect(read.length).toBeGreaterThan(10)
    expect([...new Set(read)].filter(name => name !== undefined && !KNOWN_VARIABLES.includes(name))).toEqual([])
  })
})

describe('network', () => {
  test('a proxy is named without its password', async () => {
    const env = { HTTPS_PROXY: 'http://me:canary@proxy.example:3128', NO_PROXY: 'localhost' }
    const { all, one } = await (await openPatient({})).examine({ env })
    expect(one('network', 'proxy')).toMatchObject({
      status: 'warning',
      found: 'HTTPS_PROXY is http://proxy.example:3128',
    })
    expect(one('network', 'NO_PROXY').found).toBe('localhost')
    expect(JSON.stringify(all)).not.toContain('canary')
  })

  test.each<[string, string | undefined, string, RegExp]>([
    ['is good', SELF_SIGNED.cert, 'ok', /1 certificate$/],
    ['is not there', undefined, 'failed', /cannot be read/],
    ['is no PEM', 'rubbish', 'failed', /holds no certificate/],
    ['is broken PEM', SELF_SIGNED.cert.replace(/MII.*/, 'AAAA'), 'failed', /cannot be read/],
  ])('NODE_EXTRA_CA_CERTS %s', async (_, content, status, found) => {
    const patient = await openPatient({})
    const file = join(patient.files.directory, 'ca.pem')
    if (content !== undefined) await writeFile(file, content)
    const { one } = await patient.examine({ env: { NODE_EXTRA_CA_CERTS: file } })
    expect(one('network', 'NODE_EXTRA_CA_CERTS')).toMatchObject({ status, found: expect.stringMatching(found) })
  })

  test('certificates that nobody checks', async () => {
    const { one } = await (await openPatient({})).examine({ env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' } })
    expect(one('network', 'certificates').status).toBe('warning')
  })
})

describe('files', () => {
  test('both are good', async () => {
    const patient = await openPatient({ one: { command: 'x', disabled: true } })
    const { course, one, isUsable } = await patient.examine()
    expect(isUsable).toBe(true)
    expect(course('files').slice(0, 3)).toEqual(['servers file: ok', 'servers file mode: ok', 'rules file: ok'])
    expect(one('files', 'servers file').found).toBe(`${patient.files.config}, 1 servers`)
  })

  test('nothing was there before, and nothing is there afterwards', async () => {
    const patient = await openPatient({})
    const { all, one } = await patient.examine()
    expect(all.filter(({ status }) => status === 'failed' || status === 'warning')).toEqual([])
    expect(one('files', 'state directory').found).toContain('made when it is needed')
    expect(existsSync(patient.files.env.GATEWAY_STATE_DIR)).toBe(false)
  })

  test('neither is there', async () => {
    const patient = await openPatient({})
    await Promise.all([rm(patient.files.config), rm(patient.files.rules)])
    const { course, one, isUsable } = await patient.examine()
    expect(isUsable).toBe(false)
    expect(course('files').slice(0, 2)).toEqual(['servers file: failed', 'rules file: failed'])
    expect(one('files', 'servers file').advice).toBe('run: gateway init')
    expect(one('environment', 'Node').status).toBe('ok')
  })

  test('a mistake in one server hides no other', async () => {
    const patient = await openPatient({
      bad: { comand: 'x', command: 'y' },
      good: { command: 'no-such', disabled: true },
    })
    const { all, course, isUsable } = await patient.examine()
    expect(isUsable).toBe(false)
    expect(all.filter(({ check, status }) => check === 'servers file' && status === 'failed')).toMatchObject([
      { found: expect.stringContaining('did you mean "command"?') },
    ])
    expect(course('server/good')).toEqual(['configuration: skipped'])
  })

  test('rules about servers that are not there', async () => {
    const { all } = await (await openPatient({}, { agents: { a: { allow: { servers: ['gone'] } } } })).examine()
    expect(all.filter(({ check }) => check === 'rules file').map(({ status }) => status)).toEqual(['ok', 'warning'])
  })

  test.skipIf(process.platform === 'win32')('secrets that others may read', async () => {
    const patient = await openPatient({
      one: { command: 'x', disabled: true, env: { API_KEY: 'canary-12345' } },
      two: { command: 'x', disabled: true, env: { API_KEY: '${API_KEY}' } },
    })
    const env = { API_KEY: 'canary-67890' }
    await chmod(patient.files.config, 0o644)
    const { all, one } = await patient.examine({ env })
    expect(one('files', 'servers file mode')).toMatchObject({
      status: 'warning',
      found: '644: others may read what looks like secrets in it (1)',
      advice: expect.stringContaining(`chmod 600 ${patient.files.config}`),
    })
    expect(JSON.stringify(all)).not.toContain('canary')
    await chmod(patient.files.config, 0o600)
    expect((await patient.examine({ env })).one('files', 'servers file mode').status).toBe('ok')
  })

  test.skipIf(process.platform === 'win32')('a state directory that is open to others', async () => {
    const patient = await openPatient({})
    const directory = patient.files.env.GATEWAY_STATE_DIR
    await mkdir(directory)
    await chmod(directory, 0o755)
    await writeFile(join(directory, 'audit.jsonl'), '', { mode: 0o600 })
    await writeFile(join(directory, 'old.json'), '')
    await chmod(join(directory, 'old.json'), 0o644)
    const { one } = await patient.examine()
    expect(one('files', 'state directory')).toMatchObject({ status: 'warning', advice: `chmod 700 ${directory}` })
    expect(one('files', 'files in it').advice).toBe(`chmod 600 ${join(directory, 'old.json')}`)
    expect(one('files', 'audit log').status).toBe('ok')
  })

  test('a state directory and an audit log that cannot be', async () => {
    const patient = await openPatient({})
    const file = join(patient.files.directory, 'file')
    await writeFile(file, '')
    const env = { GATEWAY_STATE_DIR: join(file, 'state'), GATEWAY_AUDIT_LOG: join(file, 'audit.jsonl') }
    const { one } = await patient.examine({ env })
    for (const check of ['state directory', 'audit log']) expect(one('files', check).status).toBe('failed')
  })
})

describe('credentials', () => {
  const keychainThat = (given: KeychainAnswer): Keychain => {
    const never = () => Promise.reject(new Error('the doctor sets nothing'))
    return { get: async () => given, set: never }
  }

  /** A state directory in which the issuer's key is sealed. */
  async function openSealed(key = newKey()) {
    const patient = await openPatient({})
    const directory = patient.files.env.GATEWAY_STATE_DIR
    const env = { GATEWAY_CREDENTIALS_KEY: key, GATEWAY_KEYCHAIN: 'off' }
    await mkdir(directory, { mode: 0o700 })
    await openEmbeddedIssuer(openCredentialStore({ directory, env, warn: () => {} }))
    return { ...patient, env, file: join(directory, 'credentials.json') }
  }

  test('are read with their key', async () => {
    const { examine, env } = await openSealed()
    const { course, one } = await examine({ env })
    expect(course('credentials')).toEqual(['key: ok', 'keychain: skipped', 'credentials.json: ok'])
    expect(one('credentials', 'key').found).toBe('from GATEWAY_CREDENTIALS_KEY')
    expect(one('issuer', 'signing key').found).toContain('of the embedded issuer')
  })

  test('with another key', async () => {
    const { examine } = await openSealed()
    const { one } = await examine({ env: { GATEWAY_CREDENTIALS_KEY: newKey() } })
    expect(one('credentials', 'credentials.json')).toMatchObject({
      status: 'failed',
      found: expect.stringContaining('sealed with another key'),
    })
    expect(one('issuer', 'signing key').status).toBe('skipped')
  })

  test('with a key that is none', async () => {
    const { one } = await (await openPatient({})).examine({ env: { GATEWAY_CREDENTIALS_KEY: 'canary-short' } })
    expect(one('credentials', 'key')).toMatchObject({ status: 'failed', advice: expect.stringContaining('32 bytes') })
    expect(one('credentials', 'key').found).not.toContain('canary')
  })

  test('whose key is gone', async () => {
    const { examine } = await openSealed()
    const { one } = await examine({ keychain: keychainThat({ state: 'absent' }), env: { GATEWAY_KEYCHAIN: undefined } })
    expect(one('credentials', 'key')).toMatchObject({ status: 'failed', advice: expect.stringContaining('unlock') })
    expect(one('credentials', 'keychain').found).toMatch(/^answers, in \d+ ms: it holds no key, or is locked$/)
    expect(one('credentials', 'credentials.json').status).toBe('skipped')
  })

  test('whose key is in the keychain', async () => {
    const key = newKey()
    const { examine } = await openSealed(key)
    const keychain = keychainThat({ state: 'found', secret: key })
    const { all, course } = await examine({ keychain, env: { GATEWAY_KEYCHAIN: undefined } })
    expect(course('credentials')).toEqual(['key: ok', 'keychain: ok', 'credentials.json: ok'])
    expect(JSON.stringify(all)).not.toContain(key)
  })

  test('a keychain that does not answer', async () => {
    const keychain = keychainThat({ state: 'unavailable', reason: 'it did not answer within 5 s' })
    const { one } = await (await openPatient({})).examine({ keychain, env: { GATEWAY_KEYCHAIN: undefined } })
    expect(one('credentials', 'keychain')).toMatchObject({
      status: 'warning',
      found: expect.stringContaining('it did not answer within 5 s'),
    })
    expect(one('credentials', 'key').found).toContain('in a key file')
  })

  test.each([
    ['damaged', 'rubbish', /is damaged/],
    ['of a newer version', '{"version":99,"keyId":"x","entries":{}}', /newer version/],
  ])('a file that is %s stays as it is', async (_, content, found) => {
    const { examine, env, file } = await openSealed()
    await writeFile(file, content, { mode: 0o600 })
    const { one } = await examine({ env })
    expect(one('credentials', 'credentials.json')).toMatchObject({
      status: 'failed',
      found: expect.stringMatching(found),
    })
    expect(readFileSync(file, 'utf8')).toBe(content)
  })
})

describe('issuer', () => {
  test('an external one whose keys can be had, and one that is away', async () => {
    await using there = await openIssuer()
    await using away = await openIssuer({ isDown: true })
    const patient = await openPatient({})
    const at = async (issuer: string) =>
      (await patient.examine({ env: { OAUTH_GATEWAY_URL: issuer } })).one('issuer', 'keys')
    expect(await at(there.issuer)).toMatchObject({ status: 'ok', found: `of ${there.issuer} can be had` })
    expect(await at(away.issuer)).toMatchObject({ status: 'failed', found: expect.stringContaining('cannot reach') })
  })

  test('a gateway that runs already, and somebody else', async () => {
    await using http = await listen((incoming, response) =>
      response.writeHead(incoming.url === '/health' ? 200 : 404).end('OK'),
    )
    await using other = await listen((_, response) => response.writeHead(404).end())
    const patient = await openPatient({})
    const at = async (port: number) =>
      (await patient.examine({ env: { MCP_SERVER_PORT: String(port) } })).one('issuer', 'address')
    expect(await at(http.port)).toMatchObject({ status: 'ok', found: expect.stringContaining('runs there already') })
    expect(await at(other.port)).toMatchObject({ status: 'warning', found: expect.stringContaining('something else') })
  })

  test.each([
    ['MCP_RESOURCE_URI', 'https://gateway.example.com', 'MCP_RESOURCE_URI', 'failed'],
    ['MCP_RESOURCE_URI', 'https://gateway.example.com/mcp', 'MCP_RESOURCE_URI', 'ok'],
    ['MCP_SERVER_PORT', 'eighty', 'address', 'failed'],
    ['MCP_SERVER_HOST', '0.0.0.0', 'reach', 'warning'],
    ['MCP_SERVER_HOST', '192.0.2.1', 'reach', 'warning'],
  ])('%s=%s', async (name, value, check, status) => {
    const { one } = await (await openPatient({}, RULES)).examine({
      env: { [name]: value, ...(name === 'MCP_SERVER_HOST' && { MCP_SERVER_PORT: '0' }) },
    })
    expect(one('issuer', check).status).toBe(status)
  })
})
