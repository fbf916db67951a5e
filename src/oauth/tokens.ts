import { z } from 'zod'

/** A set of tokens as kept. Times are milliseconds since the epoch. */
export const Tokens = z.object({
  /** As it goes into a header, which takes nothing else (RFC 6750, section 2.1). */
  accessToken: z.string().regex(/^[\x21-\x7e]{1,131072}$/),
  refreshToken: z.string().optional(),
  issuedAt: z.number(),
  /** Absent when the server does not tell. */
  expiresAt: z.number().optional(),
  /** What was granted, when it is not what was asked for (RFC 6749, section 5.1). */
  scope: z.string().optional(),
})

export type Tokens = Readonly<z.infer<typeof Tokens>>
