import { loadServers } from '../config/load.js'
import { locateServersFile, stateDirectory } from '../config/locate.js'
import type { ServerConfig } from '../config/servers-file.js'
import { openCredentialStore } from '../credentials/store.js'
import { GatewayError } from '../errors/gateway-error.js'
import { logout as logOut } from '../oauth/logout.js'
import type { ConfigFlags } from './config-flags.js'
import { say } from './login.js'
import { oneLine, print } from './output.js'

/** `local`: the login is deleted here only, because it goes on elsewhere. */
export async function logout(
  name: string,
  { local = false, ...flags }: ConfigFlags & { readonly local?: boolean },
): Promise<number> {
  const store = openCredentialStore({ directory: stateDirectory(process.env), env: process.env, warn: say })
  const config = await configOf(name, flags)
  const { wasLoggedIn, notRevoked } = await logOut(name, { store, config, keepAtServer: local })
  if (!wasLoggedIn) {
    if (!config) throw new GatewayError('CONFIG_INVALID', `there is no server "${name}", and no login to it`)
    print(`not logged in to "${name}"`)
  } else if (notRevoked === undefined) {
    print(local ? `the login to "${name}" is deleted here` : `logged out of "${name}"`)
  } else {
    print(`logged out of "${name}" here`)
    say(`warning: its tokens may still be good at the server: ${oneLine(notRevoked, 300)}`)
  }
  return 0
}

/** The server's entry; a login may have outlived it, or the whole file. */
async function configOf(name: string, flags: ConfigFlags): Promise<ServerConfig | undefined> {
  const load = async () =>
    loadServers(locateServersFile({ ...flags, env: process.env, cwd: process.cwd() }), process.env)
  const servers = await load().catch(() => [])
  return servers.find(server => server.name === name)
}
