import { describe, expect, test } from 'vitest'
import { readIssuer, readScopes } from '../../src/config/front-door.js'
import { parseJsonDocument } from '../../src/config/json-document.js'
import { parseRulesFile } from '../../src/config/rules-file.js'

const parse = (identity: unknown, env = {}) =>
  parseRulesFile(parseJsonDocument('r.json', JSON.stringify({ identity })), env)

const ISSUER = 'https://idp.example/realms/mcp'

describe('the identity section', () => {
  test('is read as it is written', () => {
    const identity = {
      issuers: [
        {
          issuer: ISSUER,
          jwksUri: 'https://idp.example/keys',
          audience: 'https://gateway.example/mcp',
          algorithms: ['RS256'],
          agentClaim: 'agent_id',
          agentsClaim: 'agents',
          tenantClaim: 'tid',
          requiredClaims: ['preferred_username'],
          introspection: { endpoint: 'https://idp.example/introspect', clientId: 'gateway', clientSecret: 'secret' },
        },
      ],
      clockToleranceSeconds: 30,
      agents: { researcher: { 'realm_access.roles': 'analyst', email_verified: true } },
      roles: { reader: { groups: ['mcp-readers', 'mcp-*'] } },
    }
    const { rules, problems } = parse(identity)
    expect([rules.identity, problems]).toEqual([identity, []])
  })

  test('has defaults', () => {
    expect(parse({}).rules.identity).toEqual({ issuers: [], clockToleranceSeconds: 60, agents: {}, roles: {} })
  })

  const introspection = { endpoint: 'https://idp.example/i', clientId: '${ID:-gateway}', clientSecret: '${SECRET}' }

  test('has variables', () => {
    const { rules } = parse({ issuers: [{ issuer: '${IDP}', introspection }] }, { SECRET: 'hush', IDP: ISSUER })
    expect(rules.identity?.issuers[0]).toMatchObject({
      issuer: ISSUER,
      introspection: { clientId: 'gateway', clientSecret: 'hush' },
    })
  })

  test.each<[mistake: string, identity: unknown, path: string]>([
    [
      'a variable that is not set',
      { issuers: [{ issuer: 'x', introspection }] },
      'identity.issuers[0].introspection.clientSecret',
    ],
    ['an issuer without a name', { issuers: [{}] }, 'identity.issuers[0].issuer'],
    ['the same issuer twice', { issuers: [{ issuer: 'x' }, { issuer: 'x' }] }, 'identity.issuers'],
    ['keys that are no URL', { issuers: [{ issuer: 'x', jwksUri: 'keys' }] }, 'identity.issuers[0].jwksUri'],
    ['keys in a file', { issuers: [{ issuer: 'x', jwksUri: 'file:///keys' }] }, 'identity.issuers[0].jwksUri'],
    ['a shared secret', { issuers: [{ issuer: 'x', algorithms: ['HS256'] }] }, 'identity.issuers[0].algorithms[0]'],
    ['no signature', { issuers: [{ issuer: 'x', algorithms: ['none'] }] }, 'identity.issuers[0].algorithms[0]'],
    ['no algorithm at all', { issuers: [{ issuer: 'x', algorithms: [] }] }, 'identity.issuers[0].algorithms'],
    ['a key nobody knows', { issuers: [{ issuer: 'x', jwksURI: 'https://a' }] }, 'identity.issuers[0].jwksURI'],
    ['a clock that is hours off', { clockToleranceSeconds: 7200 }, 'identity.clockToleranceSeconds'],
    ['an agent everybody is', { agents: { admin: {} } }, 'identity.agents.admin'],
    ['an agent that is a glob', { agents: { '*': { sub: 'x' } } }, 'identity.agents["*"]'],
    ['a claim with no value', { agents: { admin: { groups: [] } } }, 'identity.agents.admin.groups'],
    ['a claim that is an object', { roles: { r: { groups: { a: 1 } } } }, 'identity.roles.r.groups'],
  ])('a mistake names its path: %s', (_, identity, path) => {
    expect(parse(identity).problems.map(problem => problem.path)).toEqual([path])
  })
})

describe('the issuer of the environment', () => {
  test.each([
    [{}, undefined],
    [{ OAUTH_GATEWAY_URL: '' }, undefined],
    [{ OAUTH_GATEWAY_URL: ISSUER }, { issuer: ISSUER, url: ISSUER }],
    [{ OAUTH_ISSUER: 'urn:idp' }, { issuer: 'urn:idp' }],
    [
      { OAUTH_GATEWAY_URL: 'http://keycloak:8080', OAUTH_ISSUER: ISSUER, OAUTH_JWKS_URI: 'http://keycloak:8080/keys' },
      { issuer: ISSUER, url: 'http://keycloak:8080', jwksUri: 'http://keycloak:8080/keys' },
    ],
  ])('%j', (env, issuer) => {
    expect(readIssuer(env)).toEqual(issuer)
  })

  test.each([{ OAUTH_GATEWAY_URL: 'idp' }, { OAUTH_JWKS_URI: 'keys' }, { OAUTH_JWKS_URI: 'https://idp.example/keys' }])(
    '%j is refused by name',
    env => {
      expect(() => readIssuer(env)).toThrow(Object.keys(env)[0])
    },
  )

  test('clients are told which scopes to ask it for', () => {
    expect(readScopes({})).toEqual(['mcp'])
    expect(readScopes({ OAUTH_SCOPES: 'openid api://gateway/mcp' })).toEqual(['openid', 'api://gateway/mcp'])
  })
})
