import { styleText } from 'node:util'
import type { BackendState, BackendStatus } from '../backends/backend.js'
import { locateConfigFiles, stateDirectory } from '../config/locate.js'
import { findRunning, type RunningGateway } from '../config/running.js'
import { openCredentialStore } from '../credentials/store.js'
import { messageOf } from '../errors/gateway-error.js'
import { describeGateway, type GatewayStatus } from '../gateway/get-gateway-status.js'
import { openEmbeddedIssuer, statusAudience } from '../identity/embedded-issuer.js'
import { type Gateway, startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { oneLine, print, printJson, printTable, progress, toMinute } from './output.js'
import { usingGateway } from './shutdown.js'

// Slow launchers are reported as what they are: still starting.
const PATIENCE_MS = 15_000
const ASK_MS = 5_000

export async function status({ json, ...flags }: ConfigFlags & { readonly json?: boolean }): Promise<number> {
  const found = (await statusOfRunning(flags)) ?? (await statusOfOwn(flags))
  if (json) printJson(found)
  else show(found)
  return 0
}

/** What a gateway that runs with the same files says of itself; undefined when there is none, or none that answers. */
async function statusOfRunning(flags: ConfigFlags): Promise<GatewayStatus | undefined> {
  const { env } = process
  const files = locateConfigFiles({ ...flags, env, cwd: process.cwd() })
  const running = (await findRunning(stateDirectory(env))).filter(
    ({ servers, rules }) => servers === files.servers && rules === files.rules,
  )
  for (const gateway of running) {
    try {
      return await ask(gateway)
    } catch (error) {
      progress(`the gateway at ${gateway.url} does not say how it is: ${messageOf(error)}`)
    }
  }
  return undefined
}

async function ask({ url, audience }: RunningGateway): Promise<GatewayStatus> {
  const { env } = process
  const warn = (message: string) => progress(message)
  const issuer = await openEmbeddedIssuer(openCredentialStore({ directory: stateDirectory(env), env, warn }))
  const token = await issuer.issue({ agent: 'status', audience: statusAudience(audience), ttlSeconds: 60 })
  const response = await fetch(new URL('/status', url), {
    headers: { authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(ASK_MS),
  })
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  return (await response.json()) as GatewayStatus // of this user's own gateway
}

/** Without a running one the servers are connected to once, and left again. */
async function statusOfOwn(flags: ConfigFlags): Promise<GatewayStatus> {
  return usingGateway(await startGateway({ ...flags, logLevel: 'error' }), async gateway => {
    await connectAll(gateway)
    return describeGateway(gateway.runtime)
  })
}

async function connectAll({ runtime, localCaller }: Gateway): Promise<void> {
  const backends = [...runtime.current.backends.values()]
  progress(`connecting to ${backends.length} servers`)
  const owner = { agent: '', principal: localCaller().id }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>(resolve => {
    timer = setTimeout(resolve, PATIENCE_MS)
  })
  // The failure is part of the status.
  await Promise.race([
    late,
    Promise.all(
      backends.map(backend =>
        Promise.resolve()
          .then(() => backend.tools(owner))
          .catch(() => {}),
      ),
    ),
  ])
  clearTimeout(timer)
}

function show({ servers, config }: GatewayStatus): void {
  if (servers.length === 0) print('no servers are configured')
  else printTable(['SERVER', 'STATE', 'TRANSPORT', 'ERA', 'TOOLS', 'AUTH', 'LAST ERROR'], servers.map(toRow), colourOf)
  for (const { name, held_back: heldBack = [] } of servers) {
    for (const { tool, reason } of heldBack.slice(0, MAX_HELD_BACK))
      print(
        `${name}: ${tool === undefined ? 'a tool' : `the tool "${oneLine(tool)}"`} is held back: ${oneLine(reason, 200)}`,
      )
    const more = heldBack.length - MAX_HELD_BACK
    if (more > 0) print(`${name}: ${more} more tools are held back (--json names them)`)
  }
  if (config.last_error !== undefined) print(`the configuration was changed and cannot be used: ${config.last_error}`)
}

const MAX_HELD_BACK = 10

const COLOURS: Partial<Record<BackendState, 'green' | 'yellow' | 'red' | 'gray'>> = {
  ready: 'green',
  starting: 'yellow',
  'login needed': 'yellow',
  cooling: 'red',
  misconfigured: 'red',
  disabled: 'gray',
}

/** States have colours where somebody looks at them. */
function colourOf(text: string, column: number): string {
  const colour = column === 1 ? COLOURS[text.trim() as BackendState] : undefined
  return colour && process.stdout.isTTY && !process.env.NO_COLOR ? styleText(colour, text) : text
}

const authText = ({ kind, expires_at }: BackendStatus['auth']): string =>
  kind === 'logged in' && expires_at !== undefined ? `logged in until ${toMinute(expires_at)}` : kind

const toRow = ({ name, state, transport, era, tools, held_back, auth, last_error }: BackendStatus): string[] => [
  name,
  state,
  transport,
  era ?? '-',
  tools === undefined ? '-' : `${tools}${held_back ? ` (+${held_back.length} held back)` : ''}`,
  authText(auth),
  oneLine(last_error ?? '', 160),
]
