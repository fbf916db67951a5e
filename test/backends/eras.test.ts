import type { PriorDiscovery } from '@modelcontextprotocol/client'
import { describe, expect, test } from 'vitest'
import { EraVerdict } from '../../src/backends/era-verdict.js'
import { openBackend, openDirectory } from '../fixtures/backend.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import {
  type HttpServer,
  openByHand,
  openLegacySessions,
  openOldSse,
  openSdkServer,
  stdioServer,
} from '../fixtures/servers.js'

const DISCOVERED: Extract<PriorDiscovery, { kind: 'modern' }>['discover'] = {
  supportedVersions: ['2026-07-28'],
  capabilities: {},
  ttlMs: 0,
  cacheScope: 'private',
}

const rich = (era: 'legacy' | 'modern') => createRichServer({ eras: [era], countExecution: () => 2 })

test.each([
  { server: 'changing-legacy', era: 'legacy', means: 'SDK 1.x' },
  { server: 'both-eras', era: 'modern', means: 'both eras' },
  { server: 'changing-modern', era: 'modern', means: '2026-07-28 only' },
  { server: 'initialize-first', era: 'legacy', means: 'exits on what comes before initialize' },
  { server: 'noisy', era: 'legacy', means: 'prints rubbish' },
])('stdio, $means: $era', async ({ server, era }) => {
  await using backend = openBackend(stdioServer(server))
  expect(await backend.toolNames()).not.toEqual([])
  expect(backend.backend.status()).toMatchObject({ state: 'ready', era })
})

test('stdio, never answers what it does not know: legacy', async () => {
  await using server = openBackend(stdioServer('taciturn', { startupTimeoutMs: 1_000 }))
  expect(await server.call('hello')).toEqual({ content: [] })
  expect(server.backend.status().era).toBe('legacy')
})

test.each<{ means: string; open: () => Promise<HttpServer>; era: string; entry?: Record<string, unknown> }>([
  { means: 'both eras', open: () => openSdkServer(), era: 'modern' },
  { means: '2026-07-28 only', open: () => openSdkServer({ legacy: 'reject' }), era: 'modern' },
  { means: 'sessions of the 2025 era', open: () => openLegacySessions(rich('legacy')), era: 'legacy' },
  { means: 'stateless, 2025 era', open: () => openByHand(rich('legacy')), era: 'legacy' },
  { means: 'HTTP+SSE under transport "http"', open: () => openOldSse(rich('legacy')), era: 'legacy' },
  {
    means: 'HTTP+SSE under transport "sse"',
    open: () => openOldSse(rich('legacy')),
    era: 'legacy',
    entry: { transport: 'sse' },
  },
])('HTTP, $means: $era', async ({ open, era, entry }) => {
  await using http = await open()
  await using server = openBackend({ url: http.url, ...entry })
  expect(await server.toolNames()).not.toEqual([])
  expect(server.backend.status()).toMatchObject({ state: 'ready', era })
})

describe('the verdict is remembered', () => {
  test.each([
    {
      era: 'legacy',
      first: ['server/discover', 'initialize', 'notifications/initialized'],
      second: ['initialize', 'notifications/initialized'],
    },
    { era: 'modern', first: ['server/discover'], second: [] },
  ])('$era: the second connect does not probe', async ({ era, first, second }) => {
    await using directory = await openDirectory()
    const env = { ERA: era, EXECUTIONS_FILE: directory.file('executions') }
    await using server = openBackend(stdioServer('rich-stdio', { env }))
    const opening = async () => {
      const { methods } = await server.ask<{ methods: string[] }>('report')
      return methods.filter(method => !method.startsWith('tools/'))
    }
    expect(await opening()).toEqual(first)
    await expect(server.call('break')).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' })
    expect(await opening()).toEqual(second)
    expect(server.backend.status().era).toBe(era)
  })

  const HOUR = 60 * 60_000

  test('for a day, and reusing it does not make it younger', () => {
    const verdict = new EraVerdict()
    expect(verdict.get(0)).toBeUndefined()
    verdict.set({ kind: 'legacy' }, 0)
    expect(verdict.get(23 * HOUR)).toEqual({ kind: 'legacy' })
    verdict.set({ kind: 'legacy' }, 23 * HOUR)
    expect(verdict.get(24 * HOUR)).toBeUndefined()
  })

  test('a new verdict is dated anew', () => {
    const verdict = new EraVerdict(HOUR)
    const modern: PriorDiscovery = { kind: 'modern', discover: DISCOVERED }
    verdict.set({ kind: 'legacy' }, 0)
    verdict.set(modern, HOUR / 2)
    expect(verdict.get(HOUR)).toEqual(modern)
    expect(verdict.get(1.5 * HOUR)).toBeUndefined()
    verdict.set({ kind: 'legacy' }, 2 * HOUR)
    expect(verdict.get(2.5 * HOUR)).toEqual({ kind: 'legacy' })
  })

  test('until a connect fails', () => {
    const verdict = new EraVerdict()
    verdict.set({ kind: 'legacy' }, 0)
    verdict.forget()
    expect(verdict.get(1)).toBeUndefined()
  })
})
