import { checkAuthorizationEndpoint } from './authorization-endpoint.js'

// A launcher that found no browser says so soon.
const LAUNCH_MS = 1_500

/** Opens the URL in the person's browser; resolves false when that is known to have failed. Never through a shell. */
export async function openBrowser(url: string): Promise<boolean> {
  const { href } = checkAuthorizationEndpoint(url)
  const { default: open } = await import('open')
  try {
    const launcher = await open(href)
    return await new Promise(resolve => {
      const timer = setTimeout(() => resolve(true), LAUNCH_MS)
      const settle = (opened: boolean) => {
        clearTimeout(timer)
        resolve(opened)
      }
      launcher.once('error', () => settle(false))
      launcher.once('exit', code => settle(code === 0))
    })
  } catch {
    return false
  }
}
