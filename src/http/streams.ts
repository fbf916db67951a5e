import { InvalidTokenError } from '../identity/token-errors.js'
import type { VerifiedToken } from '../identity/token-verifier.js'

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

/** How long who must not come in any more may go on listening. */
const RECHECK_MS = 60_000

/** The token that opened a stream, and how to look at it again. Rejects with InvalidTokenError when it is no longer good. */
export interface Admitted {
  readonly token: VerifiedToken
  readonly recheck: () => Promise<VerifiedToken>
}

/**
 * Aborted when the token has expired, or is no longer good for another reason (a key was revoked, an issuer taken out of the rules): a
 * stream is open only to those who would still get in. `release` forgets about it.
 */
export function whileGood(
  { token, recheck }: Admitted,
  recheckMs = RECHECK_MS,
): { readonly signal: AbortSignal; readonly release: () => void } {
  const over = new AbortController()
  let { acceptedUntil } = token
  let timer: NodeJS.Timeout | undefined
  const wait = () => {
    const remainingMs = Math.max(0, acceptedUntil * 1000 - Date.now())
    timer = setTimeout(() => void look(), Math.min(remainingMs, recheckMs)).unref()
  }
  const look = async () => {
    try {
      ;({ acceptedUntil } = await recheck())
    } catch (error) {
      if (error instanceof InvalidTokenError) return over.abort() // else it cannot be known now
    }
    if (acceptedUntil * 1000 <= Date.now()) over.abort()
    else if (!isReleased) wait()
  }
  let isReleased = false
  wait()
  const release = () => {
    isReleased = true
    clearTimeout(timer)
  }
  return { signal: over.signal, release }
}
