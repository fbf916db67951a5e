import type { Tool } from '@modelcontextprotocol/client'
import type { JsonObject } from '../json.js'
import { type ArgumentCheck, compileArgumentCheck } from './argument-check.js'
import { findParameterHeaders, type ParameterHeader } from './parameter-headers.js'
import { problemWithSchema } from './schema-check.js'

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
  /** How long the backend said it may be kept (2026-07-28, "Caching"). */
  readonly ttlMs?: number
  /** What else the backend says beside its list. */
  readonly beside?: JsonObject
  readonly rejected: readonly HeldBackTool[]
}

/** A definition that was left out; the other tools of its server work. */
export interface HeldBackTool {
  /** Undefined when it has no name to speak of. */
  readonly tool: string | undefined
  /** One short line. */
  readonly reason: string
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
  const rejected: HeldBackTool[] = []
  for (const definition of definitions) {
    if (!hasName(definition)) {
      rejected.push(toHeldBackTool(undefined, 'it has no name, or one that is too long'))
      continue
    }
    const problem = byName.has(definition.name) ? 'another tool has this name' : problemWithSchemas(definition)
    const tool = problem ?? toTool(definition as Tool, mirrorsParameters)
    if (typeof tool === 'string') rejected.push(toHeldBackTool(definition.name, tool))
    else byName.set(definition.name, tool)
  }
  return { tools: [...byName.values()], byName, expiresAt, rejected }
}

interface NamedDefinition {
  readonly name: string
  readonly inputSchema?: unknown
  readonly outputSchema?: unknown
}

function hasName(value: unknown): value is NamedDefinition {
  if (typeof value !== 'object' || value === null || !('name' in value)) return false
  const { name } = value
  return typeof name === 'string' && name !== '' && name.length <= MAX_NAME_LENGTH
}

/** An output schema counts too: a client that compiles it would lose the whole list. */
function problemWithSchemas({ inputSchema, outputSchema }: NamedDefinition): string | undefined {
  const problem = problemWithSchema(inputSchema, 'input')
  if (problem !== undefined) return `input schema: ${problem}`
  const outputProblem = outputSchema === undefined ? undefined : problemWithSchema(outputSchema, 'output')
  return outputProblem && `output schema: ${outputProblem}`
}

const MAX_REASON_LENGTH = 200

/** Names and reasons quote what a server wrote, and are shown to people and models. */
function toHeldBackTool(name: string | undefined, reason: string): HeldBackTool {
  return { tool: name && toPlainText(name), reason: toPlainText(reason.slice(0, MAX_REASON_LENGTH)) }
}

const toPlainText = (text: string) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu, '')

/** In words when its headers are wrong. */
function toTool(definition: Tool, mirrorsParameters: boolean): BackendTool | string {
  const headers = mirrorsParameters ? findParameterHeaders(definition.inputSchema) : []
  return typeof headers === 'string' ? headers : toBackendTool(definition, headers)
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
