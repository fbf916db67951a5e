import type { LoginPrompt, UserAgent } from '../../src/oauth/user-agent.js'

export interface Page {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** Somebody who logs in, and what they saw. */
export interface Person extends UserAgent {
  readonly shown: readonly LoginPrompt[]
  /** The URLs a browser was opened with. */
  readonly opened: readonly string[]
  /** Where the browser ended. */
  readonly pages: readonly Page[]
  /** Why pasted lines were not taken. */
  readonly refusals: readonly string[]
}

export interface Habits {
  /** What their browser does with the URL; default: it follows every redirect. */
  readonly visit?: (url: string) => Promise<Page | undefined>
  /** What they do once they are shown where to go; not for people with a browser. */
  readonly pastes?: (prompt: LoginPrompt) => AsyncIterable<string>
  /** False: there is no browser to open. */
  readonly hasBrowser?: boolean
}

/** Somebody with a browser, or with a terminal to paste into, or with neither. */
export function somebody({ visit = browse, pastes, hasBrowser = pastes === undefined }: Habits = {}): Person {
  const shown: LoginPrompt[] = []
  const opened: string[] = []
  const pages: Page[] = []
  const refusals: string[] = []
  const open = async (url: string) => {
    opened.push(url)
    void visit(url).then(
      page => page && pages.push(page),
      () => {},
    )
    return true
  }
  async function* pasted() {
    const [prompt] = shown
    if (prompt && pastes) yield* pastes(prompt)
  }
  return {
    shown,
    opened,
    pages,
    refusals,
    show: prompt => void shown.push(prompt),
    ...(hasBrowser && { open }),
    ...(pastes && { pasted: { [Symbol.asyncIterator]: pasted } }),
    refused: reason => void refusals.push(reason),
  }
}

/** A browser: follows every redirect, also the one back to the gateway. */
export async function browse(url: string): Promise<Page> {
  const response = await fetch(url)
  return { status: response.status, headers: response.headers, text: await response.text() }
}

/** The browser of another machine: the redirect URL it ends at, which does not load there. */
export async function redirectOf(url: string): Promise<string> {
  const response = await fetch(url, { redirect: 'manual' })
  await response.body?.cancel()
  const location = response.headers.get('location')
  if (location === null) throw new Error(`no redirect, but HTTP ${response.status}`)
  return location
}

/** Somebody who pastes these lines, each made from the redirect URL their browser ended at. */
export const whoPastes = (...lines: readonly ((redirect: string) => string)[]): Person =>
  somebody({
    async *pastes({ url }) {
      const redirect = await redirectOf(url)
      for (const line of lines) yield line(redirect)
    },
  })
