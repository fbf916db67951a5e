import { spawn } from 'node:child_process'
import { mkdir, open } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { locateConfigFiles, stateDirectory } from '../config/locate.js'
import { findRunning, type RunningGateway } from '../config/running.js'
import { withLock } from '../credentials/lock.js'
import { GatewayError } from '../errors/gateway-error.js'
import { startConnector, waitForRunning } from '../start-connect.js'
import type { ConfigFlags } from './config-flags.js'
import { firstSignal } from './shutdown.js'

// A cold start on a busy machine; nothing else is waited for.
const SPAWN_MS = 30_000

export interface ConnectFlags extends ConfigFlags {
  readonly agent?: string
  readonly spawn?: boolean
}

/** Attaches a client that speaks stdio to a running gateway, so that all clients of a machine share one. */
export async function connect(
  url: string | undefined,
  { agent, spawn: maySpawn, ...files }: ConnectFlags,
): Promise<number> {
  const { env } = process
  const isMeant = meant(url, files)
  const target =
    (await waitForRunning(env, isMeant, 0)) ??
    (maySpawn && url === undefined ? await spawnGateway(isMeant, files) : undefined)
  if (!target) throw await notRunning(url)
  const connector = await startConnector({ env, target, agent: agent ?? env.GATEWAY_DEFAULT_AGENT ?? 'default' })
  await Promise.race([connector.run(), firstSignal()])
  await connector.close()
  return 0
}

/** The gateway at this URL; without one, that with the same files, or any where no files are found. */
function meant(url: string | undefined, { config, rules }: ConfigFlags): (gateway: RunningGateway) => boolean {
  if (url !== undefined) return gateway => [gateway.url, gateway.publicUrl].includes(url)
  try {
    const files = locateConfigFiles({ config, rules, env: process.env, cwd: process.cwd() })
    return gateway => gateway.servers === files.servers && gateway.rules === files.rules
  } catch (error) {
    if (config !== undefined || rules !== undefined) throw error
    return () => true
  }
}

/** Starts a gateway that outlives this process. Of many that want one at the same time, one starts it. */
async function spawnGateway(
  isMeant: (gateway: RunningGateway) => boolean,
  { config, rules }: ConfigFlags,
): Promise<RunningGateway | undefined> {
  const { env } = process
  const directory = stateDirectory(env)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  return withLock(join(directory, 'spawn'), async () => {
    const existing = await waitForRunning(env, isMeant, 0)
    if (existing) return existing
    const log = await open(join(directory, 'serve.log'), 'a', 0o600)
    const flags = [...(config ? ['--config', config] : []), ...(rules ? ['--rules', rules] : [])]
    const main = fileURLToPath(new URL('../main.js', import.meta.url))
    const child = spawn(process.execPath, [main, 'serve', '--port', '0', ...flags], {
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
      windowsHide: true,
    })
    const died = new Promise<undefined>(resolve => {
      child.once('exit', () => resolve(undefined))
      child.once('error', () => resolve(undefined))
    })
    child.unref()
    await log.close()
    return Promise.race([waitForRunning(env, isMeant, SPAWN_MS), died])
  })
}

async function notRunning(url: string | undefined): Promise<GatewayError> {
  const directory = stateDirectory(process.env)
  const others = (await findRunning(directory)).map(gateway => gateway.url)
  const which = url === undefined ? 'no gateway is running with this configuration' : `no gateway is running at ${url}`
  const hint =
    others.length > 0 ? `running: ${others.join(', ')}` : `see ${join(directory, 'serve.log')} if one was started`
  return new GatewayError('SERVER_UNAVAILABLE', `${which}: start "gateway serve", or add --spawn (${hint})`)
}
