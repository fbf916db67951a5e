import { createServer, type Receive } from '../fixtures/servers/by-hand.js'
import { INITIALIZE, type Step } from './differential-script.js'
import type { Era, Json } from './differential-wires.js'

// What no SDK knows has to come through all the same.
const MORE = { 'x-unknown': { deep: [1, null, { a: 'b' }] }, _meta: { 'example.com/kept': true } }
const PAGES = 3

const TOOLS = [
  {
    name: 'odd',
    title: 'Odd',
    inputSchema: { type: 'object', properties: { a: { type: 'string', 'x-more': 1 } }, 'x-more': 1 },
    icons: [{ src: 'data:,', sizes: ['any'], 'x-more': 1 }],
    ...MORE,
  },
  { name: 'refusing', inputSchema: { type: 'object' } },
]

const RESULTS: Readonly<Record<string, Json>> = {
  'resources/read': { contents: [{ uri: 'odd://1', text: '', ...MORE }], ...MORE },
  'prompts/get': { messages: [{ role: 'user', content: { type: 'text', text: 'x', ...MORE }, 'x-more': 1 }], ...MORE },
  'completion/complete': { completion: { values: ['a'], total: 500, hasMore: true, 'x-more': 1 }, ...MORE },
}

/** A server written by hand: lists in pages, fields that nobody knows, and errors with data. */
export function createPages(era: Era): Receive {
  const rest = createServer({
    eras: [era],
    tools: TOOLS,
    capabilities: { tools: {}, resources: {}, prompts: {}, completions: {}, experimental: { 'x-more': { a: 1 } } },
    call: ({ name, arguments: args }, { reply, refuse }) => {
      if (name === 'refusing') refuse(Number(args?.code), 'I would rather not', { why: ['because', null] })
      else
        reply({
          content: [
            { type: 'text', text: JSON.stringify(args), ...MORE },
            { type: 'x-unknown', body: 1 },
          ],
          structuredContent: { list: [], nothing: null },
          isError: args?.fails === true,
          ...MORE,
        })
    },
  })
  return (message, wire) => {
    const { id, method, params } = message
    const list = /^(resources|resources\/templates|prompts)\/list$/.exec(String(method))?.[1]
    const result = list ? page(list, (params as Json | undefined)?.cursor) : RESULTS[String(method)]
    if (!result) return rest(message, wire)
    const isCached = list !== undefined || method === 'resources/read'
    const newer = era === 'modern' && { resultType: 'complete', ...(isCached && { ttlMs: 5, cacheScope: 'private' }) }
    wire.send({ jsonrpc: '2.0', id, result: { ...newer, ...result } })
  }
}

/** The cursor is anything but a name, and one page has nothing on it. */
function page(list: string, cursor: unknown): Json {
  const number = cursor === undefined ? 1 : Number(/^page "(\d)" \/ ü$/.exec(String(cursor))?.[1])
  const items =
    number === 2 ? [] : [{ name: `${list} ${number}`, uri: `odd://${number}`, uriTemplate: 'odd://{x}', ...MORE }]
  const key = list === 'resources/templates' ? 'resourceTemplates' : list
  return { [key]: items, ...(number < PAGES && { nextCursor: `page "${number + 1}" / ü` }), ...MORE }
}

const follow = (name: string, method: string): Step[] => [
  { name, method },
  { name: `${name}, page 2`, method, follows: name },
  { name: `${name}, page 3`, method, follows: `${name}, page 2` },
]

export const pagesScript = (): readonly Step[] => [
  INITIALIZE,
  { name: 'initialized', method: 'notifications/initialized', kind: 'notification', modern: undefined },
  { name: 'tools', method: 'tools/list' },
  { name: 'odd', method: 'tools/call', params: { name: 'odd', arguments: { a: 'x', more: null } } },
  { name: 'odd, failing', method: 'tools/call', params: { name: 'odd', arguments: { fails: true } } },
  ...[1234, -32000, -32602, -32603].map(code => ({
    name: `refused with ${code}`,
    method: 'tools/call',
    params: { name: 'refusing', arguments: { code } },
  })),
  ...follow('resources', 'resources/list'),
  ...follow('templates', 'resources/templates/list'),
  ...follow('prompts', 'prompts/list'),
  { name: 'read', method: 'resources/read', params: { uri: 'odd://1' } },
  { name: 'prompt', method: 'prompts/get', params: { name: 'prompts 1' } },
  {
    name: 'complete',
    method: 'completion/complete',
    params: { ref: { type: 'ref/prompt', name: 'prompts 1' }, argument: { name: 'x', value: '' } },
  },
]
