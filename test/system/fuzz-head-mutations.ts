import type { Header } from './fuzz-credentials.js'
import type { Random } from './fuzz-random.js'
import type { BrokenRequest } from './fuzz-requests.js'

const HEADERS: readonly (readonly [string, readonly string[]])[] = [
  [
    'Host',
    [
      'evil.example',
      '',
      'localhost',
      'LOCALHOST:80',
      '[::1]:1',
      '127.0.0.1.evil.example',
      '127.0.0.1@evil.example',
      '127.0.0.1 x',
      '127.1',
      '2130706433',
      '127.0.0.1:99999',
      '127.0.0.1:x',
      'a'.repeat(3_000),
      '[',
      '127.0.0.1/..',
      '127.0.0.1?',
      '127.0.0.1#',
      '127.0.0.1\\x',
    ],
  ],
  [
    'Origin',
    [
      'null',
      'https://evil.example',
      'http://localhost:3000',
      'http://127.0.0.1.evil.example',
      'file://',
      '',
      'http://[::1',
      'x'.repeat(2_000),
    ],
  ],
  [
    'MCP-Protocol-Version',
    [
      '2026-07-28',
      '2025-11-25',
      '2025-06-18',
      '2025-03-26',
      '2024-11-05',
      '2099-01-01',
      '',
      'x',
      '__proto__',
      '2025-11-25, 2026-07-28',
    ],
  ],
  ['Mcp-Session-Id', ['', 'x', '__proto__', '00000000-0000-0000-0000-000000000000', 'a'.repeat(5_000), 'é']],
  [
    'Mcp-Method',
    [
      'tools/call',
      'tools/list',
      'initialize',
      'subscriptions/listen',
      'server/discover',
      '',
      'TOOLS/CALL',
      '__proto__',
      'no/such',
    ],
  ],
  [
    'Mcp-Name',
    ['execute_tool', 'read_result', '', '=?base64?ZXhlY3V0ZV90b29s?=', '=?base64?%%%?=', '=?base64?', 'é', '__proto__'],
  ],
  ['Mcp-Param-Region', ['eu', '', '=?base64?/w==?=', 'é']],
  [
    'Accept',
    [
      '*/*',
      '',
      'text/html',
      'application/json',
      'text/event-stream',
      'application/json;q=0, text/event-stream',
      ',,,',
      'a/b,'.repeat(2_000),
    ],
  ],
  [
    'Content-Type',
    [
      '',
      'text/plain',
      'application/json; charset=utf-16',
      'APPLICATION/JSON',
      'application/json-patch+json',
      'multipart/form-data',
      'application/x-www-form-urlencoded',
      'application/json, text/plain',
      ';',
      'application/json;'.repeat(500),
    ],
  ],
  ['Content-Encoding', ['gzip', 'br', 'identity', 'x']],
  ['Last-Event-ID', ['0', '1', '-1', '1e9', '__proto__', 'NaN', 'é', 'x'.repeat(3_000)]],
  [
    'traceparent',
    ['00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', '00-0-0-0', 'ff-x', '', '00-'.repeat(300)],
  ],
  ['tracestate', ['a=b', ',,,', 'x'.repeat(3_000)]],
  ['baggage', ['a=b;c', '%%%', 'x='.repeat(2_000)]],
  ['X-Forwarded-For', ['127.0.0.1', '10.0.0.1, 10.0.0.2', '::1', "' or 1=1"]],
  ['X-Forwarded-Host', ['evil.example']],
  ['X-Forwarded-Proto', ['https', 'javascript']],
  ['X-Forwarded-Prefix', ['/../..']],
  ['Forwarded', ['for=127.0.0.1;host=evil.example;proto=https']],
  ['X-Original-URL', ['/status']],
  ['X-HTTP-Method-Override', ['DELETE', 'GET']],
  ['Connection', ['close', 'keep-alive', 'upgrade', 'Authorization', 'x, y']],
  ['Upgrade', ['websocket', 'h2c', 'TLS/1.0']],
  ['Expect', ['100-continue', '200-ok']],
  ['Range', ['bytes=0-1', 'bytes=-999999999999']],
  ['If-None-Match', ['*', '""']],
  ['Cookie', ['session=1', '__proto__=1', '=;'.repeat(1_000)]],
  ['Date', ['x']],
  ['__proto__', ['x']],
  ['constructor', ['x']],
]

/** Changes, adds or takes away a header. */
export function mutateHeaders(request: BrokenRequest, random: Random): void {
  const { headers } = request
  const [name, values] = random.pick(HEADERS)
  const value = random.chance(0.1) ? random.bytes(12).toString('latin1') : random.pick(values)
  const others = headers.filter(([known]) => known.toLowerCase() !== name.toLowerCase())
  const index = random.below(headers.length)
  const [known = '', said = ''] = headers[index] ?? []
  random.pick<() => void>([
    () => headers.splice(0, headers.length, ...others, [name, value]),
    () => headers.splice(0, headers.length, ...others, [name, value]),
    () => headers.push([name, value]),
    () => headers.splice(index, 1),
    () => headers.push([known, said]),
    () =>
      headers.splice(index, 1, [
        random.pick([known.toUpperCase(), known.toLowerCase(), `${known} `, ` ${known}`, `${known}\u0000`]),
        said,
      ]),
    () =>
      headers.splice(index, 1, [
        known,
        random.pick([` ${said}\t`, `${said}\u0000`, `${said}\r\n X: folded`, `${said}\nX-Evil: 1`, `${said}é`]),
      ]),
    () =>
      headers.push(
        ...Array.from({ length: random.pick([50, 1_500, 2_500]) }, (_, index): Header => [`X-${index}`, 'x']),
      ),
    () => headers.push(['X-Long', 'x'.repeat(random.pick([10_000, 250_000, 300_000]))]),
  ])()
  // Whatever these do to where a request ends, nothing follows it.
  request.isRaw ||= headers.length > 1_000 || headers.some(([each, text]) => !isPlainHeader(each, text))
}

const FRAMING = new Set(['connection', 'upgrade', 'expect', 'content-length', 'transfer-encoding', 'host'])
const isPlainHeader = (name: string, value: string): boolean =>
  /^[\w!#$%&'*+.^`|~-]+$/.test(name) &&
  /^[\t\x20-\x7e\x80-\xff]*$/.test(value) &&
  value.length < 100_000 &&
  (name === 'Host' || !FRAMING.has(name.toLowerCase()))

const TARGETS = [
  '/mcp/',
  '//mcp',
  '/mcp/../status',
  '/mcp?expose=direct&expose=x',
  '/mcp?access_token=x',
  '/mcp?%',
  '/mcp?__proto__=1',
  '/mcp%2f',
  '/%6dcp',
  '/MCP',
  '/mcp#x',
  '/mcp;x',
  '/servers//mcp',
  '/servers/%/mcp',
  '/servers/%00/mcp',
  '/servers/%E0%A4%A/mcp',
  '/servers/%ED%A0%80/mcp',
  '/servers/..%2fshop/mcp',
  '/servers/shop/../new/mcp',
  '/servers/__proto__/mcp',
  '/servers/*/mcp',
  '/servers/shop%20/mcp',
  '/servers/%0d%0aX-Evil:1/mcp',
  `/servers/${'x'.repeat(20_000)}/mcp`,
  '/status',
  '/status/',
  '/health?x=1',
  '/.well-known/../health',
  '/.well-known/oauth-protected-resource/servers/%/mcp',
  `/.well-known/oauth-protected-resource/servers/${'%F0%9F%98%80'.repeat(500)}/mcp`,
  '/.well-known/oauth-authorization-server/mcp',
  '/..%c0%af..%c0%afetc/passwd',
  '*',
  '',
  'mcp',
  'http://evil.example/mcp',
  'http://127.0.0.1/mcp',
  'https://[::1/mcp',
  'evil.example:443',
  '/mcp\\..\\x',
  '/é',
  '/\u0001',
  '/a b',
  `/${'a/'.repeat(5_000)}`,
]

export function mutateTarget(request: BrokenRequest, random: Random): void {
  const at = random.below(request.target.length + 1)
  request.target = random.pick([
    () => random.pick(TARGETS),
    () => random.pick(TARGETS),
    () =>
      `${request.target.slice(0, at)}${random.pick(['%', '%2f', '%00', '/', '//', '/./', '?', '&', '%ff', ';'])}${request.target.slice(at)}`,
    () => request.target.slice(0, at),
  ])()
  request.isRaw ||= !/^[/*][\x21-\x7e]*$/.test(request.target)
}

const METHODS = [
  'GET',
  'GET',
  'DELETE',
  'DELETE',
  'PUT',
  'PATCH',
  'HEAD',
  'OPTIONS',
  'TRACE',
  'QUERY',
  'PROPFIND',
  'SEARCH',
  'PURGE',
  'M-SEARCH',
]
const NO_METHODS = ['CONNECT', 'get', 'post', 'FOO', '', 'POST\u0000', 'PRI', 'G\u00c9T']

export function mutateMethod(request: BrokenRequest, random: Random): void {
  const isNone = random.chance(0.1)
  request.method = random.pick(isNone ? NO_METHODS : METHODS)
  request.isRaw ||= isNone
}
