import type { BackendStatus } from '../backends/backend.js'
import { type Gateway, startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { oneLine, print, printJson, printTable, progress, toMinute } from './output.js'
import { usingGateway } from './shutdown.js'

// Slow launchers are reported as what they are: still starting.
const PATIENCE_MS = 15_000

export async function status({ json, ...flags }: ConfigFlags & { readonly json?: boolean }): Promise<number> {
  return usingGateway(await startGateway({ ...flags, logLevel: 'error' }), async gateway => {
    const servers = await connectAll(gateway)
    const config = { last_reload: gateway.runtime.current.loadedAt.toISOString() }
    if (json) printJson({ servers, config })
    else if (servers.length === 0) print('no servers are configured')
    else printTable(['SERVER', 'STATE', 'TRANSPORT', 'ERA', 'TOOLS', 'AUTH', 'LAST ERROR'], servers.map(toRow))
    return 0
  })
}

async function connectAll({ runtime, localCaller }: Gateway): Promise<BackendStatus[]> {
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
  return backends.map(backend => backend.status())
}

const authText = ({ kind, expires_at }: BackendStatus['auth']): string =>
  kind === 'logged in' && expires_at !== undefined ? `logged in until ${toMinute(expires_at)}` : kind

const toRow = ({ name, state, transport, era, tools, auth, last_error }: BackendStatus): string[] => [
  name,
  state,
  transport,
  era ?? '-',
  tools === undefined ? '-' : String(tools),
  authText(auth),
  oneLine(last_error ?? '', 160),
]
