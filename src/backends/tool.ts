import type { Tool } from '@modelcontextprotocol/client'
import { type ArgumentCheck, compileArgumentCheck } from './argument-check.js'
import { findParameterHeaders, type ParameterHeader } from './parameter-headers.js'

/** A tool as its backend describes it, with what the gateway works out once per list. */
export interface BackendTool {
  /** Unchanged, unknown fields included. */
  readonly definition: Tool
  /** True when calling it twice does what calling it once does (its annotations say so). */
  readonly isRepeatable: boolean
  /** Parameters that have to travel as headers too; none where headers are not used. */
  readonly parameterHeaders: readonly ParameterHeader[]
  /** Checks arguments against the input schema; compiled on first use. */
  readonly checkArguments: ArgumentCheck
}

/** All tools of one backend at one moment. */
export interface ToolList {
  readonly tools: readonly BackendTool[]
  readonly byName: ReadonlyMap<string, BackendTool>
  /** When it has to be read again (milliseconds since the epoch). */
  readonly expiresAt: number
  /** Definitions that were left out, each with the reason. */
  readonly rejected: readonly string[]
}

// Longer names are no identifiers; they could only slow down matching and logs.
const MAX_NAME_LENGTH = 256

export interface ToolListOptions {
  readonly expiresAt: number
  /** True when the connection mirrors parameters into headers; then a tool that annotates them wrongly must not be used. */
  readonly mirrorsParameters: boolean
}

export function toToolList(
  definitions: readonly unknown[],
  { expiresAt, mirrorsParameters }: ToolListOptions,
): ToolList {
  const byName = new Map<string, BackendTool>()
  const rejected: string[] = []
  for (const definition of definitions) {
    if (!isToolDefinition(definition)) {
      rejected.push('a tool without a name or an input schema')
      continue
    }
    const headers = mirrorsParameters ? findParameterHeaders(definition.inputSchema) : []
    if (typeof headers === 'string') rejected.push(`the tool "${definition.name}": ${headers}`)
    else if (byName.has(definition.name)) rejected.push(`a second tool named "${definition.name}"`)
    else byName.set(definition.name, toBackendTool(definition, headers))
  }
  return { tools: [...byName.values()], byName, expiresAt, rejected }
}

function toBackendTool(definition: Tool, parameterHeaders: readonly ParameterHeader[]): BackendTool {
  let check: ArgumentCheck | undefined
  const { readOnlyHint, idempotentHint } = definition.annotations ?? {}
  return {
    definition,
    parameterHeaders,
    isRepeatable: readOnlyHint === true || idempotentHint === true,
    checkArguments(args) {
      check ??= compileArgumentCheck(definition.inputSchema)
      return check(args)
    },
  }
}

function isToolDefinition(value: unknown): value is Tool {
  if (typeof value !== 'object' || value === null || !('name' in value) || !('inputSchema' in value)) return false
  const { name, inputSchema } = value
  return (
    typeof name === 'string' &&
    name !== '' &&
    name.length <= MAX_NAME_LENGTH &&
    typeof inputSchema === 'object' &&
    inputSchema !== null
  )
}
