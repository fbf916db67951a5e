import { readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { readIssuer, readResource, readScopes } from '../src/config/front-door.js'
import { parseJsonDocument } from '../src/config/json-document.js'
import { parseRulesFile } from '../src/config/rules-file.js'

const guide = await readFile(new URL('../docs/identity-providers.md', import.meta.url), 'utf8')
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, text = '']) => text)

describe('the guide to identity providers', () => {
  test.each(blocks('jsonc'))('shows rules that are valid: %s', example => {
    expect(parseRulesFile(parseJsonDocument('shown', example), { IDP_SECRET: 'x' }).problems).toEqual([])
  })

  const settings = blocks('sh').filter(block => block.startsWith('export'))

  test('has settings for every provider', () => expect(settings.length).toBe(5))

  test.each(settings)('shows settings that are taken: %s', block => {
    const env = Object.fromEntries([...block.matchAll(/^export (\w+)=(\S+)/gm)].map(([, name, value]) => [name, value]))
    expect(readResource(env.MCP_RESOURCE_URI)?.href).toBe('https://gateway.example.com/mcp')
    expect(readIssuer(env)).toMatchObject({ issuer: env.OAUTH_GATEWAY_URL })
    expect(readScopes(env).length).toBe(1)
  })
})
