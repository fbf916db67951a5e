import type { Backend } from '../backends/backend.js'
import type { GatewayConfig } from '../config/load.js'
import type { ServerConfig } from '../config/servers-file.js'
import { type AccessRules, compileRules } from '../rules/compile.js'

/** One loaded configuration with everything built from it. A call takes one snapshot and keeps it to its end. */
export interface Snapshot {
  readonly config: GatewayConfig
  readonly rules: AccessRules
  readonly backends: ReadonlyMap<string, Backend>
  readonly loadedAt: Date
}

export function buildSnapshot(config: GatewayConfig, createBackend: (server: ServerConfig) => Backend): Snapshot {
  return {
    config,
    rules: compileRules(config.rules, config.servers),
    backends: new Map(config.servers.map(server => [server.name, createBackend(server)])),
    loadedAt: new Date(),
  }
}
