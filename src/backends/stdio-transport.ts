import type { JSONRPCMessage, JSONRPCRequest, Progress, RequestId, Transport } from '@modelcontextprotocol/client'
import type { StdioServerConfig } from '../config/servers-file.js'
import type { Env } from '../config/variables.js'
import { GatewayError } from '../errors/gateway-error.js'
import { type CallClock, ConnectionBroken, type RawResult, Unreachable } from './call.js'
import { type ServerProcess, startServerProcess } from './child-process.js'
import { isResponse, type JsonRpcResponse, MAX_MESSAGE_BYTES, parseMessage, progressIn, resultOf } from './json-rpc.js'

const NEWLINE = 0x0a
// What a server has not read yet; more means that it does not read at all.
const MAX_UNREAD_BYTES = 2 * MAX_MESSAGE_BYTES
const HALF_CLOSED_MS = 500
// Messages that answer nothing. A server that has more of them at once is heard half of the time; its pipe holds it back meanwhile.
const MAX_CHATTER = 50

/** How a direct call hears of progress. */
export type OnProgress = (progress: Progress) => void

interface PendingCall {
  readonly progress: OnProgress
  readonly answer: (response: JsonRpcResponse) => void
  readonly fail: (error: unknown) => void
}

/**
 * MCP over a child's stdin and stdout. Beside what the SDK asks of a transport it has the direct lane: `call` writes one line
 * and resolves with the answer of the same id, without the SDK in between.
 */
export class StdioTransport implements Transport {
  onclose?: () => void
  onerror?: (error: Error) => void
  onmessage?: (message: JSONRPCMessage) => void

  readonly #config: StdioServerConfig
  readonly #env: Env
  readonly #pending = new Map<RequestId, PendingCall>()
  #process: ServerProcess | undefined
  #chunks: Buffer[] = []
  #buffered = 0
  #closed = false
  /** Lines on stdout that were no JSON-RPC message; servers print banners there. */
  noise = 0
  #chatter = 0
  /** How the process ended, if it did so by itself, or why there is no talking to it any more. */
  ending: string | undefined

  constructor(config: StdioServerConfig, env: Env) {
    this.#config = config
    this.#env = env
  }

  // The SDK recognizes a stdio transport by `pid` and `stderr`: silence then means a server of the 2025 era.
  get pid(): number | undefined {
    return this.#process?.child.pid
  }

  get stderr(): NodeJS.ReadableStream | null {
    return this.#process?.child.stderr ?? null
  }

  stderrTail(): string[] {
    return this.#process?.stderrTail() ?? []
  }

  async start(): Promise<void> {
    this.#process = await startServerProcess(this.#config, this.#env)
    const { stdin, stdout } = this.#process.child
    stdout?.on('data', this.#receive)
    // When the process ends, its pipes close first; how it ended is the better reason, and comes within moments.
    const halfClosed = (why: string) => () => void setTimeout(this.#breakOff, HALF_CLOSED_MS, why).unref()
    stdout?.once('end', halfClosed('closed its output'))
    stdin?.once('close', halfClosed('closed its input'))
    void this.#process.exited.then(how => {
      if (!this.#closed) this.ending = how // otherwise it was we who ended it
      this.#end(new ConnectionBroken(`the process ${how}`))
      void this.#process?.stop() // what it started may have stayed behind
    })
  }

  async send(message: JSONRPCMessage): Promise<void> {
    const isNotification = !('id' in message)
    // A process that has just ended: how it did comes in a moment, once its last words have been read.
    if (isNotification && !this.#closed && this.#process?.child.stdin?.writable === false) return
    this.#write(message)
  }

  /** The direct lane: one line out, one line in, matched by id. Rejects with BackendRefusal, ConnectionBroken or the clock's error. */
  call(request: JSONRPCRequest, clock: CallClock, onProgress?: OnProgress): Promise<RawResult> {
    const { id } = request
    return new Promise((resolve, reject) => {
      if (clock.ended) return reject(clock.ended)
      const settled = () => {
        this.#pending.delete(id)
        unsubscribe()
      }
      const unsubscribe = clock.onEnd(reason => {
        settled()
        reject(reason)
        this.#cancel(id)
      })
      const answer = (response: JsonRpcResponse) => {
        settled()
        try {
          resolve(resultOf(response))
        } catch (refusal) {
          reject(refusal)
        }
      }
      const fail = (error: unknown) => {
        settled()
        reject(error)
      }
      const progress = (news: Progress) => {
        clock.progress()
        onProgress?.(news)
      }
      this.#pending.set(id, { progress, answer, fail })
      try {
        this.#write(request)
      } catch (error) {
        fail(error)
      }
    })
  }

  async close(): Promise<void> {
    this.#end(new ConnectionBroken('the connection was closed'))
    await this.#process?.stop()
  }

  #write(message: JSONRPCMessage): void {
    const stdin = this.#process?.child.stdin
    if (this.#closed || !stdin?.writable) throw new Unreachable('the process does not read its input')
    stdin.write(serialize(message))
    if (stdin.writableLength > MAX_UNREAD_BYTES) this.#breakOff('does not read its input')
  }

  /** Tells the server that nobody waits any more, if it can still be told. */
  #cancel(requestId: RequestId): void {
    try {
      this.#write({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId } })
    } catch {
      // It will not answer either.
    }
  }

  /** One half of the conversation is over, so the whole is. */
  readonly #breakOff = (why: string): void => {
    if (this.#closed) return
    this.ending = why
    this.#end(new ConnectionBroken(`the process ${why}`))
    void this.#process?.stop()
  }

  readonly #receive = (chunk: Buffer): void => {
    const startedAt = performance.now()
    this.#chatter = 0
    this.#takeLines(chunk)
    if (this.#chatter > MAX_CHATTER) this.#rest(startedAt)
  }

  /** Leaves the others as much time as these messages have taken. */
  #rest(startedAt: number): void {
    const stdout = this.#process?.child.stdout
    stdout?.pause()
    setImmediate(() => setTimeout(() => stdout?.resume(), performance.now() - startedAt).unref())
  }

  #takeLines(chunk: Buffer): void {
    let start = 0
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      const line =
        this.#buffered === 0 ? chunk.subarray(start, end) : Buffer.concat([...this.#chunks, chunk.subarray(start, end)])
      this.#chunks = []
      this.#buffered = 0
      start = end + 1
      this.#read(line)
    }
    if (start === chunk.length) return
    this.#chunks.push(chunk.subarray(start))
    this.#buffered += chunk.length - start
    if (this.#buffered > MAX_MESSAGE_BYTES) {
      this.#breakOff(`sent a message of more than ${MAX_MESSAGE_BYTES} bytes`)
    }
  }

  #read(line: Buffer): void {
    const message = parseMessage(line.toString('utf8'))
    if (message !== undefined && isResponse(message)) {
      const asked = this.#pending.get(message.id ?? '')
      asked?.answer(message)
      if (asked) return
    }
    this.#chatter++
    if (message === undefined) {
      if (line.length > 1) this.#reportNoise(line)
      return
    }
    const progress = progressIn(message)
    const concerned = progress && this.#pending.get(progress.token)
    if (concerned) concerned.progress(progress.progress)
    else this.onmessage?.(message)
  }

  #reportNoise(line: Buffer): void {
    this.noise++
    if (this.noise === 1)
      this.onerror?.(new Error(`wrote a line to stdout that is no MCP message: ${line.toString('utf8', 0, 200)}`))
  }

  #end(reason: Error): void {
    if (this.#closed) return
    this.#closed = true
    this.#process?.child.stdout?.off('data', this.#receive).resume()
    for (const { fail } of this.#pending.values()) fail(reason)
    this.#pending.clear()
    this.onclose?.()
  }
}

/** One line. Throws INVALID_ARGUMENTS for what cannot be written down. */
function serialize(message: JSONRPCMessage): string {
  try {
    return `${JSON.stringify(message)}\n`
  } catch (error) {
    throw new GatewayError('INVALID_ARGUMENTS', 'the arguments are nested too deeply', { cause: error })
  }
}
