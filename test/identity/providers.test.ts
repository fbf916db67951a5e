import { describe, expect, test } from 'vitest'
import { NO_IDENTITY } from '../../src/config/identity-config.js'
import type { ClaimRules } from '../../src/identity/claims.js'
import { claimAt, missingClaim, principalOf } from '../../src/identity/claims.js'
import { openIntrospection } from '../../src/identity/introspection.js'
import { openIssuerKeys } from '../../src/identity/issuer-keys.js'
import { openIssuerMetadata } from '../../src/identity/issuer-metadata.js'
import { createTokenVerifier } from '../../src/identity/token-verifier.js'
import { openOidcProvider } from '../fixtures/oidc-provider.js'

// As docs/identity-providers.md says to write them.
const agents: ClaimRules['agents'] = {
  analyst: { 'realm_access.roles': 'analyst' },
  builder: { 'resource_access.mcp-gateway.roles': ['builder', 'admin'] },
  operator: { roles: 'Gateway.Operator', tid: '8f0c0000-0000-0000-0000-000000000001' },
  reader: { groups: 'mcp-*' },
  robot: { azp: 'nightly-job', gty: 'client-credentials' },
  writer: { 'https://acme.example/roles': 'writer' },
  scoped: { scp: 'gateway.use' },
}
const roles: ClaimRules['roles'] = { trusted: { email_verified: true }, 'on-call': { groups: ['on-call', 'ops-?'] } }

const of = (claims: Record<string, unknown>, names: ClaimRules['names'] = {}) =>
  principalOf(claims, { issuer: 'https://idp.example', subject: String(claims.sub) }, { agents, roles, names })

describe('claims as they come from', () => {
  test('Keycloak', () => {
    const token = {
      exp: 1800000300,
      iat: 1800000000,
      jti: 'onrtac:9f2c',
      iss: 'https://keycloak.example/realms/mcp',
      aud: ['https://gateway.example/mcp', 'account'],
      sub: '6f1c2a34-0000-4000-8000-000000000000',
      typ: 'Bearer',
      azp: 'claude-code',
      sid: '0b7d',
      acr: '1',
      'allowed-origins': ['http://localhost:3000'],
      realm_access: { roles: ['default-roles-mcp', 'offline_access', 'analyst'] },
      resource_access: { 'mcp-gateway': { roles: ['builder'] }, account: { roles: ['view-profile'] } },
      scope: 'openid email mcp',
      email_verified: true,
      preferred_username: 'ann',
    }
    expect(of(token)).toMatchObject({
      agents: ['analyst', 'builder'],
      roles: ['trusted'],
      name: 'ann',
      clientId: 'claude-code',
      scopes: ['openid', 'email', 'mcp'],
    })
    expect(missingClaim(token, { agents, roles, names: { requiredClaims: ['preferred_username'] } })).toBeUndefined()
  })

  test('Entra ID, for a user (v2.0)', () => {
    const tid = '8f0c0000-0000-0000-0000-000000000001'
    const token = {
      aud: '1c2d0000-0000-0000-0000-000000000002',
      iss: `https://login.microsoftonline.com/${tid}/v2.0`,
      azp: '04b07795-8ddb-461a-bbee-02f9e1bf7b46',
      azpacr: '0',
      name: 'Ann',
      oid: 'aaaa0000-0000-0000-0000-000000000003',
      preferred_username: 'ann@acme.example',
      roles: ['Gateway.Operator'],
      scp: 'gateway.use gateway.read',
      sub: 'pairwise',
      tid,
      ver: '2.0',
    }
    const principal = of(token, { tenantClaim: 'tid' })
    expect(principal).toMatchObject({
      agents: ['operator', 'scoped'],
      name: 'ann@acme.example',
      clientId: token.azp,
      scopes: ['gateway.use', 'gateway.read'],
      tenant: tid,
    })
    expect(of({ ...token, tid: 'another' }, { tenantClaim: 'tid' }).key).not.toBe(principal.key)
    expect(of({ ...token, tid: 'another' }).agents).toEqual(['scoped'])
  })

  test('Entra ID, for an application (v1.0)', () => {
    const token = {
      aud: 'api://mcp-gateway',
      iss: 'https://sts.windows.net/8f0c0000-0000-0000-0000-000000000001/',
      appid: 'nightly',
      appidacr: '1',
      idtyp: 'app',
      roles: ['Gateway.Operator'],
      sub: 'bbbb',
      tid: '8f0c0000-0000-0000-0000-000000000001',
      ver: '1.0',
    }
    expect(of(token)).toMatchObject({ agents: ['operator'], clientId: 'nightly', scopes: [] })
  })

  test('Okta', () => {
    const token = {
      ver: 1,
      iss: 'https://acme.okta.example/oauth2/default',
      aud: 'https://gateway.example/mcp',
      cid: '0oa1',
      uid: '00u1',
      scp: ['openid', 'gateway.use'],
      sub: 'ann@acme.example',
      groups: ['Everyone', 'mcp-readers', 'ops-7'],
    }
    expect(of(token)).toMatchObject({
      agents: ['reader', 'scoped'],
      roles: ['on-call'],
      clientId: '0oa1',
      scopes: ['openid', 'gateway.use'],
    })
  })

  test('Auth0', () => {
    const user = {
      iss: 'https://acme.eu.auth0.example/',
      sub: 'auth0|64',
      aud: ['https://gateway.example/mcp', 'https://acme.eu.auth0.example/userinfo'],
      azp: 'spa',
      scope: 'openid mcp',
      permissions: ['read:tools'],
      'https://acme.example/roles': ['writer'],
    }
    expect(of(user)).toMatchObject({ agents: ['writer'], clientId: 'spa', scopes: ['openid', 'mcp'] })
    const machine = { ...user, sub: 'nightly-job@clients', azp: 'nightly-job', gty: 'client-credentials' }
    expect(of({ ...machine, 'https://acme.example/roles': undefined }).agents).toEqual(['robot'])
  })

  test('an issuer that names the agent itself, in a claim of its own', () => {
    const names = { agentClaim: 'https://acme.example/agent', agentsClaim: 'mcp.agents' }
    expect(of({ sub: 'a', 'https://acme.example/agent': 'team', groups: ['mcp-x'] }, names).agents).toEqual(['team'])
    expect(of({ sub: 'a', mcp: { agents: ['team.*', 'x'] } }, names).agents).toEqual(['team.*', 'x'])
    expect(of({ sub: 'a', agent_id: 'admin' }, names).agents).toEqual([])
  })
})

describe('a condition', () => {
  const holds = (condition: ClaimRules['agents'][string], claims: Record<string, unknown>) =>
    principalOf(claims, { issuer: 'i', subject: 's' }, { agents: { it: condition }, roles: {}, names: {} }).agents
      .length > 0

  test.each<[condition: ClaimRules['agents'][string], claims: Record<string, unknown>, expected: boolean]>([
    [{ a: 'x', b: 'y' }, { a: 'x', b: 'y' }, true],
    [{ a: 'x', b: 'y' }, { a: 'x' }, false],
    [{ a: 'x' }, { a: 'X' }, false],
    [{ a: 'x' }, { a: 'xx' }, false],
    [{ a: 'x*' }, { a: 'xx' }, true],
    [{ a: '*' }, {}, false],
    [{ a: '*' }, { a: null }, false],
    [{ a: '*' }, { a: { b: 1 } }, false],
    [{ a: 'true' }, { a: true }, false],
    [{ a: true }, { a: true }, true],
    [{ a: 1 }, { a: [0, 1] }, true],
    [{ a: ['x', 'y'] }, { a: ['z', 'y'] }, true],
    [{ a: 'x y' }, { a: 'x y' }, true],
    [{ a: 'x' }, { a: 'x y' }, false],
    [{ scope: 'x' }, { scope: 'x y' }, true],
    [{ 'a.b': 'x' }, { a: { b: 'x' } }, true],
    [{ 'a.b': 'x' }, { 'a.b': 'x' }, true],
    [{ 'a.b.c': 'x' }, { 'a.b': { c: 'x' } }, true],
    [{ constructor: '*' }, {}, false],
    [{ '__proto__.x': '*' }, {}, false],
    [{ 'a.length': 1 }, { a: ['x'] }, false],
  ])('%j on %j: %s', (condition, claims, expected) => {
    expect(holds(condition, claims)).toBe(expected)
  })

  test('a path leads through claims with dots in their names', () => {
    const claims = { 'https://acme.example/x': { y: { z: 1 } }, https: { a: 1 } }
    expect(claimAt(claims, 'https://acme.example/x.y.z')).toBe(1)
    expect(claimAt(claims, 'https://acme.example/x.q')).toBeUndefined()
    expect(claimAt(claims, '.')).toBeUndefined()
  })
})

test('no conditions, no agents: nobody is anybody without being said to be', () => {
  const { agents: none } = NO_IDENTITY
  const claims = { sub: 'a', groups: ['x'], roles: ['admin'] }
  expect(principalOf(claims, { issuer: 'i', subject: 'a' }, { agents: none, roles: {}, names: {} }).agents).toEqual([])
})

describe('with a real authorization server', () => {
  const RESOURCE = 'http://127.0.0.1:8080/mcp'
  const client = {
    client_id: 'nightly-job',
    client_secret: 'a-secret-of-some-length',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  }
  const resource = (accessTokenFormat: string) => ({ audience: RESOURCE, scope: 'mcp', accessTokenFormat })

  test.each(['jwt', 'opaque'] as const)('a machine’s token of the format %s is good', async format => {
    const features = {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: async () => resource(format) },
    }
    const provider = await openOidcProvider({ clients: [client], configuration: { features } })
    const response = await fetch(`${provider.origin}/token`, {
      method: 'POST',
      headers: { authorization: `Basic ${btoa(`${client.client_id}:${client.client_secret}`)}` },
      body: new URLSearchParams({ grant_type: 'client_credentials', resource: RESOURCE, scope: 'mcp' }),
    })
    const { access_token: token } = (await response.json()) as { access_token: string }
    expect(token.split('.')).toHaveLength(format === 'jwt' ? 3 : 1)

    const config = { issuer: provider.issuer }
    const { client_id: clientId, client_secret: clientSecret } = client
    const endpoint = { endpoint: `${provider.origin}/token/introspection`, clientId, clientSecret }
    const verifier = createTokenVerifier({
      issuers: [
        {
          ...config,
          audiences: [RESOURCE],
          algorithms: ['RS256'],
          keys: openIssuerKeys({ config, metadata: openIssuerMetadata(config) }),
          introspection: openIntrospection(endpoint),
          claims: { agents: { robot: { client_id: 'nightly-job' } }, roles: {}, names: {} },
        },
      ],
    })
    expect(await verifier.verify(token)).toMatchObject({
      principal: { agents: ['robot'], clientId: 'nightly-job', issuer: provider.issuer },
      scopes: ['mcp'],
    })
    const asked = provider.requests.map(({ path }) => path).filter(path => path === '/token/introspection')
    expect(asked).toHaveLength(format === 'jwt' ? 0 : 1)
    await provider.close()
  })
})
