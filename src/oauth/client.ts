import { z } from 'zod'

export const AUTH_METHODS = ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'] as const

export type AuthMethod = (typeof AUTH_METHODS)[number]

/** Who the gateway is at one authorization server. */
export const OAuthClient = z.object({
  clientId: z.string().min(1),
  clientSecret: z.string().optional(),
  authMethod: z.enum(AUTH_METHODS),
  /** `configured`: pre-registered, from the servers file; its secret is read from there and not stored. */
  source: z.enum(['configured', 'metadata document', 'registered']),
})

export type OAuthClient = Readonly<z.infer<typeof OAuthClient>>
