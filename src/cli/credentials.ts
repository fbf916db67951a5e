import { readFile, writeFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { stateDirectory } from '../config/locate.js'
import { openWithPassphrase, sealWithPassphrase } from '../credentials/portable.js'
import { type Credential, openCredentialStore } from '../credentials/store.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { listLogins, loginEntry, parseRecord, serverOf } from '../oauth/login-record.js'
import { say } from './login.js'
import { print, printJson, printTable, toMinute } from './output.js'
import { readPassphrase } from './passphrase.js'

export interface PassphraseFlags {
  readonly passphraseFile?: string
}

const openStore = () => openCredentialStore({ directory: stateDirectory(process.env), env: process.env, warn: say })

export async function exportCredentials(
  names: readonly string[],
  { output, passphraseFile }: PassphraseFlags & { readonly output?: string },
): Promise<number> {
  const store = openStore()
  const found = await Promise.all(
    [...new Set(names)].map(async server => ({
      server,
      name: loginEntry(server),
      entry: await store.read(loginEntry(server)),
    })),
  )
  const missing = found.filter(({ entry }) => entry === undefined).map(({ server }) => `"${server}"`)
  if (missing.length > 0) throw new GatewayError('LOGIN_FAILED', `not logged in to ${missing.join(', ')}`)
  const credentials = found.flatMap(({ name, entry }) => (entry ? [{ name, ...entry }] : []))
  const sealed = await sealWithPassphrase(credentials, await readPassphrase({ file: passphraseFile, isNew: true }))
  if (output === undefined) await writeOut(`${sealed.trimEnd()}\n`)
  else {
    await writeFile(output, `${sealed.trimEnd()}\n`, { mode: 0o600, flag: 'wx' }).catch(error => {
      const why =
        error.code === 'EEXIST'
          ? 'exists already: choose another name, or delete it'
          : `cannot be written: ${messageOf(error)}`
      throw new GatewayError('LOGIN_FAILED', `${output} ${why}`, { cause: error })
    })
  }
  say(
    'Use each login on one machine: where refresh tokens rotate, two copies end each other.\n' +
      `When the other machine has it, delete it here: ${names.map(name => `gateway logout --local ${name}`).join('; ')}`,
  )
  return 0
}

/** What is said after it must not be said when it did not arrive. */
function writeOut(content: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) =>
      reject(
        new GatewayError('LOGIN_FAILED', `the export cannot be written to stdout: ${error.message}`, { cause: error }),
      )
    process.stdout.once('error', onError)
    process.stdout.write(content, error => {
      if (error) onError(error)
      else resolve()
    })
  })
}

export async function importCredentials(
  file: string,
  { passphraseFile, force = false }: PassphraseFlags & { readonly force?: boolean },
): Promise<number> {
  const sealed =
    file === '-'
      ? await text(process.stdin)
      : await readFile(file, 'utf8').catch(error => {
          throw new GatewayError('LOGIN_FAILED', `${file} cannot be read: ${messageOf(error)}`, { cause: error })
        })
  const passphrase = await readPassphrase({ file: passphraseFile, isNew: false })
  const credentials = await openWithPassphrase(sealed, passphrase)
  if (credentials.some(credential => serverOf(credential.name) === undefined || !parseRecord(credential)))
    throw new GatewayError('LOGIN_FAILED', `${file} holds something that is no login: nothing was imported`)
  const store = openStore()
  const taken = new Set((await store.list()).map(({ name }) => name))
  const inTheWay = credentials.filter(({ name }) => taken.has(name)).map(({ name }) => `"${serverOf(name)}"`)
  if (inTheWay.length > 0 && !force) {
    throw new GatewayError(
      'LOGIN_FAILED',
      `already logged in to ${inTheWay.join(', ')}: nothing was imported (--force replaces)`,
    )
  }
  for (const { name, ...credential } of credentials) {
    await store.exclusively(name, () => store.update(name, () => credential))
    print(`imported the login to "${serverOf(name)}" (${credential.resource}), renewed at ${endpointOf(credential)}`)
  }
  return 0
}

/** Where its tokens will be sent for renewal: whoever takes over somebody's login should know. */
const endpointOf = (credential: Credential): string => parseRecord(credential)?.server.token_endpoint ?? ''

export async function listCredentials({ json = false }: { readonly json?: boolean }): Promise<number> {
  const logins = await listLogins(openStore())
  if (json) printJson({ credentials: logins })
  else if (logins.length === 0) print('no logins are kept')
  else {
    printTable(
      ['SERVER', 'STATE', 'EXPIRES', 'ACCOUNT', 'ISSUER', 'URL'],
      logins.map(login => [
        login.server,
        login.state,
        login.expires_at === undefined ? '-' : toMinute(login.expires_at),
        login.account ?? '-',
        login.issuer,
        login.resource,
      ]),
    )
  }
  return 0
}
