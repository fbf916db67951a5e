import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import type { CredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { isGlob } from '../rules/glob.js'
import { principalKey } from './principal.js'
import { InvalidTokenError } from './token-errors.js'
import type { VerifiedToken } from './token-verifier.js'

/** What every key begins with, so that it is known for one by readers and by scanners for leaked secrets. */
export const API_KEY_PREFIX = 'gw_'

const ISSUER = 'urn:agent-mcp-gateway:api-keys'
const ENTRY = 'api-key:'
const ID_BYTES = 6
const SECRET_BYTES = 32
const API_KEY = /^gw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})$/
// A key may have no end, but what is open with it has: so long may a stream outlive its key.
const STREAM_SECONDS = 60 * 60

const Stored = z.object({
  /** SHA-256 of the secret, which has 256 bits of its own: there is nothing to slow a guesser down for. */
  hash: z.string(),
  agent: z.string(),
  scopes: z.array(z.string()),
  createdAt: z.string(),
  expiresAt: z.string().optional(),
  state: z.enum(['active', 'disabled', 'revoked']),
})
type Stored = z.infer<typeof Stored>

/** A key as it may be shown. */
export interface ApiKey extends Omit<Stored, 'hash' | 'state'> {
  readonly id: string
  readonly state: Stored['state'] | 'expired'
}

export interface NewApiKey {
  readonly agent: string
  readonly scopes: readonly string[]
  /** Without it the key is good until it is revoked. */
  readonly ttlSeconds?: number | undefined
}

/** Keys for callers without OAuth. The store has their hashes alone; a running gateway sees every change. */
export interface ApiKeys {
  /** The key itself, which is nowhere to be had again. Throws CONFIG_INVALID for what is no agent's name. */
  create(key: NewApiKey): Promise<{ readonly key: string; readonly id: string }>
  list(): Promise<readonly ApiKey[]>
  /** Throws CONFIG_INVALID when there is no such key, or when it was revoked, which is for good. */
  change(id: string, state: Stored['state']): Promise<void>
  /** Throws InvalidTokenError. */
  verify(key: string): Promise<VerifiedToken>
}

export function openApiKeys(store: CredentialStore, now: () => number = Date.now): ApiKeys {
  const read = async (id: string) => Stored.safeParse((await store.read(`${ENTRY}${id}`))?.value).data

  return {
    async create({ agent, scopes, ttlSeconds }) {
      if (agent === '' || isGlob(agent))
        throw new GatewayError('CONFIG_INVALID', `"${agent}" is not the name of one agent`)
      const id = randomBytes(ID_BYTES).toString('hex')
      const secret = randomBytes(SECRET_BYTES).toString('base64url')
      const stored: Stored = {
        hash: digest(secret),
        agent,
        scopes: [...scopes],
        createdAt: new Date(now()).toISOString(),
        ...(ttlSeconds !== undefined && { expiresAt: new Date(now() + ttlSeconds * 1000).toISOString() }),
        state: 'active',
      }
      await store.update(`${ENTRY}${id}`, () => toCredential(stored))
      return { key: `${API_KEY_PREFIX}${id}_${secret}`, id }
    },

    async list() {
      const names = (await store.list()).filter(({ name }) => name.startsWith(ENTRY))
      const found = await Promise.all(
        names.map(async ({ name }) => {
          const id = name.slice(ENTRY.length)
          const stored = await read(id)
          return stored ? [toApiKey(id, stored, now())] : []
        }),
      )
      return found.flat().sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1))
    },

    async change(id, state) {
      await store.update(`${ENTRY}${id}`, current => {
        const { data: stored } = Stored.safeParse(current?.value)
        if (!stored) throw new GatewayError('CONFIG_INVALID', `there is no key ${id}: see "gateway key list"`)
        if (stored.state === 'revoked' && state !== 'revoked')
          throw new GatewayError('CONFIG_INVALID', `the key ${id} was revoked, which is for good: create another`)
        return toCredential({ ...stored, state })
      })
    },

    async verify(key) {
      const [, id = '', secret = ''] = API_KEY.exec(key) ?? []
      const stored = id === '' ? undefined : await read(id)
      // Only who has the secret learns anything about the key.
      if (!stored || !isSame(stored.hash, digest(secret))) throw new InvalidTokenError('the API key is not known here')
      if (stored.state !== 'active') throw new InvalidTokenError(`the API key ${id} is ${stored.state}`)
      const expiresAt = stored.expiresAt === undefined ? undefined : Date.parse(stored.expiresAt)
      if (expiresAt !== undefined && expiresAt <= now())
        throw new InvalidTokenError(`the API key ${id} expired at ${stored.expiresAt}`)
      return toVerifiedToken(id, stored, Math.min((expiresAt ?? Infinity) / 1000, now() / 1000 + STREAM_SECONDS))
    },
  }
}

function toVerifiedToken(id: string, { agent, scopes }: Stored, acceptedUntil: number): VerifiedToken {
  const subject = `key:${id}`
  return {
    principal: {
      id: subject,
      key: principalKey(ISSUER, { subject }),
      agents: [agent],
      roles: [],
      scopes,
      claims: { iss: ISSUER, sub: subject, agent_id: agent, scope: scopes.join(' ') },
      issuer: ISSUER,
    },
    clientId: subject,
    scopes,
    expiresAt: Math.floor(acceptedUntil),
    acceptedUntil,
  }
}

const toApiKey = (id: string, { hash: _hash, ...stored }: Stored, nowMs: number): ApiKey => {
  const isOver = stored.expiresAt !== undefined && Date.parse(stored.expiresAt) <= nowMs
  return { id, ...stored, state: isOver && stored.state === 'active' ? 'expired' : stored.state }
}

const toCredential = (value: Stored) => ({ issuer: ISSUER, resource: '', value })

const digest = (secret: string): string => hash('sha256', secret, 'hex')

const isSame = (a: string, b: string): boolean =>
  a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b))
