import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { createParser } from 'eventsource-parser'

export type Json = Record<string, unknown>
export type Era = 'legacy' | 'modern'

/** A client that speaks raw JSON-RPC: nothing between the test and what was written. */
export interface Wire {
  readonly era: Era
  /** One stream for everything: what was said first is heard first. */
  readonly answersInOrder: boolean
  /** Requests and notifications of the server, as they came in. */
  readonly heard: Json[]
  /** Answers to nothing that was asked. */
  readonly strays: readonly Json[]
  /** How requests of the server are answered: a result, or `{ error }`. */
  answerWith: (method: string) => Json
  /** Sends a request; `undefined` when it was withdrawn. A request of 2026 goes in its envelope. */
  ask(id: string | number, method: string, params: unknown): Promise<Json | undefined>
  tell(method: string, params?: Json): Promise<void>
  /** Withdraws a request, as its era does. */
  withdraw(id: string | number): Promise<void>
  /** What the server says besides: the GET stream of 2025 over HTTP. Stdio has it anyway. */
  openStream(): Promise<void>
  /** Waits for a condition on what was heard; false when it gave up, and the comparison tells. */
  until(isTrue: () => boolean, patienceMs?: number): Promise<boolean>
  close(): Promise<void>
}

export const CAPABILITIES = { elicitation: { form: {}, url: {} }, sampling: {}, roots: { listChanged: true } }
export const CLIENT = { name: 'differential', version: '1.0.0' }

const MODERN = '2026-07-28'
const LEGACY = '2025-11-25'
const GIVE_UP_MS = 10_000
const NO_ANSWER_MS = 30_000

abstract class RawWire implements Wire {
  readonly heard: Json[] = []
  readonly strays: Json[] = []
  answerWith: Wire['answerWith'] = () => ({})
  readonly era: Era
  readonly #pending = new Map<unknown, (answer: Json | undefined) => void>()
  readonly #watching = new Set<() => void>()

  constructor(era: Era) {
    this.era = era
  }

  abstract readonly answersInOrder: boolean
  protected abstract send(message: Json): Promise<void>
  abstract withdraw(id: string | number): Promise<void>
  abstract close(): Promise<void>
  async openStream(): Promise<void> {}

  async ask(id: string | number, method: string, params: unknown): Promise<Json | undefined> {
    const answered = new Promise<Json | undefined>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`no answer to ${method}: ${JSON.stringify(params)}`)),
        NO_ANSWER_MS,
      )
      this.#pending.set(id, answer => {
        clearTimeout(timer)
        resolve(answer)
      })
    })
    const sent = this.era === 'modern' ? inEnvelope(params) : params
    await this.send({ jsonrpc: '2.0', id, method, ...(sent !== undefined && { params: sent }) })
    return answered
  }

  async tell(method: string, params?: Json): Promise<void> {
    await this.send({ jsonrpc: '2.0', method, ...(params && { params }) })
  }

  async until(isTrue: () => boolean, patienceMs = GIVE_UP_MS): Promise<boolean> {
    return new Promise<boolean>(resolve => {
      const check = () => {
        if (isTrue()) done(true)
      }
      const done = (isDone: boolean) => {
        clearTimeout(timer)
        this.#watching.delete(check)
        resolve(isDone)
      }
      const timer = setTimeout(() => done(false), patienceMs)
      this.#watching.add(check)
      check()
    })
  }

  protected receive(message: Json): void {
    if ('method' in message) {
      this.heard.push(message)
      if ('id' in message) void this.send({ jsonrpc: '2.0', id: message.id, ...this.#answerTo(String(message.method)) })
    } else if (!this.resolve(message.id, message)) this.strays.push(message)
    for (const check of [...this.#watching]) check()
  }

  /** An answer without an id is to what is still open. */
  protected resolve(id: unknown, answer: Json | undefined): boolean {
    const key = id ?? [...this.#pending.keys()].at(-1)
    const resolve = this.#pending.get(key)
    this.#pending.delete(key)
    resolve?.(answer)
    return resolve !== undefined
  }

  #answerTo(method: string): Json {
    const answer = this.answerWith(method)
    return 'error' in answer ? answer : { result: answer }
  }
}

/** A server as a child process. */
export async function overStdio(
  era: Era,
  args: readonly string[],
  options: { readonly env: Record<string, string | undefined>; readonly cwd?: string },
): Promise<Wire> {
  const child = spawn(process.execPath, args, { ...options, stdio: ['pipe', 'pipe', 'ignore'] })
  await once(child, 'spawn')
  class StdioWire extends RawWire {
    readonly answersInOrder = true
    async send(message: Json): Promise<void> {
      child.stdin.write(`${JSON.stringify(message)}\n`)
    }
    async withdraw(id: string | number): Promise<void> {
      await this.tell('notifications/cancelled', { requestId: id })
      this.resolve(id, undefined)
    }
    async close(): Promise<void> {
      const exited = once(child, 'exit')
      child.stdin.end()
      child.kill()
      if (child.exitCode === null && child.signalCode === null) await exited
    }
    override receive(message: Json): void {
      super.receive(message)
    }
  }
  const wire = new StdioWire(era)
  createInterface({ input: child.stdout }).on('line', line => wire.receive(JSON.parse(line)))
  return wire
}

/** Streamable HTTP of either era. */
export function overHttp(era: Era, url: string, token?: string): Wire {
  return new HttpWire(era, url, token)
}

class HttpWire extends RawWire {
  readonly answersInOrder = false
  readonly #url: string
  readonly #token: string | undefined
  readonly #closing = new AbortController()
  readonly #open = new Map<unknown, AbortController>()
  #session: string | undefined

  constructor(era: Era, url: string, token: string | undefined) {
    super(era)
    this.#url = url
    this.#token = token
  }

  async send(message: Json): Promise<void> {
    const hangUp = new AbortController()
    const isRequest = 'id' in message && 'method' in message
    if (isRequest) this.#open.set(message.id, hangUp)
    const response = await fetch(this.#url, {
      method: 'POST',
      headers: this.#headers(message),
      body: JSON.stringify(message),
      signal: AbortSignal.any([this.#closing.signal, hangUp.signal]),
    }).catch(error => {
      if (!hangUp.signal.aborted && !this.#closing.signal.aborted) throw error
    })
    if (!response) return
    if (message.method === 'initialize') this.#session = response.headers.get('mcp-session-id') ?? undefined
    const done = this.#read(response).catch(() => {}) // hung up, by either side
    if (!isRequest) await done
  }

  async withdraw(id: string | number): Promise<void> {
    if (this.era === 'legacy') await this.tell('notifications/cancelled', { requestId: id })
    else this.#open.get(id)?.abort()
    this.resolve(id, undefined)
  }

  override async openStream(): Promise<void> {
    const response = await fetch(this.#url, { headers: this.#headers({}), signal: this.#closing.signal })
    if (response.status === 405) return // it has none
    if (!response.ok) throw new Error(`no stream: ${response.status}`)
    void this.#read(response).catch(() => {})
  }

  async close(): Promise<void> {
    if (this.#session !== undefined) await fetch(this.#url, { method: 'DELETE', headers: this.#headers({}) })
    this.#closing.abort()
  }

  #headers({ method, params }: Json): Record<string, string> {
    const { name, uri, taskId, arguments: args } = (params ?? {}) as Json
    const subject = method === 'resources/read' ? uri : (name ?? taskId)
    const region = (args as Json | null | undefined)?.region
    return {
      accept: 'application/json, text/event-stream',
      'content-type': 'application/json',
      ...(this.#token !== undefined && { authorization: `Bearer ${this.#token}` }),
      ...(method !== 'initialize' && { 'mcp-protocol-version': this.era === 'modern' ? MODERN : LEGACY }),
      ...(this.#session !== undefined && { 'mcp-session-id': this.#session }),
      ...(this.era === 'modern' && typeof method === 'string' && { 'mcp-method': method }),
      ...(this.era === 'modern' && typeof subject === 'string' && { 'mcp-name': subject }),
      // Of `test_x_mcp_header` of the conformance suite.
      ...(this.era === 'modern' && typeof region === 'string' && { 'mcp-param-region': region }),
    }
  }

  async #read(response: Response): Promise<void> {
    if (!response.headers.get('content-type')?.includes('text/event-stream')) {
      const text = await response.text()
      if (text !== '') this.receive(JSON.parse(text))
      return
    }
    const parser = createParser({ onEvent: ({ data }) => data !== '' && this.receive(JSON.parse(data)) })
    const decoder = new TextDecoder()
    for await (const chunk of response.body ?? []) parser.feed(decoder.decode(chunk as Uint8Array, { stream: true }))
  }
}

/** The envelope of 2026-07-28. What is no object cannot have one. */
function inEnvelope(params: unknown): unknown {
  if (params !== undefined && (typeof params !== 'object' || params === null || Array.isArray(params))) return params
  const { _meta: meta, ...rest } = (params ?? {}) as Json
  const envelope = {
    'io.modelcontextprotocol/protocolVersion': MODERN,
    'io.modelcontextprotocol/clientInfo': CLIENT,
    'io.modelcontextprotocol/clientCapabilities': CAPABILITIES,
    'io.modelcontextprotocol/logLevel': 'debug',
  }
  return { ...rest, _meta: { ...(meta as Json | undefined), ...envelope } }
}
