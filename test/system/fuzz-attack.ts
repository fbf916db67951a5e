import { Malformed, type WireAnswer } from './fuzz-answers.js'
import type { Loot, PendingCall } from './fuzz-calls.js'
import { Connection, Unanswered } from './fuzz-connection.js'
import type { Tokens } from './fuzz-credentials.js'
import { mutate, type WireRequest } from './fuzz-mutations.js'
import { createRandom } from './fuzz-random.js'
import { draftRequest } from './fuzz-requests.js'

export interface AttackOptions {
  readonly seed: number
  readonly port: number
  readonly tokens: Tokens
  readonly foreign: Pick<Loot, 'foreignSession' | 'foreignHandle'>
  /** In no answer. */
  readonly secrets: readonly string[]
  /** In no answer to a request that does not have them in its path or body. */
  readonly names: readonly string[]
}

const CONNECTIONS = 40
/** Of these connections that many share one address, which is slowed down and turned away in the end. */
const STUBBORN = 12
const STUBBORN_ADDRESS = '127.9.9.9'
/** The others come from somewhere else before that happens to them. */
const FAILURES_PER_ADDRESS = 90
const MAX_PROBLEMS = 10
const MAX_LOOT = 40

/** Sends mutated requests over many connections, and looks at every answer. */
export class Attack {
  readonly #options: AttackOptions
  readonly #connections: readonly Connection[]
  readonly #sessions: { id: string; target: string }[] = []
  readonly #handles: string[] = []
  readonly #pending: PendingCall[] = []
  readonly #waiting: (() => void)[] = []
  #isSending = false
  #next = 0
  #addresses = 0

  /** What went wrong, each with the request that made it. */
  readonly problems: string[] = []
  /** Requests by what they were, and by status, where 0 is a connection that was closed. */
  readonly kinds = new Map<string, number>()
  readonly statuses = new Map<number, number>()
  /** Streams that the attacker left. */
  left = 0

  constructor(options: AttackOptions) {
    this.#options = options
    this.#connections = Array.from(
      { length: CONNECTIONS },
      (_, index) => new Connection(options.port, index < STUBBORN ? STUBBORN_ADDRESS : this.#newAddress()),
    )
  }

  get sent(): number {
    return this.#next
  }

  /** Resolves when so many more requests are out; false when there will be no more. */
  async advance(requests: number): Promise<boolean> {
    const due = this.#next + requests
    while (this.#isSending && this.#next < due) await new Promise<void>(resolve => this.#waiting.push(resolve))
    return this.#isSending
  }

  /** Sends requests up to this number, and resolves when the last of them is answered. */
  async sendUntil(end: number): Promise<void> {
    this.#isSending = true
    await Promise.all(this.#connections.map((connection, index) => this.#work(connection, index < STUBBORN, end)))
    for (const connection of this.#connections) connection.close()
    this.#isSending = false
    this.#tell()
  }

  async #work(connection: Connection, isStubborn: boolean, end: number): Promise<void> {
    let failures = 0
    while (this.#next < end && this.problems.length < MAX_PROBLEMS) {
      const index = this.#next++
      const request = this.#make(index)
      count(this.kinds, request.kind)
      const answers = await this.#send(connection, request, index)
      for (const answer of answers) {
        count(this.statuses, answer.status)
        if (answer.isLeft) this.left++
        if (answer.status === 401 || answer.status === 400) failures++
        this.#check(answer, request, index)
        this.#collect(answer, request)
      }
      if (answers.length === 0) count(this.statuses, 0)
      this.#tell()
      if (failures < FAILURES_PER_ADDRESS || isStubborn) continue
      connection.moveTo(this.#newAddress())
      failures = 0
    }
  }

  #make(index: number): WireRequest {
    const { seed, port, tokens, foreign } = this.#options
    const random = createRandom(seed, index)
    const loot = { sessions: this.#sessions, handles: this.#handles, pending: this.#pending, ...foreign }
    const draft = draftRequest({ random, loot, nonce: nonceOf(index) })
    return mutate(draft, { random, tokens, host: `127.0.0.1:${port}` })
  }

  async #send(connection: Connection, request: WireRequest, index: number): Promise<readonly WireAnswer[]> {
    try {
      return await connection.exchange(request.bytes, request)
    } catch (error) {
      if (!(error instanceof Malformed || error instanceof Unanswered)) throw error
      this.#report(error.message, request, index)
      return []
    }
  }

  #check(answer: WireAnswer, request: WireRequest, index: number): void {
    const report = (problem: string) => this.#report(problem, request, index, answer)
    const { status, head, body } = answer
    const whole = `${head}\r\n\r\n${body}`
    const isSent = (part: string) => request.text.includes(part) || request.target.includes(part)
    if (status >= 500 && !isOurs(answer)) report(`status ${status}`)
    if (/"INTERNAL"|"code":-32603|Internal (Server )?Error/i.test(body) && !isOurs(answer)) report('an internal error')
    if (/\n\s+at .+:\d+:\d+|node_modules|\/dist\/[a-z]/.test(body)) report('a stack')
    if (answer.headers.has('x-evil')) report('a header of the request in the answer')
    for (const secret of this.#options.secrets) if (whole.includes(secret)) report(`a secret of the victim: ${secret}`)
    for (const name of this.#options.names)
      if (whole.includes(name) && !isSent(name)) report(`a name that is hidden: ${name}`)
    const strange = noncesIn(answer).find(nonce => nonce !== nonceOf(index) && !isSent(nonce))
    if (strange !== undefined && !isReplay(request)) report(`an answer to another request: ${strange}`)
    const problem = answer.isLeft || request.isHead ? undefined : jsonProblem(answer)
    if (problem !== undefined) report(problem)
  }

  /** What comes in handy for other requests. */
  #collect({ headers, body, status }: WireAnswer, { target, text }: WireRequest): void {
    const keep = <T>(list: T[], found: T) => {
      list.push(found)
      if (list.length > MAX_LOOT) list.shift()
    }
    const id = headers.get('mcp-session-id')
    const isNew = status === 200 && id !== undefined && !this.#sessions.some(known => known.id === id)
    if (isNew) keep(this.#sessions, { id, target })
    const [, handle] = /"handle":"([\w-]{24})"/.exec(body) ?? []
    if (handle !== undefined) keep(this.#handles, handle)
    const pending = body.includes('"requestState"') ? readPending(body, text) : undefined
    if (pending !== undefined) keep(this.#pending, { target, ...pending })
  }

  #report(problem: string, { kind, bytes }: WireRequest, index: number, answer?: WireAnswer): void {
    const got = answer ? `\n--- answer\n${answer.head}\n\n${answer.body.slice(0, 1_500)}` : ''
    const request = JSON.stringify(bytes.toString('latin1', 0, 4_000))
    this.problems.push(
      `FUZZ_SEED=${this.#options.seed}, request ${index} (${kind}): ${problem}\n--- request\n${request}${got}\n`,
    )
  }

  #tell(): void {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  #newAddress(): string {
    const number = ++this.#addresses
    return `127.1.${number >> 8}.${number & 255 || 1}`
  }
}

function count<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

/** What the answer wants to know, and what was asked; undefined when that was no JSON. */
function readPending(answer: string, request: string): Omit<PendingCall, 'target'> | undefined {
  try {
    const { result } = JSON.parse(answer) as { result: { requestState: string; inputRequests: object } }
    const { name, arguments: args } = (JSON.parse(request) as { params: Record<string, unknown> }).params
    const keys = Object.keys(result.inputRequests)
    return { params: { name, arguments: args }, requestState: result.requestState, keys }
  } catch {
    return undefined
  }
}

/** The attacker has taken all that a principal may have at a time. No backend fails, and so nothing else is the server's fault. */
const isOurs = ({ body }: WireAnswer): boolean => /Too many sessions are at work|Subscription limit reached/.test(body)

const nonceOf = (index: number): string => `nonce-${index}-`

/** Log messages are left out: a server that many share does not say which of a caller's requests they belong to. */
const noncesIn = ({ body }: WireAnswer): string[] =>
  body.replace(/^data: .*"method":"notifications\/message".*$/gm, '').match(/nonce-\d+-/g) ?? []

/** What a request may get of earlier ones of the same caller: messages of its session, a kept result, a call that goes on. */
const isReplay = ({ bytes, text }: WireRequest): boolean =>
  bytes.subarray(0, 4).toString() === 'GET ' || /read_result|requestState/.test(text)

/** An answer that says it is JSON is; each event of a stream is. */
function jsonProblem({ headers, body }: WireAnswer): string | undefined {
  const type = headers.get('content-type') ?? ''
  const texts = type.startsWith('application/json')
    ? [body]
    : type.startsWith('text/event-stream')
      ? [...body.matchAll(/^data: (.+)$/gm)].map(([, text = '']) => text)
      : []
  for (const text of texts) {
    try {
      JSON.parse(Buffer.from(text, 'latin1').toString('utf8'))
    } catch {
      return `no JSON: ${text.slice(0, 300)}`
    }
  }
  return undefined
}
