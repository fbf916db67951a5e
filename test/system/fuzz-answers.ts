/** An answer as it came over the wire. */
export interface WireAnswer {
  readonly status: number
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>
  /** One character a byte, so that anything can be looked for in it. */
  readonly head: string
  readonly body: string
  /** A stream that the client left before its end. */
  readonly isLeft: boolean
}

export interface Expected {
  /** An answer to HEAD has no body. */
  readonly isHead: boolean
  /** A stream of events that may stay open is left as soon as it has begun. */
  readonly mayStayOpen: boolean
  /** What is sent may be no HTTP request, or several: the connection is used for nothing else, and may close without an answer. */
  readonly isRaw: boolean
  /** The client hangs up in the middle of its request. */
  readonly hangsUp: boolean
}

export class Malformed extends Error {}

/** What there is in the bytes so far. */
export interface ReadAnswers {
  readonly answers: WireAnswer[]
  /** The answer that is still coming, if that is a stream of events. */
  readonly stream?: Head
  /** The server closes the connection after what has been read. */
  readonly isLast: boolean
}

interface Moment {
  /** The connection is closed. */
  readonly isOver: boolean
  /** A stream that has begun is not waited for any more. */
  readonly isLeaving: boolean
}

/** All whole answers in what has come so far. */
export function readAnswers(received: Buffer, expected: Expected, { isOver, isLeaving }: Moment): ReadAnswers {
  const answers: WireAnswer[] = []
  let rest = received
  let isLast = false
  for (;;) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) {
      if (isOver && rest.length > 0 && answers.length > 0) throw new Malformed('closed in the middle of a head')
      return { answers, isLast }
    }
    const head = readHead(rest.toString('latin1', 0, end))
    const after = rest.subarray(end + 4)
    if (head.status < 200) {
      rest = after
      continue
    }
    const isStream = (head.headers.get('content-type') ?? '').startsWith('text/event-stream')
    const body = readBody(after, head, expected)
    const leaves = isStream && body === undefined && (isLeaving || (expected.mayStayOpen && after.length > 0))
    if (body === undefined && !leaves) {
      if (isOver && head.framing === 'close') answers.push({ ...head, body: after.toString('latin1'), isLeft: false })
      return { answers, isLast: isOver, ...(isStream && { stream: head }) }
    }
    const text = body ?? { content: after, length: after.length }
    answers.push({ ...head, body: text.content.toString('latin1'), isLeft: leaves })
    isLast = leaves || head.headers.get('connection') === 'close'
    rest = after.subarray(text.length)
    if (isLast || rest.length === 0) return { answers, isLast }
    if (!expected.isRaw) throw new Malformed(`bytes after the answer: ${rest.toString('latin1', 0, 200)}`)
  }
}

export interface Head {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly head: string
  readonly framing: 'length' | 'chunked' | 'close'
}

const ONCE = new Set(['content-length', 'transfer-encoding', 'content-type', 'mcp-session-id', 'www-authenticate'])

/** Strict, so that nothing that a request said can have become a line of its answer. */
function readHead(head: string): Head {
  const [first = '', ...lines] = head.split('\r\n')
  const [, status] = /^HTTP\/1\.1 (\d{3}) [\x20-\x7e]*$/.exec(first) ?? []
  if (status === undefined) throw new Malformed(`no status line: ${first.slice(0, 200)}`)
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t\x20-\x7e\x80-\xff]*)$/.exec(line) ?? []
    if (name === undefined || value === undefined) throw new Malformed(`no header: ${line.slice(0, 200)}`)
    const key = name.toLowerCase()
    if (ONCE.has(key) && headers.has(key)) throw new Malformed(`${key} twice`)
    headers.set(key, value)
  }
  const [length, encoding] = [headers.get('content-length'), headers.get('transfer-encoding')]
  if (length !== undefined && (encoding !== undefined || !/^\d+$/.test(length)))
    throw new Malformed(`lengths: ${head.slice(0, 500)}`)
  const framing = length !== undefined ? 'length' : encoding === 'chunked' ? 'chunked' : 'close'
  return { status: Number(status), headers, head, framing }
}

interface Body {
  readonly content: Buffer
  /** Of what it took on the wire. */
  readonly length: number
}

/** Undefined while there is more to come. */
function readBody(bytes: Buffer, { status, headers, framing }: Head, { isHead }: Expected): Body | undefined {
  if (isHead || status === 204 || status === 304) return { content: Buffer.alloc(0), length: 0 }
  if (framing === 'chunked') return readChunks(bytes)
  if (framing === 'close') return undefined
  const length = Number(headers.get('content-length'))
  return bytes.length < length ? undefined : { content: bytes.subarray(0, length), length }
}

function readChunks(bytes: Buffer): Body | undefined {
  const chunks: Buffer[] = []
  let at = 0
  for (;;) {
    const end = bytes.indexOf('\r\n', at)
    if (end < 0) return undefined
    const text = bytes.toString('latin1', at, end)
    if (!/^[0-9a-f]+$/i.test(text)) throw new Malformed(`no length of a chunk: ${text.slice(0, 100)}`)
    const start = end + 2
    const size = Number.parseInt(text, 16)
    if (bytes.length < start + size + 2) return undefined
    if (bytes.toString('latin1', start + size, start + size + 2) !== '\r\n')
      throw new Malformed('a chunk without its end')
    at = start + size + 2
    if (size === 0) return { content: Buffer.concat(chunks), length: at }
    chunks.push(bytes.subarray(start, start + size))
  }
}
