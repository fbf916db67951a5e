import type { Backend } from '../../backends/backend.js'
import type { HeldBackTool } from '../../backends/tool.js'
import { GatewayError, messageOf } from '../../errors/gateway-error.js'
import { oneLine } from '../output.js'
import type { Section } from './section.js'

const OWNER = { agent: '', principal: 'doctor' }
const LAST_LINES = 5

export const CONNECTION_CHECKS = ['initialize', 'tools'] as const

/** What to do when the server cannot be connected, if its kind of server has anything better than the general advice. */
export type Advise = (error: GatewayError | undefined, ms: number) => string

/** Connects with the code that calls tools, and reads the tool list. True when both worked. */
export async function examineConnection(section: Section, backend: Backend, advise: Advise): Promise<boolean> {
  const since = performance.now()
  try {
    await backend.connect(OWNER)
    section.ok('initialize', `in ${elapsed(since)} ms, ${await describe(backend)}`)
  } catch (error) {
    const known = error instanceof GatewayError ? error : undefined
    section.failed('initialize', whatWentWrong(error), advise(known, elapsed(since)))
    section.skipped('tools', 'after "initialize" failed')
    return false
  }
  return examineTools(section, backend)
}

async function examineTools(section: Section, backend: Backend): Promise<boolean> {
  try {
    const { tools, rejected } = await backend.tools(OWNER)
    const count = `${tools.length} tool${tools.length === 1 ? '' : 's'}`
    if (rejected.length === 0) section.ok('tools', count)
    else {
      section.warning(
        'tools',
        `${count}; held back: ${rejected.map(reasonOf).join('; ')}`,
        'the definitions of these tools are wrong: update the server, or tell whoever makes it',
      )
    }
    return true
  } catch (error) {
    section.failed('tools', whatWentWrong(error), 'the server greets and then does not list its tools: update it')
    return false
  }
}

const reasonOf = ({ tool, reason }: HeldBackTool): string => `${tool ?? 'one without a name'} (${reason})`

async function describe(backend: Backend): Promise<string> {
  const clock = backend.startClock({})
  try {
    const { era, serverInfo } = await backend.describe(OWNER, clock)
    const name = serverInfo === undefined ? '' : `, ${oneLine(`${serverInfo.name} ${serverInfo.version}`)}`
    return `${era} era${name}`
  } finally {
    clock.stop()
  }
}

/** With the last words of a process. They come without secrets: the backend has taken them out. */
function whatWentWrong(error: unknown): string {
  const lines = error instanceof GatewayError && Array.isArray(error.details.stderr) ? error.details.stderr : []
  const words = lines.slice(-LAST_LINES).map(line => oneLine(String(line), 200))
  return `${oneLine(messageOf(error), 500)}${words.length > 0 ? `; its last words: ${words.join(' | ')}` : ''}`
}

const elapsed = (since: number): number => Math.round(performance.now() - since)
