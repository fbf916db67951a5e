import { type Stats, unwatchFile, watchFile } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { messageOf } from '../errors/gateway-error.js'
import { type GatewayConfig, loadConfig } from './load.js'
import type { Env } from './variables.js'

// Editors write in several steps, and people save twice.
const SETTLE_MS = 200
const INTERVAL_MS = 400

export interface WatchConfigOptions {
  readonly env: Env
  /** A configuration that differs from the one before. */
  readonly onConfig: (config: GatewayConfig) => void
  /** The files cannot be used as they are now. */
  readonly onError: (reason: string) => void
}

/**
 * Loads both files again whenever one of them has changed. It looks instead of asking the system for events, which are lost when a
 * file is replaced, on network disks and in containers. Never keeps the process alive.
 */
export function watchConfig(current: GatewayConfig, { env, onConfig, onError }: WatchConfigOptions): { close(): void } {
  const { files } = current
  let { fingerprint } = current
  let hasFailed = false
  let changes = 0
  let isClosed = false
  let isLoading = false

  /** Until nothing has changed for a while; what comes in between is loaded in one go. */
  async function load(): Promise<void> {
    for (let seen = -1; seen !== changes && !isClosed; ) {
      seen = changes
      await wait(SETTLE_MS, undefined, { ref: false })
      if (seen !== changes) continue
      try {
        const config = await loadConfig(files, env)
        if (isClosed || (config.fingerprint === fingerprint && !hasFailed)) continue
        fingerprint = config.fingerprint
        hasFailed = false
        onConfig(config)
      } catch (error) {
        hasFailed = true
        if (!isClosed) onError(messageOf(error))
      }
    }
  }

  const noteChange = (): void => {
    changes++
    if (isLoading) return
    isLoading = true
    void load().finally(() => {
      isLoading = false
    })
  }
  const look = (now: Stats, before: Stats) => {
    // Reading a file changes when it was read, and nothing else.
    if (now.mtimeMs !== before.mtimeMs || now.size !== before.size || now.ino !== before.ino) noteChange()
  }
  noteChange() // what was saved while the files were being read
  for (const file of [files.servers, files.rules]) {
    watchFile(file, { interval: INTERVAL_MS, persistent: false }, look)
  }
  return {
    close() {
      isClosed = true
      for (const file of [files.servers, files.rules]) unwatchFile(file, look)
    },
  }
}
