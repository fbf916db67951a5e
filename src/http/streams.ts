/** Ends: when the stream is over, and when it has to be. */
export interface StreamEnds {
  /** Called once, however the stream came to its end; at once for a response without a body. */
  readonly onEnd: () => void
  /** Ends the stream from here. */
  readonly signal?: AbortSignal
}

// What a client has not read yet. One that does not read at all must not be the memory of everybody.
const MAX_UNREAD_BYTES = 4 * 1024 * 1024

/** The same response, whose end is noticed and may be brought about, and which ends when its client does not read it. */
export function withEnds(response: Response, { onEnd, signal }: StreamEnds): Response {
  if (response.body === null) {
    onEnd()
    return response
  }
  const reader = response.body.getReader()
  let isOver = false
  const end = () => {
    if (isOver) return
    isOver = true
    signal?.removeEventListener('abort', cut)
    onEnd()
  }
  let cut = () => {}
  /** Reads ahead of the client: what is produced is counted here, and waits nowhere else. */
  const pump = async (out: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    try {
      for (;;) {
        const { value, done } = await reader.read()
        if (isOver) return
        if (done) break
        out.enqueue(value)
        if ((out.desiredSize ?? 0) < 0)
          throw new Error(`the client has left more than ${MAX_UNREAD_BYTES} bytes unread`)
      }
      out.close()
    } catch (error) {
      if (!isOver) out.error(error)
      void reader.cancel(error).catch(() => {})
    } finally {
      end()
    }
  }
  const body = new ReadableStream<Uint8Array>(
    {
      start(out) {
        cut = () => {
          end()
          void reader.cancel().catch(() => {})
          try {
            out.close()
          } catch {
            // The client has hung up before.
          }
        }
        if (signal?.aborted) cut()
        else {
          signal?.addEventListener('abort', cut, { once: true })
          void pump(out)
        }
      },
      async cancel(reason) {
        end()
        await reader.cancel(reason)
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: MAX_UNREAD_BYTES }),
  )
  const { status, statusText, headers } = response
  return new Response(body, { status, statusText, headers })
}

/** Aborted when the token has expired: a stream is open only to those who still may have it. `release` forgets about it. */
export function untilExpiry(acceptedUntil: number): { readonly signal: AbortSignal; readonly release: () => void } {
  const expired = new AbortController()
  // Longer than a timer can run is longer than a stream lives.
  const delayMs = Math.min(Math.max(0, acceptedUntil * 1000 - Date.now()), 2 ** 31 - 1)
  const timer = setTimeout(() => expired.abort(), delayMs).unref()
  return { signal: expired.signal, release: () => clearTimeout(timer) }
}
