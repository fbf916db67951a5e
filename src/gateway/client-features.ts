import { isJsonObject, type JsonObject } from '../json.js'

/** What a client may declare that lets a server ask it something. */
const FEATURES = ['elicitation', 'sampling', 'roots'] as const

// A task outlives the request it began with, which nothing here keeps track of.
const NOT_RELAYED = 'tasks'
// What a client says about itself is kept as long as its session, and sent to every backend.
const MAX_LENGTH = 16 * 1024
const TASKS_EXTENSION = 'io.modelcontextprotocol/tasks'

/** Client capabilities as a backend may hear of them: all of them, but for what the gateway cannot relay. */
export function relayedCapabilities(declared: unknown): JsonObject {
  if (!isJsonObject(declared)) return {}
  if (JSON.stringify(declared).length > MAX_LENGTH) return featuresIn(declared) ?? {}
  const { [NOT_RELAYED]: _tasks, extensions, ...rest } = declared
  if (!isJsonObject(extensions)) return rest
  const { [TASKS_EXTENSION]: _extension, ...others } = extensions
  return Object.keys(others).length > 0 ? { ...rest, extensions: others } : rest
}

/** What of the capabilities decides whether a client can share a session of the 2025 era with others; undefined: it can. */
export function featuresIn(capabilities: JsonObject): JsonObject | undefined {
  const declared = FEATURES.flatMap(feature => {
    const said = capabilities[feature]
    if (!isJsonObject(said)) return []
    // What else a client may write there decides nothing, and must not make another session.
    return [[feature, Object.fromEntries(PARTS[feature].flatMap(part => (part in said ? [[part, said[part]]] : [])))]]
  })
  return declared.length > 0 ? small(Object.fromEntries(declared)) : undefined
}

/** What counts of each feature. */
const PARTS = {
  elicitation: ['form', 'url'],
  sampling: ['tools', 'context'],
  roots: ['listChanged'],
} as const satisfies Record<(typeof FEATURES)[number], readonly string[]>

/** Parts are empty objects or booleans; a client that makes more of them gets what is meant. */
const small = (features: JsonObject): JsonObject =>
  Object.fromEntries(
    Object.entries(features).map(([feature, parts]) => [
      feature,
      Object.fromEntries(
        Object.entries(parts as JsonObject).map(([part, said]) => [part, said === true ? true : plain(said)]),
      ),
    ]),
  )

// `applyDefaults` is how the SDK's clients say that they fill in what a person leaves out.
const plain = (said: unknown): unknown => {
  if (!isJsonObject(said)) return {}
  return said.applyDefaults === true ? { applyDefaults: true } : {}
}

/**
 * The capabilities a client would have to declare before it may be asked this (2026-07-28, "Multi Round-Trip Requests"); undefined
 * when it has declared them, `unknown` when there is no such request.
 */
export function missingFor(
  method: string,
  params: JsonObject,
  { elicitation, sampling, roots }: JsonObject,
): JsonObject | 'unknown' | undefined {
  switch (method) {
    case 'elicitation/create': {
      const mode = params.mode === 'url' ? 'url' : 'form'
      return declaresMode(elicitation, mode) ? undefined : { elicitation: { [mode]: {} } }
    }
    case 'sampling/createMessage': {
      const wantsTools = params.tools !== undefined || params.toolChoice !== undefined
      const wantsContext = params.includeContext !== undefined && params.includeContext !== 'none'
      const needed = {
        ...(wantsTools && { tools: {} }),
        ...(wantsContext && { context: {} }),
      }
      const declared = isJsonObject(sampling) ? sampling : undefined
      return declared && Object.keys(needed).every(key => key in declared) ? undefined : { sampling: needed }
    }
    case 'roots/list':
      return isJsonObject(roots) ? undefined : { roots: {} }
    default:
      return 'unknown'
  }
}

/** A client that names no mode has the one there was at first. */
function declaresMode(elicitation: unknown, mode: 'form' | 'url'): boolean {
  if (!isJsonObject(elicitation)) return false
  return mode in elicitation || (mode === 'form' && !('url' in elicitation))
}
