import * as oauth from 'oauth4webapi'

/** What a resource server says about the authorization it wants (RFC 6750 section 3, RFC 9728 section 5.1). */
export interface BearerChallenge {
  readonly error?: string | undefined
  readonly scope?: string | undefined
  /** As written: absolute, or relative to the URL that answered. */
  readonly resourceMetadata?: string | undefined
}

/** The Bearer challenge in a `WWW-Authenticate` value; empty when there is none that can be read. */
export async function parseChallenge(header: string | undefined): Promise<BearerChallenge> {
  if (header === undefined) return {}
  // oauth4webapi has a full parser of the field, and gives it away only in this error.
  const response = new Response(null, { status: 401, headers: { 'www-authenticate': header } })
  const options = { [oauth.customFetch]: async () => response }
  const challenges = await oauth
    .protectedResourceRequest('-', 'GET', new URL('https://resource.invalid'), undefined, null, options)
    .then(
      () => [],
      error => (error instanceof oauth.WWWAuthenticateChallengeError ? error.cause : []),
    )
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer')?.parameters
  return { error: bearer?.error, scope: bearer?.scope || undefined, resourceMetadata: bearer?.resource_metadata }
}
