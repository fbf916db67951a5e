import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type CryptoKey, calculateJwkThumbprint, exportJWK, importJWK, type JWK } from 'jose'
import type { OAuthConfig } from '../config/servers-file.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { isJsonObject, parseJson } from '../json.js'

/** The key a client signs its assertions with (`private_key_jwt`, RFC 7523). */
export interface SigningKey {
  readonly key: CryptoKey
  readonly kid: string | undefined
  readonly algorithm: string
  /** The public half, for a registration. */
  readonly publicJwk: JWK
}

const RSA = ['RS256', 'PS256', 'RS384', 'PS384', 'RS512', 'PS512']
const CURVES: Readonly<Record<string, string>> = { 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512' }

/**
 * Reads `oauth.privateKeyFile` (PEM or JWK). The algorithm is `signingAlgorithm`, else the key's own `alg`, else the one that fits
 * the key and that the server supports. Throws CONFIG_INVALID that names the file, never its content.
 */
export async function readSigningKey(
  { privateKeyFile: file, signingAlgorithm }: OAuthConfig,
  supported: readonly string[] | undefined,
): Promise<SigningKey> {
  if (file === undefined) {
    throw new GatewayError('CONFIG_INVALID', 'private_key_jwt needs "oauth": { "privateKeyFile": "…" } for this server')
  }
  const text = await readFile(file, 'utf8').catch(error => {
    throw new GatewayError('CONFIG_INVALID', `${file} (oauth.privateKeyFile) cannot be read: ${messageOf(error)}`)
  })
  const { key, alg, kid } = parseKey(text, file)
  const jwk = await exportJWK(key)
  const possible = algorithmsOf(jwk)
  const wanted = signingAlgorithm ?? alg
  if (wanted !== undefined && !possible.includes(wanted)) {
    throw new GatewayError('CONFIG_INVALID', `${file}: a key of this kind signs ${possible.join(', ')}, not ${wanted}`)
  }
  const algorithm = wanted ?? possible.find(name => supported?.includes(name)) ?? possible[0]
  if (algorithm === undefined) throw new GatewayError('CONFIG_INVALID', `${file}: a key of this kind cannot sign`)
  const { d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...publicJwk } = jwk
  const imported = await importJWK(jwk, algorithm)
  if (imported instanceof Uint8Array) throw new GatewayError('CONFIG_INVALID', `${file}: is not a private key`)
  const id = kid ?? (await calculateJwkThumbprint(publicJwk))
  return { key: imported, kid, algorithm, publicJwk: { ...publicJwk, kid: id, alg: algorithm, use: 'sig' } }
}

function parseKey(text: string, file: string): { key: KeyObject; alg?: string; kid?: string } {
  try {
    if (!text.trimStart().startsWith('{')) return { key: createPrivateKey(text) }
    const jwk = parseJson(text)?.value
    if (!isJsonObject(jwk)) throw new Error('not a JSON object')
    return {
      key: createPrivateKey({ key: jwk, format: 'jwk' }),
      ...(typeof jwk.alg === 'string' && { alg: jwk.alg }),
      ...(typeof jwk.kid === 'string' && { kid: jwk.kid }),
    }
  } catch {
    // The reason may quote the key.
    throw new GatewayError(
      'CONFIG_INVALID',
      `${file} (oauth.privateKeyFile) is neither an unencrypted private key in PEM nor a JWK`,
    )
  }
}

function algorithmsOf({ kty, crv = '' }: JWK): readonly string[] {
  if (kty === 'RSA') return RSA
  if (kty === 'EC') return CURVES[crv] === undefined ? [] : [CURVES[crv]]
  return kty === 'OKP' && crv === 'Ed25519' ? ['EdDSA', 'Ed25519'] : []
}
