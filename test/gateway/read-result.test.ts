import { countTokens } from 'gpt-tokenizer/encoding/o200k_base'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { GatewayError } from '../../src/errors/gateway-error.js'
import { KeptResults } from '../../src/gateway/kept-results.js'
import { createReadResult, keepFor } from '../../src/gateway/read-result.js'
import { estimateTokens, withinBudget } from '../../src/gateway/result-budget.js'
import type { Snapshot } from '../../src/gateway/snapshot.js'
import { type Caller, GatewayCall } from '../../src/gateway/tool.js'
import { compileRules, resultBudgetOf } from '../../src/rules/compile.js'

beforeEach(() => {
  vi.useFakeTimers()
  vi.advanceTimersByTime(1_000) // a clock at 0 is none to lru-cache
})
afterEach(() => {
  vi.useRealTimers()
})

const agents = {
  dev: { allow: { servers: ['*'] }, max_result_tokens: 500 },
  ops: { allow: { servers: ['*'] } },
  tight: { allow: { servers: ['*'] }, max_result_tokens: 1 },
}

function callAs(principal: string, entries: Record<string, object> = agents): GatewayCall {
  const rules = compileRules({ agents: entries, defaults: { deny_on_missing_agent: true } }, [])
  const caller = { principal: { id: principal, key: principal, agents: 'any' }, era: 'modern' } as unknown as Caller
  return new GatewayCall(caller, { rules, backends: new Map([['shop', {}]]) } as unknown as Snapshot)
}

let kept: KeptResults
beforeEach(() => {
  kept = new KeptResults()
})

/** What execute_tool does with a backend's result; gives the handle. */
function answer(result: object, { principal = 'ann', agent = 'dev' } = {}) {
  const call = callAs(principal)
  call.actAs(agent)
  call.server = 'shop'
  call.tool = 'query'
  const budget = resultBudgetOf(call.snapshot.rules, agent) ?? 100
  const short = withinBudget(result as never, budget, keepFor(kept, call, agent))
  return short._meta?.['agent-mcp-gateway/truncated'] as {
    handle: string
    next_offset: number
    total_characters: number
  }
}

interface Page {
  readonly handle: string
  readonly offset: number
  readonly next_offset: number | null
  readonly total_characters: number
  readonly text: string
}

async function read(args: object, { principal = 'ann', agent = 'dev', entries = agents as object } = {}) {
  const call = callAs(principal, entries as Record<string, object>)
  const result = await createReadResult(kept).run(call, { agent_id: agent, ...args })
  const content = result.content as unknown as Record<string, unknown>[]
  return { call, result, content, page: result.structuredContent as unknown as Page }
}

const refused = (args: object, as: Parameters<typeof read>[1] = {}) =>
  read(args, as).then(
    () => undefined,
    (error: GatewayError) => ({ code: error.code, message: error.message, details: error.details }),
  )

const text = (words: string) => ({ type: 'text', text: words })
const image = { type: 'image', mimeType: 'image/png', data: 'iVBORw0K'.repeat(9_000), annotations: { priority: 1 } }
const HALF_A_PAIR = /\p{Surrogate}/u
const long = Array.from({ length: 3_000 }, (_, at) => `line ${at} 😀 "quoted" wörd`).join('\n')

async function readAll(handle: string, args: object = {}, as: Parameters<typeof read>[1] = {}) {
  const pages: Page[] = []
  for (let offset: number | null = 0; offset !== null; ) {
    const { page }: { page: Page } = await read({ handle, offset, ...args }, as)
    expect(page.offset).toBe(offset)
    expect(page.next_offset ?? Number.POSITIVE_INFINITY).toBeGreaterThan(offset)
    pages.push(page)
    offset = page.next_offset
  }
  return pages
}

describe('pages', () => {
  test('together are exactly the whole text, each within the budget', async () => {
    const { handle, total_characters } = answer({ content: [text(long)] })
    const pages = await readAll(handle)
    expect(pages.map(page => page.text).join('')).toBe(long)
    expect(total_characters).toBe(long.length)
    for (const page of pages) {
      expect(countTokens(JSON.stringify(page))).toBeLessThanOrEqual(500)
      expect(page.text).not.toMatch(HALF_A_PAIR)
    }
  })

  test('say the page and how to read on, as text and as structuredContent', async () => {
    const { handle, next_offset } = answer({ content: [text(long)] })
    const { content, page } = await read({ handle, offset: next_offset })
    expect(content[0]).toEqual(text(page.text))
    expect(long.startsWith(page.text, next_offset)).toBe(true)
    expect(page).toMatchObject({ handle, offset: next_offset, total_characters: long.length })
    expect(content[1]?.text).toContain(
      `read_result {"handle":"${handle}","agent_id":"dev","offset":${page.next_offset}}`,
    )
  })

  test('have 10,000 tokens without a budget', async () => {
    const { handle } = answer({ content: [text(long)] }, { agent: 'ops' })
    const { page } = await read({ handle }, { agent: 'ops' })
    const tokens = estimateTokens(page.text)
    expect(tokens).toBeGreaterThan(9_500)
    expect(tokens).toBeLessThanOrEqual(10_000)
  })

  test.each([1, 2, 3, 7])('of %i characters at most never split a pair and always go on', async limit => {
    const words = `a😀😀b${'😀'.repeat(400)}`
    const { handle } = answer({ content: [text(words)] })
    const pages = await readAll(handle, { limit })
    expect(pages.map(page => page.text).join('')).toBe(words)
    expect(pages.every(page => !HALF_A_PAIR.test(page.text) && page.text.length <= Math.max(2, limit))).toBe(true)
  })

  test('go on by at least a character under the smallest budget', async () => {
    const { handle } = answer({ content: [text('😀 ab'.repeat(20))] }, { agent: 'tight' })
    const pages = await readAll(handle, {}, { agent: 'tight' })
    expect(pages.map(page => page.text).join('')).toBe('😀 ab'.repeat(20))
  })

  test('hold everything: text, links, structured content, a line for each item', async () => {
    const link = { type: 'resource_link', uri: 'file:///a', name: 'a' }
    const { handle } = answer({ content: [text(long), image, link], structuredContent: { rows: [1] } })
    const whole = (await readAll(handle)).map(page => page.text).join('')
    expect(whole).toBe(
      [
        long,
        `[item 0: image "image/png", ${image.data.length} characters, read whole with "item": 0]`,
        JSON.stringify(link),
        'structuredContent:',
        '{"rows":[1]}',
      ].join('\n'),
    )
  })

  test('an item is read whole, as it came, and alone', async () => {
    const { handle } = answer({ content: [text(long), image] })
    const { result } = await read({ handle, item: 0 })
    expect(result).toEqual({ content: [image] })
  })
})

describe('offsets nobody was given', () => {
  test('the very end is an empty last page', async () => {
    const { handle } = answer({ content: [text(long)] })
    const { page } = await read({ handle, offset: long.length })
    expect(page).toMatchObject({ text: '', offset: long.length, next_offset: null })
  })

  test('the middle of a pair begins with the whole pair', async () => {
    const { handle } = answer({ content: [text('😀'.repeat(2_000))] })
    const { page } = await read({ handle, offset: 3, limit: 2 })
    expect(page).toMatchObject({ offset: 2, text: '😀' })
  })

  test.each<[string, object]>([
    ['past the end', { offset: 2 * long.length }],
    ['far past the end', { offset: Number.MAX_SAFE_INTEGER }],
    ['beyond safe numbers', { offset: 1e300 }],
    ['negative', { offset: -1 }],
    ['a fraction', { offset: 1.5 }],
    ['not a number', { offset: '1; drop' }],
    ['null', { offset: null }],
    ['a limit of nothing', { limit: 0 }],
    ['no such item', { item: 1 }],
    ['a negative item', { item: -1 }],
    ['what it does not know', { page: 2 }],
  ])('%s is an error of the arguments', async (_, args) => {
    const { handle } = answer({ content: [text(long), image] })
    const error = await refused({ handle, ...(args as object) })
    expect(error?.code).toBe('INVALID_ARGUMENTS')
  })
})

describe('a handle', () => {
  test('is 24 characters that cannot be guessed, another for every result', () => {
    const handles = Array.from({ length: 200 }, () => answer({ content: [text(long)] }).handle)
    expect(new Set(handles).size).toBe(200)
    expect(handles.every(handle => /^[A-Za-z0-9_-]{24}$/.test(handle))).toBe(true)
  })

  test('of another principal, of another agent, expired or invented: all the same words', async () => {
    const { handle } = answer({ content: [text(long)] })
    const unknown = await refused({ handle: 'invented' })
    expect(unknown).toMatchObject({
      code: 'INVALID_ARGUMENTS',
      message: expect.stringContaining('call the tool again'),
    })
    expect(await refused({ handle }, { principal: 'bob' })).toEqual(unknown)
    expect(await refused({ handle }, { agent: 'ops' })).toEqual(unknown)
    expect((await read({ handle })).page.offset).toBe(0)
    vi.advanceTimersByTime(9 * 60_000)
    expect((await read({ handle })).page.offset).toBe(0)
    vi.advanceTimersByTime(2 * 60_000)
    expect(await refused({ handle })).toEqual(unknown)
  })

  test('reads no more once the rules deny the tool it came from, and the audit line says why', async () => {
    const { handle } = answer({ content: [text(long)] })
    const entries = { dev: { ...agents.dev, deny: { tools: { shop: ['query'] } } } }
    expect(await refused({ handle }, { entries })).toEqual(await refused({ handle: 'invented' }))
    const { call } = await read({ handle })
    expect(call).toMatchObject({ agent: 'dev', server: 'shop', tool: 'query', decision: { decision: 'allow' } })
  })

  test('is not for agents the caller may not be', async () => {
    const { handle } = answer({ content: [text(long)] })
    expect(await refused({ handle }, { agent: 'stranger' })).toMatchObject({ code: 'INVALID_AGENT_ID' })
  })
})

describe('memory', () => {
  const MIB = 1024 * 1024
  const huge = (mib: number) => ({ text: 'x', items: [], length: mib * MIB - 1_024 })
  const keep = (principal: string, mib: number) =>
    kept.keep({ ...huge(mib), principal, agent: 'dev', server: 'shop', tool: 'query' })
  const isThere = (handle: string | undefined, principal: string) =>
    kept.find(handle ?? '', { principal, agent: 'dev' }) !== undefined

  test('a principal has 16 MiB of it: its own oldest go first', () => {
    const other = keep('bob', 1)
    const handles = [keep('ann', 8), keep('ann', 4), keep('ann', 4)]
    expect(handles.map(handle => isThere(handle, 'ann'))).toEqual([true, true, true])
    handles.push(keep('ann', 1))
    expect(handles.map(handle => isThere(handle, 'ann'))).toEqual([false, true, true, true])
    handles.push(keep('ann', 16))
    expect(handles.map(handle => isThere(handle, 'ann'))).toEqual([false, false, false, false, true])
    expect(isThere(other, 'bob')).toBe(true)
  })

  test('all together have 64 MiB: the oldest go first', () => {
    const names = ['a', 'b', 'c', 'd', 'e']
    const handles = names.map(name => keep(name, 16))
    expect(handles.map((handle, at) => isThere(handle, names[at] ?? ''))).toEqual([false, true, true, true, true])
    // What went makes room for its principal again.
    expect(isThere(keep('a', 16), 'a')).toBe(true)
  })

  test('what is larger than that is not kept, and throws nothing else out', () => {
    const small = keep('ann', 1)
    expect(keep('ann', 17)).toBeUndefined()
    expect(isThere(small, 'ann')).toBe(true)
  })

  test('what expired goes, without anybody asking for it', () => {
    const first = keep('ann', 10)
    expect(vi.getTimerCount()).toBeGreaterThan(0)
    vi.advanceTimersByTime(11 * 60_000)
    expect(vi.getTimerCount()).toBe(0)
    const later = [keep('ann', 10), keep('ann', 6)]
    expect([first, ...later].map(handle => isThere(handle, 'ann'))).toEqual([false, true, true])
  })

  test('a flood of tiny results is bounded too', () => {
    const handles = Array.from({ length: 20_000 }, () =>
      kept.keep({ text: '', items: [], length: 0, principal: 'ann', agent: 'dev', server: 's', tool: 't' }),
    )
    expect(handles.filter(handle => isThere(handle, 'ann'))).toHaveLength(16 * 1024)
  })
})

test('a result of 17 million characters is cut, and not kept', () => {
  expect(answer({ content: [text('word '.repeat(3_500_000))] })).toMatchObject({ handle: null, next_offset: null })
})
