import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { toExitStatus } from '../errors/faces.js'
import { GatewayError, messageOf } from '../errors/gateway-error.js'
import { startGateway } from '../start.js'
import type { ConfigFlags } from './config-flags.js'
import { callGatewayTool } from './gateway-tool.js'
import { printJson } from './output.js'
import { usingGateway } from './shutdown.js'

export interface CallFlags extends ConfigFlags {
  readonly args?: string
  readonly agent?: string
}

export async function call(server: string, tool: string, { args, agent, ...flags }: CallFlags): Promise<number> {
  const parsed = args === undefined ? {} : parseArgs(await readArgs(args))
  return usingGateway(await startGateway({ ...flags, logLevel: 'error' }), async gateway => {
    const { result, error } = await callGatewayTool(gateway, 'execute_tool', { server, tool, args: parsed }, agent)
    printJson(result)
    if (error) return toExitStatus(error)
    return result.isError === true ? 1 : 0
  })
}

async function readArgs(args: string): Promise<string> {
  if (args === '-') return text(process.stdin)
  if (!args.startsWith('@')) return args
  return readFile(args.slice(1), 'utf8').catch(error => {
    throw new GatewayError('INVALID_ARGUMENTS', `--args: ${args.slice(1)} cannot be read: ${messageOf(error)}`)
  })
}

function parseArgs(json: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    throw new GatewayError('INVALID_ARGUMENTS', `--args is not valid JSON: ${messageOf(error)}`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new GatewayError('INVALID_ARGUMENTS', '--args must be a JSON object, for example \'{"message":"hello"}\'')
  return Object.fromEntries(Object.entries(value))
}
