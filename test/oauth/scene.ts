import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, onTestFinished } from 'vitest'
import type { HttpServerConfig } from '../../src/config/servers-file.js'
import { type CredentialStore, openCredentialStore } from '../../src/credentials/store.js'
import { GatewayError, type GatewayErrorCode } from '../../src/errors/gateway-error.js'
import { BackendLogin, type BackendLoginOptions } from '../../src/oauth/backend-login.js'
import { type LoginOptions, login } from '../../src/oauth/login.js'
import { type LoginRecord, loginEntry, readLogin, toCredential } from '../../src/oauth/login-record.js'
import {
  type AuthorizationServer,
  type AuthorizationServerOptions,
  openAuthorizationServer,
} from '../fixtures/authorization-server.js'
import { parseServer } from '../fixtures/backend.js'
import { openProtectedServer, type ProtectedServer, type ProtectedServerOptions } from '../fixtures/protected-server.js'
import { type Person, somebody } from './people.js'

export interface SceneOptions {
  readonly issuer?: AuthorizationServerOptions
  readonly server?: Omit<ProtectedServerOptions, 'authorizationServer'>
  /** Of the servers file. */
  readonly oauth?: Readonly<Record<string, unknown>>
  /** Tests that run at the same time have to say which of them is over. */
  readonly atEnd?: typeof onTestFinished
}

/** A server that wants a login, its authorization server, and a state directory; all gone when the test is over. */
export interface Scene {
  readonly issuer: AuthorizationServer
  readonly server: ProtectedServer
  readonly config: HttpServerConfig
  readonly directory: string
  readonly env: Readonly<Record<string, string>>
  readonly store: CredentialStore
  readonly warnings: readonly string[]
  /** What another process has of the same file. */
  openStore(): CredentialStore
  configured(oauth: Readonly<Record<string, unknown>> | false): HttpServerConfig
  login(person?: Person, options?: Partial<LoginOptions>): Promise<LoginRecord | undefined>
  stored(): Promise<LoginRecord | undefined>
  /** As if the tokens had been issued that much earlier. */
  age(milliseconds: number): Promise<void>
  /** The login as a running gateway has it. */
  openLogin(options?: Partial<BackendLoginOptions>, config?: HttpServerConfig): BackendLogin
}

export async function openScene({
  issuer: issuerOptions,
  server: serverOptions,
  oauth = {},
  atEnd = onTestFinished,
}: SceneOptions = {}) {
  const issuer = await openAuthorizationServer(issuerOptions)
  const server = await openProtectedServer({ authorizationServer: issuer, ...serverOptions })
  const directory = await mkdtemp(join(tmpdir(), 'gateway-oauth-'))
  atEnd(async () => {
    await Promise.all([server.close(), issuer.close()])
    await rm(directory, { recursive: true, force: true, maxRetries: 3 })
  })
  return sceneOf({ issuer, server, directory, oauth, atEnd })
}

function sceneOf({
  issuer,
  server,
  directory,
  oauth,
  atEnd,
}: Pick<Scene, 'issuer' | 'server' | 'directory'> & Required<Pick<SceneOptions, 'oauth' | 'atEnd'>>): Scene {
  const env = { GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64'), GATEWAY_KEYCHAIN: 'off' }
  const warnings: string[] = []
  const openStore = () => openCredentialStore({ directory, env, warn: message => warnings.push(message) })
  const store = openStore()
  const configured = (settings: Readonly<Record<string, unknown>> | false) =>
    httpServer({ url: server.url, oauth: settings })
  const config = configured(oauth)
  return {
    issuer,
    server,
    config,
    directory,
    env,
    store,
    warnings,
    openStore,
    configured,
    login: (person = somebody(), options = {}) => login(config, { store, userAgent: person, ...options }),
    stored: () => readLogin(store, config),
    async age(milliseconds) {
      const record = await readLogin(store, config)
      if (!record?.tokens) throw new Error('there are no tokens')
      const { issuedAt, expiresAt } = record.tokens
      const tokens = {
        ...record.tokens,
        issuedAt: issuedAt - milliseconds,
        ...(expiresAt !== undefined && { expiresAt: expiresAt - milliseconds }),
      }
      await store.update(loginEntry(config.name), () => toCredential({ ...record, tokens }, config))
    },
    openLogin(options = {}, loginConfig = config) {
      const opened = new BackendLogin(loginConfig, { store, logger: silent, learnSecrets() {}, ...options })
      atEnd(() => opened.close())
      return opened
    },
  }
}

/** A server entry as the servers file has it. */
export function httpServer(entry: Readonly<Record<string, unknown>>, name = 'shop'): HttpServerConfig {
  const config = parseServer(entry, { name })
  if (config.transport === 'stdio') throw new Error('not an HTTP server')
  return config
}

export const silent = pino({ level: 'silent' })

/** The error that a promise rejects with: a GatewayError with this code. */
export async function failure(
  promise: Promise<unknown>,
  code: GatewayErrorCode = 'LOGIN_FAILED',
): Promise<GatewayError> {
  const error = await promise.then(
    () => new Error('it did not fail'),
    (thrown: unknown) => thrown,
  )
  if (!(error instanceof GatewayError)) throw error
  expect(error).toMatchObject({ code })
  return error
}

/** A port that is free, and that nobody is given by chance (those are 32768 and up). */
export async function quietPort(): Promise<number> {
  const port = 10_000 + Math.floor(Math.random() * 20_000)
  const server = createServer()
  const isFree = await new Promise<boolean>(resolve => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => resolve(true))
  })
  await new Promise(resolve => server.close(resolve))
  return isFree ? port : quietPort()
}
