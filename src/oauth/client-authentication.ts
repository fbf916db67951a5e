import type { AuthorizationServer, Client } from 'oauth4webapi'
import * as oauth from 'oauth4webapi'
import type { OAuthConfig } from '../config/servers-file.js'
import { GatewayError } from '../errors/gateway-error.js'
import type { AuthMethod, OAuthClient } from './client.js'
import { readSigningKey } from './private-key.js'

export const toOAuth4webapi = ({ clientId }: OAuthClient): Client => ({ client_id: clientId })

/** How the client proves who it is at the token endpoint and its like (RFC 6749, section 2.3). */
export async function toClientAuth(
  client: OAuthClient,
  settings: OAuthConfig,
  server: AuthorizationServer,
): Promise<oauth.ClientAuth> {
  const secret = client.source === 'configured' ? settings.clientSecret : client.clientSecret
  switch (client.authMethod) {
    case 'none':
      return oauth.None()
    case 'client_secret_basic':
      return basic(needSecret(secret))
    case 'client_secret_post':
      return oauth.ClientSecretPost(needSecret(secret))
    case 'private_key_jwt': {
      const { key, kid, algorithm } = await readSigningKey(
        settings,
        server.token_endpoint_auth_signing_alg_values_supported,
      )
      const named = { key, ...(kid !== undefined && { kid }) }
      // An Ed25519 key has two names, of which older servers know one.
      return oauth.PrivateKeyJwt(named, {
        [oauth.modifyAssertion]: header => {
          header.alg = algorithm
        },
      })
    }
  }
}

function needSecret(secret: string | undefined): string {
  if (secret !== undefined) return secret
  throw new GatewayError('CONFIG_INVALID', 'the token endpoint wants a secret: set "oauth": { "clientSecret": "…" }')
}

/**
 * HTTP Basic with both parts form-encoded (RFC 6749, section 2.3.1), as the WHATWG encodes forms. oauth4webapi also encodes `-` and
 * its like, which servers that compare without decoding do not understand.
 */
const basic =
  (secret: string): oauth.ClientAuth =>
  (_server, client, _body, headers) => {
    const credentials = `${formEncoded(client.client_id)}:${formEncoded(secret)}`
    headers.set('authorization', `Basic ${Buffer.from(credentials).toString('base64')}`)
  }

const formEncoded = (text: string): string => new URLSearchParams({ v: text }).toString().slice(2)

/** The method to use when nobody settled it: none without a secret, else what the server lists, Basic first. */
export function chooseAuthMethod(settings: OAuthConfig, server: AuthorizationServer): AuthMethod {
  if (settings.tokenEndpointAuthMethod !== undefined) return settings.tokenEndpointAuthMethod
  if (settings.clientSecret !== undefined) {
    // Basic is what a server that lists nothing supports (RFC 8414, section 2).
    const listed = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic']
    const isPostOnly = !listed.includes('client_secret_basic') && listed.includes('client_secret_post')
    return isPostOnly ? 'client_secret_post' : 'client_secret_basic'
  }
  return settings.privateKeyFile === undefined ? 'none' : 'private_key_jwt'
}
