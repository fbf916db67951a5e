import type { EventId, EventStore, JSONRPCMessage, StreamId } from '@modelcontextprotocol/server'

const MAX_EVENTS = 256
// Characters of all messages together.
const MAX_SIZE = 1024 * 1024

interface StoredEvent {
  readonly id: EventId
  readonly stream: StreamId
  readonly message: JSONRPCMessage
  readonly size: number
}

/** The last messages of one session, for a client whose stream broke off (2025-11-25, "Resumability and Redelivery"). */
export class SessionEvents implements EventStore {
  #events: StoredEvent[] = []
  #size = 0
  #lastId = 0

  async storeEvent(stream: StreamId, message: JSONRPCMessage): Promise<EventId> {
    const id = String(++this.#lastId)
    const size = JSON.stringify(message).length
    this.#events.push({ id, stream, message, size })
    this.#size += size
    while (this.#events.length > MAX_EVENTS || (this.#size > MAX_SIZE && this.#events.length > 1)) {
      this.#size -= this.#events.shift()?.size ?? 0
    }
    return id
  }

  async getStreamIdForEventId(id: EventId): Promise<StreamId | undefined> {
    return this.#events.find(event => event.id === id)?.stream
  }

  /** What came after it on the same stream, and on no other. */
  async replayEventsAfter(
    lastId: EventId,
    { send }: { send: (id: EventId, message: JSONRPCMessage) => Promise<void> },
  ): Promise<StreamId> {
    const stream = await this.getStreamIdForEventId(lastId)
    if (stream === undefined) throw new Error('no such event')
    const missed = this.#events.filter(event => event.stream === stream && Number(event.id) > Number(lastId))
    for (const { id, message } of missed) if ('jsonrpc' in message) await send(id, message)
    return stream
  }
}
