import { stateDirectory } from '../config/locate.js'
import { openCredentialStore } from '../credentials/store.js'
import { requireOAuth } from '../oauth/login.js'
import { logout as logOut } from '../oauth/logout.js'
import type { ConfigFlags } from './config-flags.js'
import { findServer, say } from './login.js'
import { oneLine, print } from './output.js'

/** `local`: the login is deleted here only, because it goes on elsewhere. */
export async function logout(
  name: string,
  { local = false, ...flags }: ConfigFlags & { readonly local?: boolean },
): Promise<number> {
  const config = requireOAuth(await findServer(name, flags))
  const store = openCredentialStore({ directory: stateDirectory(process.env), env: process.env, warn: say })
  const { wasLoggedIn, notRevoked } = await logOut(config, store, { keepAtServer: local })
  if (!wasLoggedIn) print(`not logged in to "${name}"`)
  else if (notRevoked === undefined) print(local ? `the login to "${name}" is deleted here` : `logged out of "${name}"`)
  else {
    print(`logged out of "${name}" here`)
    say(`warning: its tokens may still be good at the server: ${oneLine(notRevoked, 300)}`)
  }
  return 0
}
