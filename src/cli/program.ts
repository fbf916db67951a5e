import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { toExitStatus } from '../errors/faces.js'
import { messageOf, toGatewayError } from '../errors/gateway-error.js'
import { isJsonObject, type JsonObject, parseJson } from '../json.js'
import { version } from '../version.js'
import { visible } from './output.js'

const USAGE = 2

/** Runs one command line; resolves with the exit status. Commands are loaded when they are picked, so that each starts fast. */
export async function run(argv: readonly string[]): Promise<number> {
  let status = 0
  const program = createProgram(result => {
    status = result
  })
  try {
    const bare = argv.length <= 2
    if (bare && process.stdin.isTTY) {
      program.outputHelp()
      return 0
    }
    await program.parseAsync(bare ? [...argv, 'stdio'] : [...argv])
    return status
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE
    return report(error)
  }
}

/** The one place that prints an error. */
function report(thrown: unknown): number {
  const error = toGatewayError(thrown)
  const cause =
    error.code === 'INTERNAL' && error.cause instanceof Error ? `: ${error.cause.stack ?? error.cause.message}` : ''
  process.stderr.write(`${visible(`${error.message}${cause}`)}\n`)
  return toExitStatus(error)
}

function createProgram(done: (status: number) => void): Command {
  const program = new Command('gateway')
    .description(
      'One MCP entry in front of many MCP servers.\nWith a pipe on stdin, "gateway" alone is "gateway stdio".',
    )
    .version(version, '-V, --version')
    .exitOverride()
    .showHelpAfterError('(add --help for the options)')
    .addHelpText('after', HELP)

  const command = (name: string, description: string) => program.command(name).description(description)
  const configured = (name: string, description: string) =>
    command(name, description)
      .option('--config <file>', 'servers file (default: .mcp.json, see README)')
      .option('--rules <file>', 'rules file (default: .mcp-gateway-rules.json)')

  configured('serve', 'serve MCP over HTTP, with a token on every request')
    .option('--host <address>', 'address to listen on (MCP_SERVER_HOST, default 127.0.0.1)')
    .option('--port <number>', 'port, 0 for any free one (MCP_SERVER_PORT, default 8080)', toPort)
    .option('--debug', 'also offer get_gateway_status (GATEWAY_DEBUG=true)')
    .option('--quickstart <agent>', 'print a token for this agent (24 h), a curl line and the JSON for clients')
    .action(async flags => done(await (await import('./serve.js')).serve(flags)))
  configured('stdio', 'serve MCP on stdin and stdout, for Claude Desktop, Claude Code, Cursor')
    .option('--agent <name>', 'agent whose rules hold')
    .option('--server <name>', 'only this server, with everything it has, under its own names')
    .option('--debug', 'also offer get_gateway_status (GATEWAY_DEBUG=true)')
    .action(async flags => done(await (await import('./stdio.js')).stdio(flags)))
  configured('connect', 'attach a client that speaks stdio to a running gateway, which many clients then share')
    .argument('[url]', 'of the gateway (default: the one that runs with the same files)')
    .option('--agent <name>', 'agent whose rules hold (GATEWAY_DEFAULT_AGENT, default "default")')
    .option('--spawn', 'start a gateway in the background when none is running')
    .action(async (url, flags) => done(await (await import('./connect.js')).connect(url, flags)))
  configured('status', 'show the state of every server, of the running gateway where there is one')
    .option('--json', 'as JSON')
    .action(async flags => done(await (await import('./status.js')).status(flags)))
  configured('tools', 'list the tools an agent may call')
    .argument('[server]', 'only this server')
    .option('--agent <name>', 'agent whose rules hold')
    .option('--json', 'full definitions as JSON')
    .action(async (server, flags) => done(await (await import('./tools.js')).tools(server, flags)))
  configured('call', 'call a tool through the same rules as an agent')
    .argument('<server>')
    .argument('<tool>')
    .option('--args <json>', 'arguments as JSON, @file, or - for stdin')
    .option('--agent <name>', 'agent whose rules hold')
    .action(async (server, tool, flags) => done(await (await import('./call.js')).call(server, tool, flags)))
  configured('explain', 'show the decision for an agent, and the rule that made it (exit 0 allow, 1 deny or ask)')
    .argument('<agent>')
    .argument('<server>')
    .argument('[tool]')
    .option('--args <json>', 'arguments of the call as JSON, @file, or - for stdin', jsonObject)
    .option('--claims <json>', 'claims of the token as JSON, @file, or - for stdin', jsonObject)
    .option('--roles <names>', 'roles of the caller, separated by commas', names)
    .option('--json', 'as JSON')
    .action(async (agent, server, tool, flags) =>
      done(await (await import('./explain.js')).explain({ agent, server, tool }, flags)),
    )
  configured('check', 'validate both files and start nothing').action(async flags =>
    done(await (await import('./check.js')).check(flags)),
  )
  configured('doctor', 'check environment, files, credentials, and every step to each server; say what to do')
    .argument('[server]', 'only this server')
    .option('--json', 'as JSON')
    .action(async (server, flags) => done(await (await import('./doctor.js')).doctor(server, flags)))
  command('init', 'write both files, or import the servers that a client has')
    .option('--from <source>', 'claude-desktop, claude-code, cursor, vscode, or a path to such a file')
    .option('--force', 'replace files that exist')
    .action(async flags => done(await (await import('./init.js')).init(flags)))
  configured('login', 'log in to a server in the browser; without one, print the address and take the answer pasted')
    .argument('<server>')
    .option('--no-browser', 'print the address, open nothing')
    .option('--device', 'log in on another device with a code, where the server has that (RFC 8628)')
    .addOption(
      new Option('--timeout <duration>', 'how long to wait for the person: 30s, 10m')
        .argParser(toSeconds)
        .default(300, '5m'),
    )
    .action(async (server, flags) => done(await (await import('./login.js')).login(server, flags)))
  configured('logout', 'revoke the tokens of a server and delete them')
    .argument('<server>')
    .option('--local', 'delete only: the login goes on elsewhere')
    .action(async (server, flags) => done(await (await import('./logout.js')).logout(server, flags)))
  const credentials = command('credentials', 'logins that are kept: list them, move them to another machine')
  credentials
    .command('list')
    .description('list the logins, without their secrets')
    .option('--json', 'as JSON')
    .action(async flags => done(await (await import('./credentials.js')).listCredentials(flags)))
  credentials
    .command('export')
    .description('write logins, sealed with a passphrase, to stdout or a file')
    .argument('<servers...>')
    .option('--output <file>', 'a new file, mode 0600')
    .option('--passphrase-file <file>', 'file with the passphrase (default: GATEWAY_PASSPHRASE, else asked for)')
    .action(async (servers, flags) => done(await (await import('./credentials.js')).exportCredentials(servers, flags)))
  credentials
    .command('import')
    .description('take in what export wrote')
    .argument('<file>', 'the file, or - for stdin')
    .option('--passphrase-file <file>', 'file with the passphrase (default: GATEWAY_PASSPHRASE, else asked for)')
    .option('--force', 'replace logins that exist')
    .action(async (file, flags) => done(await (await import('./credentials.js')).importCredentials(file, flags)))
  command('audit', 'the audit log')
    .command('verify')
    .description(
      'check that no line was changed, removed or moved; name the first that was (exit 0 all is well, 1 not)',
    )
    .argument('[file]', 'the log (default: GATEWAY_AUDIT_LOG, else audit.jsonl in the state directory)')
    .option('--json', 'as JSON')
    .action(async (file, flags) => done(await (await import('./audit.js')).verifyAudit(file, flags)))
  const token = command('token', 'tokens: make them with the embedded issuer, look into any')
  token
    .command('issue')
    .description('print a token for an agent, alone on stdout')
    .requiredOption('--agent <name>', 'agent the token is for')
    .addOption(
      new Option('--ttl <duration>', 'how long it is good: 30s, 15m, 1h, 7d').argParser(toSeconds).default(3600, '1h'),
    )
    .option('--scope <scopes>', 'scopes, separated by spaces', 'mcp')
    .action(async flags => done(await (await import('./token.js')).issueToken(flags)))
  token
    .command('inspect')
    .description('check a token as the gateway would, and say what to change; it is sent nowhere (exit 0 good, 1 not)')
    .argument('[token]', 'the token, or - for stdin (default), which keeps it out of the history of the shell')
    .option('--config <file>', 'servers file')
    .option('--rules <file>', 'rules file')
    .option('--server <name>', 'for the endpoint of this server')
    .option('--introspect', 'ask the issuer about a token that is no JWT')
    .option('--json', 'as JSON')
    .action(async (text, flags) => done(await (await import('./token-inspect.js')).inspectToken(text, flags)))
  const key = command('key', 'API keys, for callers without OAuth')
  key
    .command('create')
    .description('print a new key, alone on stdout, this once')
    .requiredOption('--agent <name>', 'agent the key is for')
    .addOption(
      new Option('--expires <duration>', 'how long it is good: 12h, 30d (default: for ever)').argParser(toSeconds),
    )
    .option('--scope <scopes>', 'scopes, separated by spaces', 'mcp')
    .action(async flags => done(await (await import('./key.js')).createKey(flags)))
  key
    .command('list')
    .description('list the keys, without their secrets')
    .option('--json', 'as JSON')
    .action(async flags => done(await (await import('./key.js')).listKeys(flags)))
  for (const [name, state, description] of KEY_CHANGES) {
    key
      .command(name)
      .description(description)
      .argument('<id>')
      .action(async id => done(await (await import('./key.js')).changeKey(id, state)))
  }
  return program
}

const KEY_CHANGES = [
  ['disable', 'disabled', 'refuse a key until it is enabled again'],
  ['enable', 'active', 'take a disabled key again'],
  ['revoke', 'revoked', 'refuse a key for good'],
] as const

const HELP = `
Files: .mcp.json (servers) and .mcp-gateway-rules.json (who may use what). "gateway init" writes both.
Exit status: 0 done, 1 refused or failed, 2 usage, 69 server unavailable, 75 try later, 77 login needed, 78 configuration.`

function toPort(text: string): number {
  const port = Number(text)
  if (text.trim() !== '' && Number.isInteger(port) && port >= 0 && port <= 65535) return port
  throw new InvalidArgumentError('expected a port from 0 to 65535.')
}

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

function toSeconds(text: string): number {
  const [, amount, unit = 's'] = /^(\d{1,9})([smhd])?$/.exec(text) ?? []
  const seconds = Number(amount) * (UNITS[unit] ?? Number.NaN)
  if (seconds > 0) return seconds
  throw new InvalidArgumentError('expected a duration such as 30s, 15m, 1h or 7d.')
}

/** The JSON of an object: as it stands, from a file, or from stdin. */
function jsonObject(given: string): JsonObject {
  let text = given
  try {
    if (given === '-') text = readFileSync(0, 'utf8')
    else if (given.startsWith('@')) text = readFileSync(given.slice(1), 'utf8')
  } catch (error) {
    throw new InvalidArgumentError(`${given} cannot be read: ${messageOf(error)}`)
  }
  const value = parseJson(text)?.value
  if (!isJsonObject(value)) throw new InvalidArgumentError('expected a JSON object.')
  return value
}

const names = (given: string): string[] =>
  given
    .split(',')
    .map(name => name.trim())
    .filter(name => name !== '')
