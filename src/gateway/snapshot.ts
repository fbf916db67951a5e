import { isDeepStrictEqual } from 'node:util'
import type { Backend } from '../backends/backend.js'
import type { GatewayConfig } from '../config/load.js'
import type { ServerConfig } from '../config/servers-file.js'
import { type AccessRules, compileRules } from '../rules/compile.js'
import { compileLimits, type Limits } from './limits.js'

/** One loaded configuration with everything built from it. A call takes one snapshot and keeps it to its end. */
export interface Snapshot {
  readonly config: GatewayConfig
  readonly rules: AccessRules
  readonly backends: ReadonlyMap<string, Backend>
  /** Absent where none are configured. */
  readonly limits?: Limits | undefined
  readonly loadedAt: Date
}

/** Backends whose configuration is the same as before are the same as before, with their processes and connections. */
export function buildSnapshot(
  config: GatewayConfig,
  createBackend: (server: ServerConfig) => Backend,
  before?: Snapshot,
): Snapshot {
  const backendFor = (server: ServerConfig): Backend => {
    const existing = before?.backends.get(server.name)
    return existing && isDeepStrictEqual(existing.config, server) ? existing : createBackend(server)
  }
  return {
    config,
    rules: compileRules(config.rules, config.servers),
    backends: new Map(config.servers.map(server => [server.name, backendFor(server)])),
    limits: config.rules.limits && compileLimits(config.rules.limits, before?.limits?.store),
    loadedAt: new Date(),
  }
}
