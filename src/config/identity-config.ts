import { z } from 'zod'
import { isJsonObject, type JsonObject } from '../json.js'
import { type Env, expandVariables } from './variables.js'

/** Signatures that only the issuer can make. With HS256 whoever checks a token could make one. */
export const ASYMMETRIC_ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
] as const

const httpUrl = z
  .url({ protocol: /^https?$/, error: 'must be an http: or https: URL' })
  .refine(text => !URL.canParse(text) || new URL(text).username === '', 'must not contain a user or password')
const claimPath = z.string().min(1)

const Issuer = z.strictObject({
  issuer: z.string().min(1),
  jwksUri: httpUrl.optional(),
  audience: z.string().min(1).optional(),
  algorithms: z.array(z.enum(ASYMMETRIC_ALGORITHMS)).min(1).optional(),
  agentClaim: claimPath.optional(),
  agentsClaim: claimPath.optional(),
  tenantClaim: claimPath.optional(),
  requiredClaims: z.array(claimPath).optional(),
  introspection: z
    .strictObject({ endpoint: httpUrl, clientId: z.string().min(1), clientSecret: z.string().min(1) })
    .optional(),
})

const scalar = z.union([z.string().min(1), z.number(), z.boolean()])
/** Claim path to a value, a glob, or a list of which one is enough. All paths must hold, so none would be everybody. */
const Claims = z
  .record(claimPath, z.union([scalar, z.array(scalar).min(1)]))
  .refine(claims => Object.keys(claims).length > 0, 'needs at least one claim')

export const Identity = z.strictObject({
  issuers: z
    .array(Issuer)
    .refine(
      issuers => new Set(issuers.map(({ issuer }) => issuer)).size === issuers.length,
      'names the same issuer twice',
    )
    .default([]),
  clockToleranceSeconds: z.number().int().min(0).max(600).default(60),
  agents: z.record(z.string().regex(/^[^\s*?[\]]+$/, 'is a name, without spaces or globs'), Claims).default({}),
  roles: z.record(z.string().min(1), Claims).default({}),
})

export type IdentityConfig = Readonly<z.infer<typeof Identity>>
export type IssuerConfig = Readonly<z.infer<typeof Issuer>> & {
  /** Where its metadata is, when that is not below its name (`OAUTH_GATEWAY_URL`). */
  readonly url?: string | undefined
}
export type ClaimConditions = Readonly<z.infer<typeof Claims>>

/** The section as it is without one. */
export const NO_IDENTITY: IdentityConfig = Identity.parse({})

/** Expands the variables of every string. Half an identity is none: an unset variable is a mistake of the file. */
export function expandIdentity(
  section: unknown,
  env: Env,
  report: (path: readonly PropertyKey[], message: string) => void,
): unknown {
  const expand = (value: unknown, path: readonly PropertyKey[]): unknown => {
    if (Array.isArray(value)) return value.map((item, index) => expand(item, [...path, index]))
    if (isJsonObject(value)) return mapEntries(value, (item, key) => expand(item, [...path, key]))
    if (typeof value !== 'string') return value
    const { text, missing } = expandVariables(value, env)
    for (const name of missing) report(path, `the variable ${name} is not set`)
    return text
  }
  return expand(section, ['identity'])
}

const mapEntries = (object: JsonObject, map: (value: unknown, key: string) => unknown): JsonObject =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [key, map(value, key)]))

/** What must never be printed. */
export const identitySecrets = ({ issuers }: IdentityConfig): string[] =>
  issuers.flatMap(({ introspection }) => introspection?.clientSecret ?? [])
