import type { JSONRPCMessage, Progress, RequestId } from '@modelcontextprotocol/client'
import { isJsonObject, isTooDeep, parseJson } from '../json.js'
import { BackendRefusal, type RawResult } from './call.js'

/** A message larger than this ends the connection: it would have to be held in memory whole. */
export const MAX_MESSAGE_BYTES = 32 * 1024 * 1024

export type JsonRpcResponse = Extract<JSONRPCMessage, { result: unknown } | { error: unknown }>

/** A JSON-RPC 2.0 message, or undefined for text that is something else. Only the shape that routing needs is looked at. */
export function parseMessage(text: string): JSONRPCMessage | undefined {
  if (isTooDeep(text)) return refusalInstead(text)
  const value = parseJson(text)?.value
  return isMessage(value) ? value : undefined
}

/** A response nested beyond reason would break whoever passes it on; its caller learns so at once. */
function refusalInstead(text: string): JSONRPCMessage | undefined {
  const id = /"id"\s*:\s*(\d+)/.exec(text.slice(0, 200) + text.slice(-200))?.[1]
  if (id === undefined) return undefined
  return { jsonrpc: '2.0', id: Number(id), error: { code: -32603, message: 'the answer is nested too deeply' } }
}

function isMessage(value: unknown): value is JSONRPCMessage {
  if (!isJsonObject(value) || value.jsonrpc !== '2.0') return false
  if ('method' in value) return typeof value.method === 'string'
  if ('result' in value) return isJsonObject(value.result)
  return isJsonObject(value.error) && typeof value.error.code === 'number' && typeof value.error.message === 'string'
}

export const isResponse = (message: JSONRPCMessage): message is JsonRpcResponse => !('method' in message)

/** The result of a response; throws BackendRefusal for an error response. */
export function resultOf(response: JsonRpcResponse): RawResult {
  if ('result' in response) return response.result
  throw new BackendRefusal(response.error.code, response.error.message, response.error.data)
}

/** What a progress notification says and for which request; undefined for every other message. */
export function progressIn(message: JSONRPCMessage): { token: RequestId; progress: Progress } | undefined {
  if (!('method' in message) || message.method !== 'notifications/progress') return undefined
  const { progressToken: token, progress, ...rest } = message.params ?? {}
  if ((typeof token !== 'string' && typeof token !== 'number') || typeof progress !== 'number') return undefined
  return { token, progress: { ...rest, progress } }
}
