import { PassThrough } from 'node:stream'
import { setTimeout as wait } from 'node:timers/promises'
import type { JSONRPCMessage, McpRequestContext } from '@modelcontextprotocol/server'
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio'
import { isJsonObject } from '../json.js'
import type { Logger } from '../observability/logger.js'
import type { Entry, WatchFilter } from './endpoint.js'
import type { RelayServer, ServerFactory } from './server.js'

// As long as a server may take to start; the client waits for nothing else.
const PATIENCE_MS = 60_000
// For the acknowledgement of a subscription.
const READY_MS = 500
// For what is under way when the client has nothing more to say.
const DRAIN_MS = 5_000

/** MCP on stdin and stdout, either era. */
export function openStdioFront(factory: ServerFactory, entry: Entry, logger: Logger): { close(): Promise<void> } {
  const transport = new ListenedTransport()
  const build = async (context: McpRequestContext): Promise<RelayServer> => {
    if (context.era === 'legacy') return factory.create(entry, context)
    transport.server = await factory.createDeclaring(entry, context, PATIENCE_MS)
    return transport.server
  }
  return serveStdio(build, { transport, onerror: error => logger.debug({ reason: error.message }, 'stdio front') })
}

/** Resolves when the client has gone. */
export const stdinEnded = (): Promise<void> =>
  new Promise(resolve => {
    process.stdin.once('end', resolve)
    process.stdin.once('close', resolve)
    process.stdin.once('error', () => resolve())
    process.stdout.once('error', () => resolve())
  })

/**
 * The SDK answers `subscriptions/listen` by itself and passes on what the server announces. What there is to announce has to be asked
 * of the backends first, which is what this overhears the requests for.
 */
class ListenedTransport extends StdioServerTransport {
  server: RelayServer | undefined
  readonly #unanswered = new Set<unknown>()
  #isDrained: (() => void) | undefined

  constructor() {
    const input = new PassThrough()
    super(input, process.stdout)
    process.stdin.pipe(input, { end: false })
    // The SDK ends everything with its input; what was asked for before is answered first.
    process.stdin.once('end', () => void this.#drained().then(() => input.end()))
    process.stdin.once('error', () => input.end())
  }

  override send(message: JSONRPCMessage): Promise<void> {
    if (!('method' in message)) {
      this.#unanswered.delete(message.id)
      if (this.#unanswered.size === 0) this.#isDrained?.()
    }
    return super.send(message)
  }

  async #drained(): Promise<void> {
    if (this.#unanswered.size === 0) return
    const answered = new Promise<void>(resolve => {
      this.#isDrained = resolve
    })
    await Promise.race([answered, wait(DRAIN_MS, undefined, { ref: false })])
  }
  readonly #watching = new Map<unknown, Promise<() => void>>()

  override async start(): Promise<void> {
    const { onmessage, onclose } = this
    this.onmessage = message => {
      const listening = this.#overhear(message)
      if (!listening) return onmessage?.(message)
      // Acknowledged once it is listened to, or when the client has waited for long enough.
      const late = wait(READY_MS, undefined, { ref: false })
      void Promise.race([listening.catch(() => {}), late]).then(() => onmessage?.(message))
    }
    this.onclose = () => {
      for (const id of [...this.#watching.keys()]) this.#stop(id)
      onclose?.()
    }
    await super.start()
  }

  #overhear(message: JSONRPCMessage): Promise<unknown> | undefined {
    if ('method' in message && 'id' in message && message.method !== 'subscriptions/listen')
      this.#unanswered.add(message.id)
    if (!('method' in message) || !this.server) return undefined
    const { params } = message
    if (message.method === 'subscriptions/listen' && 'id' in message) {
      const meta = isJsonObject(params?._meta) ? params._meta : undefined
      const watching = this.server.watch(filterIn(params), meta)
      watching.catch(() => {}) // the subscription stands; there is nothing to announce yet
      this.#watching.set(message.id, watching)
      return watching
    }
    if (message.method === 'notifications/cancelled') this.#stop(params?.requestId)
    return undefined
  }

  #stop(id: unknown): void {
    void this.#watching
      .get(id)
      ?.then(stop => stop())
      .catch(() => {})
    this.#watching.delete(id)
  }
}

function filterIn(params: unknown): WatchFilter {
  const wanted = isJsonObject(params) && isJsonObject(params.notifications) ? params.notifications : {}
  const { resourceSubscriptions: uris } = wanted
  return {
    lists: (['tools', 'prompts', 'resources'] as const).filter(list => wanted[`${list}ListChanged`] === true),
    uris: Array.isArray(uris) ? uris.filter(uri => typeof uri === 'string') : [],
  }
}
