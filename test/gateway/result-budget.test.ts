import { readFileSync } from 'node:fs'
import type { CallToolResult } from '@modelcontextprotocol/server'
import fc from 'fast-check'
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { describe, expect, test } from 'vitest'
import type { RenderedResult } from '../../src/gateway/kept-results.js'
import { estimateTokens, type Ticket, withinBudget } from '../../src/gateway/result-budget.js'

const HANDLE = 'A-handle-of-24-characters'

/** Cuts, and gives what was kept beside it. */
function cut(
  result: Record<string, unknown>,
  maxTokens: number | undefined,
  ticket: Ticket | null = { handle: HANDLE },
) {
  const whole: RenderedResult[] = []
  const short = withinBudget(result as CallToolResult, maxTokens, rendered => {
    whole.push(rendered)
    return ticket ?? undefined
  })
  const content = short.content as unknown as Record<string, unknown>[]
  return {
    short,
    content,
    blocks: content.slice(0, -1),
    notice: String(content.at(-1)?.text),
    structured: short.structuredContent as Record<string, unknown> | undefined,
    meta: short._meta?.['agent-mcp-gateway/truncated'] as Record<string, unknown>,
    kept: whole[0],
  }
}

const text = (words: string, extra: object = {}) => ({ type: 'text', text: words, ...extra })
const image = (length: number) => ({ type: 'image', mimeType: 'image/png', data: 'iVBORw0K'.repeat(length / 8) })
const lines = (count: number) =>
  Array.from({ length: count }, (_, at) => `2026-08-12 INFO request ${at} took ${at % 90} ms`).join('\n')
const tokensOf = (value: unknown) => estimateTokens(JSON.stringify(value))

describe('a result within the budget is the very same object', () => {
  test.each<[string, Record<string, unknown>, number | undefined]>([
    ['no budget', { content: [text('x'.repeat(1e6))] }, undefined],
    ['small text', { content: [text('hello')], unknownField: [1] }, 100],
    ['no content at all', { content: [] }, 1],
    ['structuredContent and other text', { content: [text('done')], structuredContent: { a: 1 } }, 100],
    ['an image, by its pixels', { content: [image(800_000)] }, 2_000],
    ['a small image, by its bytes', { content: [image(80)] }, 60],
    ['a large _meta, which no model sees', { content: [text('hello')], _meta: { a: 'x'.repeat(1e5) } }, 100],
  ])('%s', (_, result, maxTokens) => {
    const { short, kept } = cut(result, maxTokens)
    expect(short).toBe(result)
    expect(kept).toBeUndefined()
  })

  test.each<[string, unknown, string]>([
    ['the same JSON', { rows: ['a', 'b'] }, '{"rows":["a","b"]}'],
    ['the same JSON, indented', { rows: ['a', 'b'] }, '{\n  "rows": [ "a", "b" ]\n}'],
    ['what is under "result"', { result: ['a', 'b'] }, '["a", "b"]'],
  ])('text that repeats structuredContent counts once: %s', (_, structuredContent, words) => {
    const result = { content: [text(words)], structuredContent }
    expect(cut(result, estimateTokens(words) + 1).short).toBe(result)
    expect(cut({ ...result, content: [text(words.replace('a', 'c'))] }, estimateTokens(words) + 1).kept).toBeDefined()
  })

  test('a string under "result" that several blocks say', () => {
    const result = { content: [text('first'), text('second')], structuredContent: { result: 'first\nsecond' } }
    expect(cut(result, 8).short).toBe(result)
  })
})

describe('text', () => {
  const megabyte = lines(25_000)

  test('a megabyte becomes its beginning and a notice that says how to read on', () => {
    const { short, blocks, notice, meta, kept } = cut({ content: [text(megabyte)], isError: true, other: 1 }, 1_000)
    expect(kept).toEqual({ text: megabyte, items: [], length: megabyte.length })
    const preview = String(blocks[0]?.text)
    expect(preview).toBe(megabyte.slice(0, preview.length))
    expect(notice).toContain(`${megabyte.length} characters`)
    expect(notice).toContain(`read_result {"handle":"${HANDLE}","offset":${preview.length}}`)
    expect(meta).toEqual({ handle: HANDLE, total_characters: megabyte.length, next_offset: preview.length })
    expect(short).toMatchObject({ isError: true, other: 1 })
    expect(short).not.toHaveProperty('structuredContent')
  })

  test.each([150, 300, 1_000, 10_000, 100_000])('what %i tokens buy is neither more nor much less', budget => {
    const { content } = cut({ content: [text(megabyte)] }, budget)
    const tokens = content.reduce((sum, block) => sum + countTokens(String(block.text)), 0)
    expect(tokens).toBeLessThanOrEqual(budget)
    if (budget >= 1_000) expect(tokens).toBeGreaterThan(budget * 0.6)
  })

  test('a budget smaller than the notice buys the notice', () => {
    const { blocks, meta, notice } = cut({ content: [text(megabyte)] }, 1)
    expect(blocks).toEqual([])
    expect(meta.next_offset).toBe(0)
    expect(notice).toContain('"offset":0')
  })

  test('the call that reads on names the agent when the call did', () => {
    const { notice } = cut({ content: [text(megabyte)] }, 200, { handle: HANDLE, agent_id: 'dev' })
    expect(notice).toMatch(/read_result \{"handle":"[^"]+","agent_id":"dev","offset":\d+\}/)
  })

  test('never ends in the middle of a surrogate pair, and offset and preview agree', () => {
    for (let budget = 120; budget < 160; budget++) {
      for (const lead of ['', 'a']) {
        const { blocks, meta } = cut({ content: [text(lead + '😀'.repeat(5_000))] }, budget)
        const preview = String(blocks[0]?.text ?? '')
        expect(preview).not.toMatch(/\p{Surrogate}/u)
        expect(meta.next_offset).toBe(preview.length)
      }
    }
  })

  test('lone halves, control characters and brackets do not upset it', () => {
    for (const odd of ['\ud800', '\udc00', '\u0000', '\\', '"', '\u2028', '[', '\n']) {
      const { blocks, meta, kept } = cut({ content: [text(odd.repeat(50_000))] }, 500)
      expect(blocks[0]?.text).toBe(kept?.text.slice(0, Number(meta.next_offset)))
    }
  })

  test('blocks stay in order and keep their fields; after the cut comes no more text', () => {
    const annotations = { audience: ['user'] }
    const { blocks, meta, kept } = cut(
      { content: [text('first', { annotations }), text(lines(2_000), { annotations }), text('last')] },
      500,
    )
    expect(blocks).toMatchObject([{ text: 'first', annotations }, { annotations }])
    expect(`first\n${blocks[1]?.text}`).toBe(kept?.text.slice(0, Number(meta.next_offset)))
    expect(kept?.text.endsWith('\nlast')).toBe(true)
  })

  test('of an embedded resource is cut, its address is not', () => {
    const resource = { uri: 'file:///log', mimeType: 'text/plain', text: lines(2_000) }
    const { blocks, meta, kept } = cut({ content: [{ type: 'resource', resource }] }, 500)
    expect(blocks).toMatchObject([{ type: 'resource', resource: { uri: 'file:///log', mimeType: 'text/plain' } }])
    const shown = String((blocks[0]?.resource as { text?: string } | undefined)?.text)
    expect(resource.text.startsWith(shown)).toBe(true)
    expect(kept?.text.slice(Number(meta.next_offset))).toBe(resource.text.slice(shown.length))
  })

  test('links are shown whole or come later', () => {
    const content = Array.from({ length: 200 }, (_, at) => ({
      type: 'resource_link',
      uri: `file:///${at}`,
      name: `n${at}`,
    }))
    const { blocks, meta, kept } = cut({ content }, 500)
    expect(blocks.length).toBeGreaterThan(5)
    expect(blocks).toEqual(content.slice(0, blocks.length))
    expect(
      kept?.text
        .slice(Number(meta.next_offset))
        .split('\n')
        .map(line => JSON.parse(line)),
    ).toEqual(content.slice(blocks.length))
  })
})

describe('binary content', () => {
  test('stays whole where it was when it fits beside the text', () => {
    const shot = image(800_000)
    const { blocks, kept, notice, meta } = cut({ content: [text(lines(5_000)), shot, text('end')] }, 5_000)
    expect(blocks).toHaveLength(2)
    expect(blocks[1]).toBe(shot)
    expect(notice).not.toContain('Left out')
    expect(kept?.items).toEqual([shot])
    expect(meta.next_offset).toBe(String(blocks[0]?.text).length)
  })

  test('is left out whole when it does not fit, and a line stands in its place', () => {
    const audio = { type: 'audio', mimeType: 'audio/wav', data: 'UklGRg=='.repeat(10_000) }
    const blob = { type: 'resource', resource: { uri: 'file:///a.pdf', blob: 'JVBERi0x'.repeat(10_000) } }
    const { blocks, notice, meta, kept } = cut({ content: [text('before'), audio, blob, text('after')] }, 1_000)
    expect(blocks.map(block => block.text)).toEqual([
      'before',
      expect.stringContaining('[item 0: audio "audio/wav", 80000 characters'),
      expect.stringContaining('[item 1: resource "file:///a.pdf", 80000 characters'),
      'after',
    ])
    expect(notice).toContain(`Left out whole: item 0, 1; read one with read_result {"handle":"${HANDLE}","item":0}`)
    expect(meta.next_offset).toBeNull()
    expect(kept).toMatchObject({ items: [audio, blob], length: (kept?.text.length ?? 0) + 160_000 })
  })

  test('of an unknown or broken kind is kept or left out whole too', () => {
    const small = { type: 'future', value: 1 }
    const odd = [
      { type: 'future', payload: 'x y '.repeat(5_000) },
      { type: 'image', data: 7, junk: 'x y '.repeat(5_000) },
      { type: 'text', text: ['x y '.repeat(5_000)] },
      { type: 'resource', resource: { uri: 'a:b', text: 't', blob: 'x y '.repeat(5_000) } },
      'x y '.repeat(5_000),
      [null, 'x y '.repeat(5_000)],
    ]
    const { blocks, kept } = cut({ content: [small, null, ...odd] }, 1_000)
    expect(blocks.slice(0, 2)).toEqual([small, null])
    expect(blocks.slice(2).map(({ text: line }) => /^\[item \d/.exec(String(line))?.[0])).toEqual(
      odd.map((_, at) => `[item ${at + 2}`),
    )
    expect(kept?.items).toEqual([small, null, ...odd])
  })

  test('a thousand images left out take no more room than anything else', () => {
    const { content, notice } = cut({ content: Array.from({ length: 1_000 }, () => image(80_000)) }, 4_000)
    expect(notice).toMatch(/Left out whole: item 2, 3, 4, 5, 6 and 993 more/)
    expect(tokensOf(content.filter(({ type }) => type === 'text'))).toBeLessThan(4_000)
  })

  test('is never cut, whatever there is and whatever the budget', () => {
    const words = fc.string({ unit: 'binary', maxLength: 400 })
    const block = fc.oneof(
      words.map(body => text(body)),
      fc.integer({ min: 1, max: 300 }).map(length => image(length * 8)),
      words.map(body => ({ type: 'resource', resource: { uri: 'a:b', text: body } })),
      words.map(body => ({ type: 'future', body })),
      words.map(name => ({ type: 'resource_link', uri: 'a:b', name })),
    )
    const structured = fc.option(fc.dictionary(fc.string({ maxLength: 5 }), words, { maxKeys: 4 }), { nil: undefined })
    fc.assert(
      fc.property(
        fc.array(block, { maxLength: 8 }),
        structured,
        fc.nat(1_500),
        (content, structuredContent, budget) => {
          const result = { content, ...(structuredContent && { structuredContent }) }
          const { short, blocks, kept, meta } = cut(result, budget + 1)
          if (short === (result as unknown)) return
          const originals = new Set<unknown>(content)
          for (const shown of blocks) {
            const { type } = shown as { type: unknown }
            if (type !== 'text' && type !== 'resource') expect(originals.has(shown)).toBe(true)
          }
          const offset = (meta.next_offset ?? kept?.text.length) as number
          expect(offset).toBeLessThanOrEqual(kept?.text.length ?? -1)
          expect(kept?.items.every(item => originals.has(item))).toBe(true)
          expect(JSON.parse(JSON.stringify(short))).toBeTruthy()
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('structuredContent', () => {
  const rows = Array.from({ length: 2_000 }, (_, id) => ({ id, name: `row ${id}` }))

  test('stays whole when it fits, however long the text', () => {
    const { structured, kept } = cut({ content: [text(lines(5_000))], structuredContent: { total: 5_000 } }, 1_000)
    expect(structured).toEqual({ total: 5_000 })
    expect(kept?.text.endsWith('\nstructuredContent:\n{"total":5000}')).toBe(true)
  })

  test('becomes a pointer when it does not, and its beginning follows the text', () => {
    const { structured, blocks, kept, meta, notice } = cut(
      { content: [text('2000 rows')], structuredContent: { rows } },
      1_000,
    )
    expect(structured).toMatchObject({ truncated: true, handle: HANDLE, notice, ...meta })
    expect(blocks[0]).toEqual(text('2000 rows'))
    expect(String(blocks[1]?.text)).toMatch(/^\{"rows":\[\{"id":0/)
    expect(kept?.text).toBe(`2000 rows\nstructuredContent:\n${JSON.stringify({ rows })}`)
    expect(structured?.preview).toBe(kept?.text.slice(0, Number(meta.next_offset)))
    expect(countTokens(JSON.stringify(structured))).toBeLessThanOrEqual(1_000)
  })

  test('that the text repeats is kept once, and goes when the text is cut', () => {
    const structuredContent = { rows }
    const words = JSON.stringify(structuredContent, null, 2)
    const { structured, kept, blocks } = cut({ content: [text(words)], structuredContent }, 1_000)
    expect(kept?.text).toBe(words)
    expect(blocks).toHaveLength(1)
    expect(structured).toMatchObject({ truncated: true, preview: blocks[0]?.text })
  })

  test('that the text repeats stays when only an image had to go', () => {
    const audio = { type: 'audio', mimeType: 'audio/wav', data: 'UklGRg=='.repeat(10_000) }
    const structuredContent = { name: 'song' }
    const { structured, blocks } = cut({ content: [text('{"name":"song"}'), audio], structuredContent }, 500)
    expect(structured).toEqual(structuredContent)
    expect(blocks[0]).toEqual(text('{"name":"song"}'))
  })

  test.each([[rows], ['a word '.repeat(9_000)], [null]])('may be any JSON, and alone', value => {
    const { structured, kept } = cut({ content: [], structuredContent: value, _meta: { mine: 1 } }, 200)
    if (value === null) expect(structured).toBeNull()
    else {
      expect(structured).toMatchObject({ truncated: true })
      expect(JSON.parse(kept?.text ?? '')).toEqual(value)
    }
  })

  test('_meta keeps what was there', () => {
    const { short } = cut({ content: [text(lines(500))], _meta: { 'example.com/a': 1 } }, 200)
    expect(short._meta).toMatchObject({ 'example.com/a': 1, 'agent-mcp-gateway/truncated': { handle: HANDLE } })
  })
})

test('what is too large to be kept is cut all the same, and the notice says that it is gone', () => {
  const { notice, meta, structured } = cut(
    { content: [text('a '.repeat(9_000))], structuredContent: { a: lines(99) } },
    300,
    null,
  )
  expect(notice).toContain('too large to be kept')
  expect(notice).not.toContain('read_result')
  expect(meta).toMatchObject({ handle: null, next_offset: null })
  expect(structured).toMatchObject({ truncated: true, handle: null })
})

describe('the estimate', () => {
  const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
  const samples: [string, string][] = [
    ['prose', read('README.md').slice(0, 20_000)],
    ['code', read('src/gateway/server.ts')],
    ['JSON', read('bench/search/corpus.json').slice(0, 20_000)],
    ['a lock file', read('package-lock.json').slice(0, 20_000)],
    ['a log', lines(300)],
    [
      'base64',
      Buffer.from(Uint8Array.from({ length: 6_000 }, (_, at) => (at * at * 31 + at * 7) >> 3)).toString('base64'),
    ],
    ['Chinese', '我们在这里讨论一个很大的结果，它应该被切断。'.repeat(20)],
    ['Russian', 'Слишком большой результат обрезается, а остальное можно дочитать. '.repeat(20)],
    ['emoji', '🎉🚀😀 '.repeat(100)],
  ]
  test.each(samples)('of %s is near what the tokenizer says', (_, sample) => {
    const ratio = estimateTokens(sample) / countTokens(JSON.stringify(sample))
    expect(ratio).toBeGreaterThan(0.8)
    expect(ratio).toBeLessThan(1.7)
  })

  test.each([
    ['prose', 'The quick brown fox jumps over the lazy dog. '],
    ['one letter', 'a'],
    ['spaces', ' '],
    ['Chinese', '我们在这里讨论一个很大的结果'],
    ['emoji', '😀'],
    ['JSON', '{"id":1,"name":"row"},'],
  ])('a megabyte of %s is cut as well as a page of it', (_, unit) => {
    const words = unit.repeat(Math.ceil(1e6 / unit.length))
    const { short, kept } = cut({ content: [text(words)] }, 1_000)
    expect(JSON.stringify(short.content).length).toBeLessThan(100_000)
    expect(kept?.text.length).toBe(words.length)
  })
})
