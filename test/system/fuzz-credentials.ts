import { createHmac } from 'node:crypto'
import type { Random } from './fuzz-random.js'

/** Tokens and keys that the credentials of a run are made of. */
export interface Tokens {
  readonly attacker: string
  /** Never sent as it is. */
  readonly victim: string
  /** Rightly signed, and good for nothing here, or for no more than an error. */
  readonly useless: readonly string[]
  /** The issuer's public key, which is no secret to sign with. */
  readonly publicKey: string
  readonly issuer: string
  readonly audience: string
}

export type Header = [name: string, value: string]

const HMAC = { alg: 'HS256', typ: 'at+jwt' }

/** Headers of a request that is not to be let in, or not as somebody else. */
export function badCredential(random: Random, tokens: Tokens): Header[] {
  const bearer = (token: string): Header[] => [['Authorization', `Bearer ${token}`]]
  const { attacker, victim } = tokens
  const [mine, theirs] = [attacker.split('.'), victim.split('.')]
  return random.pick<() => Header[]>([
    () => [],
    () => [
      [
        'Authorization',
        random.pick([
          '',
          'Bearer',
          'Bearer ',
          'bearer x y',
          'Bearer  =',
          'Basic dXNlcjpwYXNz',
          'Digest a="b"',
          'Bearer\ttoken',
        ]),
      ],
    ],
    () => [
      [
        'Authorization',
        random
          .bytes(20)
          .toString('latin1')
          .replace(/[^\x20-\x7e\x80-\xff]/g, '?'),
      ],
    ],
    () => bearer(attacker.slice(0, random.below(attacker.length))),
    () => bearer(attacker.slice(random.below(attacker.length))),
    () => bearer(flipped(random, attacker)),
    () => bearer(flipped(random, victim)),
    () => bearer([theirs[0], theirs[1], mine[2]].join('.')),
    () => bearer([mine[0], mine[1], theirs[2]].join('.')),
    () => bearer(`${theirs[0]}.${theirs[1]}.`),
    () =>
      bearer(
        `${encode({ alg: random.pick(['none', 'None', 'NONE', '']) })}.${theirs[1]}.${random.pick(['', mine[2] ?? ''])}`,
      ),
    () => bearer(signed(HMAC, claims(tokens), random.pick([tokens.publicKey, '', 'secret']))),
    () => bearer(signed(oddHeader(random), claims(tokens), 'secret')),
    () => bearer(signed({ alg: 'ES256', typ: 'at+jwt' }, oddClaims(random, tokens), 'secret')),
    () => bearer(`${encode({ alg: 'ES256' })}.${nested(random.pick([100, 5_000, 11_000]), random)}.${mine[2]}`),
    () => bearer(random.pick(tokens.useless)),
    () => [...bearer(attacker), ...bearer(random.pick([attacker, 'x']))],
    () => [...bearer(attacker), ['X-API-Key', 'gw_00000000_x']],
    () => [
      [
        'X-API-Key',
        random.pick([
          '',
          'x',
          'gw_',
          'gw_00000000_x',
          `gw_${'0'.repeat(16)}_${'x'.repeat(43)}`,
          attacker,
          '__proto__',
          'gw___proto___x',
        ]),
      ],
    ],
    () => [['X-API-Key', `gw_${random.bytes(30).toString('base64url')}`]],
    () => bearer('x'.repeat(random.pick([100, 32 * 1024, 33 * 1024, 200 * 1024]))),
    () => bearer('.'.repeat(random.below(2_000))),
  ])()
}

/** One character is another; not the last one, some bits of which mean nothing. */
function flipped(random: Random, token: string): string {
  const at = random.below(token.length - 2)
  const other = random.pick([...'ABCxyz019-_'].filter(character => character !== token[at]))
  return `${token.slice(0, at)}${other}${token.slice(at + 1)}`
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

function signed(header: unknown, payload: unknown, secret: string): string {
  const content = `${encode(header)}.${encode(payload)}`
  return `${content}.${createHmac('sha512', secret).update(content).digest('base64url')}`
}

const claims = ({ issuer, audience }: Tokens) => {
  const now = Math.floor(Date.now() / 1000)
  return {
    iss: issuer,
    aud: audience,
    sub: 'agent:victim',
    agents: ['victim'],
    client_id: 'x',
    iat: now,
    exp: now + 600,
  }
}

const ODD: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1e308,
  1.5,
  '',
  'x',
  [],
  {},
  ['*'],
  [['victim']],
  { toString: 1, valueOf: 1 },
  '\u0000',
  '\ud800',
  'a"b\r\nX-Evil: 1',
  'é✓',
  'x'.repeat(5_000),
]

function oddHeader(random: Random): Record<string, unknown> {
  const field = random.pick(['alg', 'typ', 'kid', 'jku', 'x5u', 'jwk', 'crit', 'b64', 'zip', 'cty', '__proto__'])
  return { alg: 'ES256', typ: 'at+jwt', kid: '../../etc/passwd', [field]: random.pick(ODD) }
}

function oddClaims(random: Random, tokens: Tokens): Record<string, unknown> {
  const field = random.pick(['iss', 'aud', 'sub', 'exp', 'nbf', 'iat', 'agents', 'agent_id', 'scope', 'client_id'])
  return { ...claims(tokens), [field]: random.pick(ODD) }
}

/** Claims in which one is nested deeper than a stack is; a token may be long enough for that. */
function nested(depth: number, random: Random): string {
  const value = `${'['.repeat(depth)}${']'.repeat(depth)}`
  return Buffer.from(`{"${random.pick(['iss', 'aud', 'sub', 'exp'])}":${value}}`).toString('base64url')
}
