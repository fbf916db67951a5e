import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach } from 'vitest'
import type { Env } from '../../src/config/variables.js'
import type { KeychainAnswer } from '../../src/credentials/keychain.js'
import { type CredentialStore, openCredentialStore } from '../../src/credentials/store.js'

/** A state directory of its own for every test of a file, and what stores opened in it warned about. */
export function useStateDirectory() {
  const state = {
    directory: '',
    warnings: [] as string[],
    at: (name: string): string => join(state.directory, name),
    warn: (message: string): void => void state.warnings.push(message),
    open: (env: Env = { GATEWAY_KEYCHAIN: 'off' }): CredentialStore =>
      openCredentialStore({ directory: state.directory, env, warn: state.warn }),
  }
  beforeEach(async () => {
    state.directory = await mkdtemp(join(tmpdir(), 'gateway-credentials-'))
    state.warnings = []
  })
  afterEach(() => rm(state.directory, { recursive: true, force: true }))
  return state
}

export const newKey = (): string => randomBytes(32).toString('base64')

/** A keychain in memory: `answers` are given one after the other, the last one for ever. */
export function scriptedKeychain(...answers: readonly KeychainAnswer[]) {
  const asked: ('get' | 'set')[] = []
  const next = (operation: 'get' | 'set'): KeychainAnswer => {
    asked.push(operation)
    return answers[Math.min(asked.length, answers.length) - 1] ?? { state: 'absent' }
  }
  return { asked, get: async () => next('get'), set: async () => next('set') }
}

/** A keychain in memory that works. */
export function workingKeychain(secret?: string) {
  const asked: ('get' | 'set')[] = []
  let kept = secret
  const answer = (): KeychainAnswer => (kept === undefined ? { state: 'absent' } : { state: 'found', secret: kept })
  return {
    asked,
    get: async () => {
      asked.push('get')
      return answer()
    },
    set: async (offered: string) => {
      asked.push('set')
      kept ??= offered
      return answer()
    },
  }
}
