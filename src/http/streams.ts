/** Ends: when the stream is over, and when it has to be. */
export interface StreamEnds {
  /** Called once, however the stream came to its end; at once for a response without a body. */
  readonly onEnd: () => void
  /** Ends the stream from here. */
  readonly signal?: AbortSignal
}

/** The same response, whose end is noticed and may be brought about. */
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
    signal?.removeEventListener('abort', stop)
    onEnd()
  }
  let out: ReadableStreamDefaultController<Uint8Array> | undefined
  const stop = () => {
    void reader.cancel().catch(() => {})
    try {
      out?.close()
    } catch {
      // The client has hung up before.
    }
    end()
  }
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      out = controller
      if (signal?.aborted) stop()
      else signal?.addEventListener('abort', stop, { once: true })
    },
    async pull(controller) {
      try {
        const { value, done } = await reader.read()
        if (isOver) return
        if (!done) return controller.enqueue(value)
        end()
        controller.close()
      } catch (error) {
        end()
        controller.error(error)
      }
    },
    async cancel(reason) {
      end()
      await reader.cancel(reason)
    },
  })
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
