import { existsSync } from 'node:fs'
import type { Env } from '../config/variables.js'

/** Why no browser can be opened for whoever sits here; undefined when one can. */
export function whyHeadless(env: Env, platform: NodeJS.Platform = process.platform): string | undefined {
  if (env.BROWSER === 'none') return 'BROWSER is "none"'
  if (env.BROWSER) return undefined // remote editors set it to a helper that opens a browser where the person is
  if (env.CI) return 'this is a CI job'
  if (env.SSH_CONNECTION || env.SSH_CLIENT || env.SSH_TTY) return 'this is an SSH session'
  if (existsSync('/.dockerenv') || existsSync('/run/.containerenv') || env.KUBERNETES_SERVICE_HOST)
    return 'this is a container (set BROWSER to open one all the same)'
  if (platform === 'linux' && !env.DISPLAY && !env.WAYLAND_DISPLAY && !env.WSL_DISTRO_NAME) return 'there is no display'
  return undefined
}
