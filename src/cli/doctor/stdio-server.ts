import { delimiter, dirname, isAbsolute, resolve } from 'node:path'
import type { Backend } from '../../backends/backend.js'
import { childEnvironment } from '../../backends/child-process.js'
import type { StdioServerConfig } from '../../config/servers-file.js'
import { type Advise, CONNECTION_CHECKS, examineConnection } from './connection.js'
import type { Machine } from './environment.js'
import { endingsOf, isDirectory, type Located, locateProgram, type SearchPlace, withDirectory } from './programs.js'
import type { Section } from './section.js'

const CHECKS = ['command', 'command for apps', ...CONNECTION_CHECKS]

export async function examineStdio(
  section: Section,
  config: StdioServerConfig,
  { backend, machine }: { readonly backend: Backend; readonly machine: Machine },
): Promise<void> {
  const isRunnable = examineDirectory(section, config, machine) && examineCommand(section, config, machine)
  if (isRunnable) await examineConnection(section, backend, adviceFor(config))
  else section.skipRest(CHECKS, 'it cannot be started')
}

function examineDirectory(section: Section, { cwd }: StdioServerConfig, machine: Machine): boolean {
  const check = 'working directory'
  if (cwd === undefined) return true
  const place = resolve(machine.cwd, cwd)
  if (!isDirectory(place)) {
    section.failed(check, `"cwd" ${place} is no directory`, 'make it, or correct "cwd"')
    return false
  }
  if (isAbsolute(cwd)) section.ok(check, place)
  else section.warning(check, `${place}, from here`, 'apps start the gateway elsewhere: write the full path into "cwd"')
  return true
}

function examineCommand(section: Section, config: StdioServerConfig, machine: Machine): boolean {
  const { command } = config
  const own: SearchPlace = {
    path: childEnvironment(config, machine.env).PATH ?? '',
    cwd: resolve(machine.cwd, config.cwd ?? '.'),
    endings: endingsOf(machine.env),
  }
  const located = locateProgram(command, own)
  if ('missing' in located) {
    section.failed('command', missingText(located, config), missingAdvice(located, command))
    return false
  }
  const { file, interpreter } = located
  section.ok('command', `${file}${interpreter === undefined ? '' : `, run by ${interpreter}`}`)
  if (machine.desktopPath !== undefined)
    examineForApps(section, config, { own, located, desktopPath: machine.desktopPath })
  return true
}

function missingText(
  { missing, script }: { missing: string; script?: string | undefined },
  { env }: StdioServerConfig,
) {
  const path = env.PATH === undefined ? 'PATH' : 'the PATH of its "env"'
  if (script !== undefined) return `${script} is run by "${missing}", which is not in ${path}`
  if (/[/\\]/.test(missing)) return `"${missing}" does not exist, or is not executable`
  return `"${missing}" is not in ${path}`
}

function missingAdvice({ missing, script }: { missing: string; script?: string | undefined }, command: string): string {
  if (script !== undefined) return `install ${missing}, or correct the first line of ${script}`
  return `install ${command}, or write the full path of the program into "command"`
}

interface Comparison {
  readonly own: SearchPlace
  readonly located: Extract<Located, { file: string }>
  readonly desktopPath: string
}

/** The trap of servers that work in a terminal and not in an app: its PATH knows no Homebrew, no nvm and no ~/.local/bin. */
function examineForApps(section: Section, config: StdioServerConfig, { own, located, desktopPath }: Comparison) {
  const check = 'command for apps'
  // What the entry says itself holds wherever the gateway is started.
  if (config.env.PATH !== undefined) return section.ok(check, 'the same: its "env" has a PATH of its own')
  const place = { ...own, path: desktopPath }
  const there = locateProgram(config.command, place)
  if ('file' in there && there.file === located.file) return section.ok(check, 'the same')
  if ('file' in there) {
    return section.warning(
      check,
      `another one: ${there.file}`,
      `write "command": ${JSON.stringify(located.file)} if this one is meant`,
    )
  }
  const found = `"${there.missing}" is not in the PATH of apps (${desktopPath.split(delimiter).length} places)`
  const absolute = locateProgram(located.file, place)
  if ('file' in absolute) return section.warning(check, found, `write "command": ${JSON.stringify(located.file)}`)
  // The full path alone would not do: the script looks its interpreter up in PATH.
  const path = withDirectory(dirname(located.interpreter ?? located.file), desktopPath)
  section.warning(
    check,
    found,
    `write "command": ${JSON.stringify(located.file)} and "env": { "PATH": ${JSON.stringify(path)} }: it is a script, run by "${absolute.missing}"`,
  )
}

const adviceFor =
  ({ startupTimeoutMs }: StdioServerConfig): Advise =>
  (_error, ms) =>
    ms >= startupTimeoutMs
      ? `it runs and does not answer: is it an MCP server that speaks on stdin and stdout? If it installs something first, raise "startupTimeoutMs" (${startupTimeoutMs})`
      : 'its last words say why; else run the command by hand, with the variables of its "env"'
