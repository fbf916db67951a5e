import { startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { firstSignal } from './shutdown.js'

export interface StdioFlags extends ConfigFlags {
  readonly agent?: string
  readonly server?: string
  readonly debug?: boolean
}

export async function stdio({ agent, server, ...flags }: StdioFlags): Promise<number> {
  const gateway = await startGateway({ ...flags, logLevel: 'warn', mayOpenBrowser: true })
  await Promise.race([gateway.serveStdio({ agent, server }), firstSignal()])
  await gateway.close()
  return 0
}
