import { stateDirectory } from '../config/locate.js'
import { openCredentialStore } from '../credentials/store.js'
import { type ApiKeys, openApiKeys } from '../identity/api-keys.js'
import { print, printJson, printTable, toMinute } from './output.js'
import { warnAboutUnknownAgent } from './token.js'

export interface KeyFlags {
  readonly agent: string
  readonly expires?: number
  readonly scope: string
}

const say = (message: string) => void process.stderr.write(`${message}\n`)

const openKeys = (): ApiKeys =>
  openApiKeys(openCredentialStore({ directory: stateDirectory(process.env), env: process.env, warn: say }))

/** Prints the key alone on stdout, this once. */
export async function createKey({ agent, expires, scope }: KeyFlags): Promise<number> {
  await warnAboutUnknownAgent(agent, say)
  const scopes = scope.split(/\s+/).filter(name => name !== '')
  const { key, id } = await openKeys().create({ agent, scopes, ttlSeconds: expires })
  print(key)
  say(`This is the key ${id}. Keep it now: it cannot be shown again. To end it: gateway key revoke ${id}`)
  return 0
}

export async function listKeys({ json = false }: { readonly json?: boolean }): Promise<number> {
  const keys = await openKeys().list()
  if (json) {
    printJson({
      keys: keys.map(({ createdAt, expiresAt, ...key }) => ({ ...key, created_at: createdAt, expires_at: expiresAt })),
    })
  } else if (keys.length === 0) print('there are no keys')
  else {
    const rows = keys.map(({ id, agent, state, createdAt, expiresAt, scopes }) => [
      ...[id, agent, state, toMinute(createdAt), expiresAt === undefined ? 'never' : toMinute(expiresAt)],
      scopes.join(' '),
    ])
    printTable(['ID', 'AGENT', 'STATE', 'CREATED', 'EXPIRES', 'SCOPES'], rows)
  }
  return 0
}

/** A running gateway sees it at the next request. */
export async function changeKey(id: string, state: 'active' | 'disabled' | 'revoked'): Promise<number> {
  await openKeys().change(id, state)
  print(`the key ${id} is ${state}`)
  return 0
}
