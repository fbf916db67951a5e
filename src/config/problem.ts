import { GatewayError } from '../errors/gateway-error.js'

/** One mistake in one configuration file: where (file and JSON path, or line:column for syntax), and what to do about it. */
export interface Problem {
  readonly file: string
  readonly path: string
  readonly message: string
}

export const formatProblem = ({ file, path, message }: Problem): string =>
  path === '' ? `${file}: ${message}` : `${file}:${path}: ${message}`

/** All mistakes at once, so that a person fixes a file in one go. */
export class ConfigError extends GatewayError {
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[], options: { cause?: unknown } = {}) {
    super('CONFIG_INVALID', problems.map(formatProblem).join('\n'), options)
    this.problems = problems
  }
}

const PLAIN_KEY = /^[A-Za-z_$][\w$-]*$/

/** `['mcpServers', 'my server', 'args', 0]` as `mcpServers["my server"].args[0]`. */
export function formatPath(segments: readonly PropertyKey[]): string {
  let path = ''
  for (const segment of segments) {
    if (typeof segment === 'number') path += `[${segment}]`
    else if (PLAIN_KEY.test(String(segment))) path += path === '' ? String(segment) : `.${String(segment)}`
    else path += `[${JSON.stringify(String(segment))}]`
  }
  return path
}
