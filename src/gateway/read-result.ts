import type { CallToolResult } from '@modelcontextprotocol/server'
import { z } from 'zod'
import { GatewayError } from '../errors/gateway-error.js'
import { resultBudgetOf } from '../rules/compile.js'
import type { KeptResult, KeptResults } from './kept-results.js'
import { type Keep, reachOf, splitsPair } from './result-budget.js'
import { agentId, describeTool, type GatewayCall, type GatewayTool, parseArguments } from './tool.js'

const PAGE_TOKENS = 10_000
// What a page says beside its text.
const FRAME_TOKENS = 120

const position = z.number().int().nonnegative().optional()

const Arguments = z.strictObject({
  handle: z.string().min(1).max(256).describe('From the result that was cut'),
  offset: position.describe('Character to read on from, as the cut result or the page before says'),
  limit: z.number().int().positive().optional().describe('Characters at most'),
  item: position.describe('Instead of text: the number of an image or other item to read whole'),
  agent_id: agentId,
})

/** Keeps what the call got for its principal and agent, and for nobody else. `requested` is the call's own `agent_id`. */
export function keepFor(kept: KeptResults, call: GatewayCall, requested: string | undefined): Keep {
  const { agent = '', server = '', tool = '', caller } = call
  return result => {
    const handle = kept.keep({ ...result, principal: caller.principal.key, agent, server, tool })
    return handle === undefined ? undefined : { handle, ...(requested !== undefined && { agent_id: requested }) }
  }
}

/** The tool that pages through results that were cut (result-budget.ts). */
export function createReadResult(kept: KeptResults): GatewayTool {
  return {
    definition: describeTool(
      'read_result',
      'Reads on in a result that was cut because it was too large. The cut result says how to call this.',
      Arguments,
      { readOnlyHint: true },
    ),

    async run(call, args) {
      const { handle, offset = 0, limit, item, agent_id: requested } = parseArguments(Arguments, args)
      const agent = call.actAs(requested)
      const result = kept.find(handle, { principal: call.caller.principal.key, agent })
      if (!result || !mayStillRead(call, agent, result)) throw unknownHandle()
      if (item !== undefined) return readItem(result, item)
      const tokens = resultBudgetOf(call.snapshot.rules, agent, call.caller.principal) ?? PAGE_TOKENS
      return readPage(result.text, { ticket: { handle, agent_id: requested }, offset, limit, tokens })
    },
  }
}

/** What the rules no longer let an agent call, or its token is not good for, it no longer reads. */
function mayStillRead(call: GatewayCall, agent: string, { server, tool }: KeptResult): boolean {
  if (call.onlyServer !== undefined && call.onlyServer !== server) return false
  call.server = server
  call.tool = tool
  return call.decide(agent, server, tool) && call.lackingScopes(server, [tool]) === undefined
}

/** Unknown, expired and somebody else's read the same. */
function unknownHandle(): GatewayError {
  const message =
    '/handle: no result is kept under this handle for this agent. Results are kept for ten minutes: call the tool again'
  return new GatewayError('INVALID_ARGUMENTS', message, { details: { path: '/handle' } })
}

/** Whole, whatever the budget, since half of it is worth nothing; and nothing beside it, since that would hide it from some clients. */
function readItem({ items }: KeptResult, item: number): CallToolResult {
  if (item >= items.length) throw outOfRange('/item', item, `the result has ${items.length} item(s), counted from 0`)
  return { content: [items[item]] as CallToolResult['content'] }
}

interface Wanted {
  readonly ticket: { readonly handle: string; readonly agent_id: string | undefined }
  readonly offset: number
  readonly limit: number | undefined
  readonly tokens: number
}

/** One page, at least a character long. `text` is in `structuredContent` too: several clients show a model nothing else. */
function readPage(text: string, { ticket, offset, limit, tokens }: Wanted): CallToolResult {
  const total = text.length
  if (offset > total) throw outOfRange('/offset', offset, `the result has ${total} characters`)
  const start = splitsPair(text, offset) ? offset - 1 : offset
  const reach = reachOf(text, start, Math.max(tokens - FRAME_TOKENS, tokens / 2))
  const wanted = Math.max(start + 1, Math.min(reach, limit === undefined ? total : start + limit))
  const end = Math.min(total, endOfCharacter(text, wanted, start))
  const page = text.slice(start, end)
  const next = end < total ? end : null
  const readOn =
    next === null ? 'That is the end.' : `Read on with read_result ${JSON.stringify({ ...ticket, offset: next })}.`
  const notice = `[Characters ${start} to ${end} of ${total}. ${readOn}]`
  return {
    content: [
      { type: 'text', text: page },
      { type: 'text', text: notice },
    ],
    structuredContent: { handle: ticket.handle, offset: start, next_offset: next, total_characters: total, text: page },
  }
}

/** Back by one from the middle of a surrogate pair, or on by one when the page would be empty. */
function endOfCharacter(text: string, at: number, start: number): number {
  if (!splitsPair(text, at)) return at
  return at - 1 > start ? at - 1 : at + 1
}

function outOfRange(path: string, value: number, limits: string): GatewayError {
  return new GatewayError('INVALID_ARGUMENTS', `${path}: ${value} is past the end: ${limits}`, { details: { path } })
}
