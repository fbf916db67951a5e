import { connect, type Socket } from 'node:net'
import { type Expected, Malformed, readAnswers, type WireAnswer } from './fuzz-answers.js'

export class Unanswered extends Error {}
class ClosedBefore extends Unanswered {}

const ANSWER_MS = 20_000
// A stream that may stay open may have nothing to say; and in a session nobody answers a request that was cancelled meanwhile.
const STREAM_MS = { listening: 500, inSession: 3_000 }
// The server may wait for more of what is no request; it is told then that no more will come.
const RAW_MS = 500

/** One connection of keep-alive, from an address of its own; opened when it is needed and whenever it has been closed. */
export class Connection {
  readonly #port: number
  #address: string
  #socket: Socket | undefined

  constructor(port: number, address: string) {
    this.#port = port
    this.#address = address
  }

  /** Comes from somewhere else from now on. */
  moveTo(address: string): void {
    this.close()
    this.#address = address
  }

  close(): void {
    this.#socket?.destroy()
    this.#socket = undefined
  }

  /** Sends bytes and resolves with all there was in answer. Rejects with Malformed or Unanswered. */
  async exchange(bytes: Buffer, expected: Expected): Promise<WireAnswer[]> {
    if (expected.isRaw) this.close()
    const isReused = this.#socket !== undefined
    try {
      return await this.#exchangeOnce(bytes, expected)
    } catch (error) {
      // It was closed while the request was on its way, which keep-alive allows.
      if (!isReused || !(error instanceof ClosedBefore)) throw error
      return await this.#exchangeOnce(bytes, expected)
    }
  }

  async #exchangeOnce(bytes: Buffer, expected: Expected): Promise<WireAnswer[]> {
    const { isRaw, hangsUp, mayStayOpen } = expected
    const socket = this.#open()
    const timers: NodeJS.Timeout[] = []
    const listening = new AbortController()
    try {
      const { answers, isLast } = await new Promise<Answered>((resolve, reject) => {
        let received: Buffer = Buffer.alloc(0)
        let isLeaving = false
        const after = (ms: number, act: () => void) => void timers.push(setTimeout(act, ms))
        const look = (moment: { isOver: boolean; isLeaving: boolean }) => {
          try {
            const read = readAnswers(received, expected, moment)
            if (read.answers.length > 0) return resolve(read)
            const patienceMs = mayStayOpen ? STREAM_MS.listening : STREAM_MS.inSession
            const mayLast = mayStayOpen || read.stream?.headers.has('mcp-session-id')
            if (read.stream && mayLast && !isLeaving) after(patienceMs, () => look({ isOver: false, isLeaving: true }))
            isLeaving ||= read.stream !== undefined
          } catch (error) {
            reject(error)
          }
        }
        const onData = (chunk: Buffer) => {
          received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
          look({ isOver: false, isLeaving: false })
        }
        const onClose = () => {
          look({ isOver: true, isLeaving: false })
          const text = received.toString('latin1', 0, 500)
          if (isRaw) resolve({ answers: [], isLast: true })
          else reject(text === '' ? new ClosedBefore('closed') : new Malformed(`closed in the middle: ${text}`))
        }
        socket.on('data', onData).on('close', onClose)
        listening.signal.addEventListener('abort', () => socket.off('data', onData).off('close', onClose))
        after(ANSWER_MS, () => reject(new Unanswered(`not answered: ${received.toString('latin1', 0, 500)}`)))
        if (isRaw && !hangsUp) after(RAW_MS, () => socket.end())
        if (hangsUp) socket.end(bytes)
        else socket.write(bytes)
      })
      if (isRaw || isLast) this.close()
      return answers
    } catch (error) {
      this.close()
      throw error
    } finally {
      for (const timer of timers) clearTimeout(timer)
      listening.abort()
    }
  }

  #open(): Socket {
    if (this.#socket?.writable) return this.#socket
    const socket = connect({ host: '127.0.0.1', port: this.#port, localAddress: this.#address, noDelay: true })
    socket.on('error', () => {}) // what matters is that it closes
    this.#socket = socket
    return socket
  }
}

interface Answered {
  readonly answers: WireAnswer[]
  /** Nothing more comes on the connection. */
  readonly isLast: boolean
}
