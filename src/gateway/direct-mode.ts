import type { Tool } from '@modelcontextprotocol/server'
import type { Backend } from '../backends/backend.js'
import type { ToolList } from '../backends/tool.js'
import { resolveAgent } from '../identity/resolve-agent.js'
import { exposureOf } from '../rules/compile.js'
import { permittedBackends } from './direct-lists.js'
import { splitDirectName, toDirectName } from './direct-names.js'
import { Patience } from './patience.js'
import type { Snapshot } from './snapshot.js'
import type { Caller, GatewayCall } from './tool.js'

/** A tool of a backend, as a direct name stands for it. */
export interface DirectTool {
  readonly server: string
  readonly tool: string
}

/** True when the rules give the caller's agent the backends' own tools instead of the small ones. */
export function isExposedDirectly({ rules }: Snapshot, { principal }: Pick<Caller, 'principal'>): boolean {
  try {
    return exposureOf(rules, resolveAgent(rules, principal, undefined), principal) === 'direct'
  } catch {
    return false // which agent it is has to be said with each call, and so it sees what everybody sees
  }
}

/**
 * Every tool the agent may call, under its direct name, in the order of these names. A backend that cannot be had does not hold up
 * the others: its tools are those known from before, or missing.
 */
export async function listDirectTools(call: GatewayCall, agent: string): Promise<Tool[]> {
  const patience = new Patience(call)
  const lists = await Promise.all(
    permittedBackends(call, agent).map(async backend => ({
      server: backend.name,
      list: await listOf(call, backend, patience),
    })),
  )
  return lists
    .flatMap(({ server, list }) =>
      (list?.tools ?? [])
        .filter(({ definition }) => call.permits(agent, server, definition))
        .map(({ definition }) => ({ ...definition, name: toDirectName(server, definition.name) })),
    )
    .sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** The tool that a direct name stands for, permitted or not; undefined when it can stand for none. */
export async function findDirectTool(call: GatewayCall, agent: string, name: string): Promise<DirectTool | undefined> {
  const plain = splitDirectName(name)
  // Whether there is such a server is not looked at: it would tell, by the time it takes, which servers there are.
  if (plain && toDirectName(plain.server, plain.tool) === name) return plain
  const patience = new Patience(call)
  for (const backend of permittedBackends(call, agent)) {
    const server = backend.name
    const list = (await listOf(call, backend, patience))?.tools ?? []
    const found = list.find(({ definition }) => toDirectName(server, definition.name) === name)
    if (found) return { server, tool: found.definition.name }
  }
  return undefined
}

async function listOf(call: GatewayCall, backend: Backend, patience: Patience): Promise<ToolList | undefined> {
  const fresh = backend.freshTools(call.owner)
  if (fresh) {
    patience.answered()
    return fresh
  }
  try {
    return await patience.ask(backend, clock => backend.tools(call.owner, clock))
  } catch {
    return backend.toolsKnownTo(call.owner) // what is wrong with it is in `gateway status`, and in the answer to a call
  }
}
