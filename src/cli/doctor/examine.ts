import { Backend } from '../../backends/backend.js'
import { stateDirectory } from '../../config/locate.js'
import type { ServerConfig } from '../../config/servers-file.js'
import { type Keychain, openKeychain } from '../../credentials/keychain.js'
import { type CredentialStore, openCredentialStore } from '../../credentials/store.js'
import { GatewayError } from '../../errors/gateway-error.js'
import { BackendLogin } from '../../oauth/backend-login.js'
import { loginEntry } from '../../oauth/login-record.js'
import { openLog } from '../../observability/logger.js'
import { CONFIGURATION, createRedactor, type Redactor } from '../../observability/redactor.js'
import { type Configuration, examineConfiguration, type FilesWanted } from './configuration.js'
import { examineEnvironment, examineNetwork, type Machine } from './environment.js'
import { examineHttp } from './http-server.js'
import { examineIssuer } from './issuer.js'
import { examining, openSection, type Section } from './section.js'
import { examineCredentials, examineState, type SealedState } from './state.js'
import { examineStdio } from './stdio-server.js'

const HTTP_LIMIT_MS = 10_000

export interface DoctorOptions extends FilesWanted, Machine {
  /** The one server to look at; all of them when there is no name. */
  readonly name?: string | undefined
  readonly keychain?: Keychain | undefined
  /** How long a server may take to be reached, and again to be connected; processes have their `startupTimeoutMs`. */
  readonly limitMs?: number | undefined
}

/** What there is to say, in order; each section comes as soon as it and those before it are complete. */
export interface Examination {
  readonly isUsable: boolean
  /** How many servers are looked at. */
  readonly servers: number
  readonly sections: readonly Promise<Section>[]
  /** Ends whatever was started. */
  close(): Promise<void>
}

/** Looks at everything at once. Throws CONFIG_INVALID when there is no server of that name. */
export async function openExamination(options: DoctorOptions): Promise<Examination> {
  const { env, name, keychain = openKeychain(env) } = options
  const redactor = createRedactor()
  const about = (subject: string) => openSection(subject, text => redactor.redact(text))
  const read = openSection('files')
  const configuration = await examineConfiguration(read, options)
  redactor.learn(CONFIGURATION, secretsOf(configuration, options))
  const files = about(read.subject)
  for (const finding of read.findings) files.add(finding) // now that the secrets are known
  const chosen = configuration.servers.filter(server => name === undefined || server.name === name)
  if (name !== undefined && chosen.length === 0 && configuration.isUsable) throw unknownServer(name, configuration)

  const state = { directory: stateDirectory(env), env, keychain }
  const credentials = about('credentials')
  const sealed = examineSealed(credentials, state)
  const patients = chosen.map(config => openPatient(config, { ...options, redactor, sealed }))
  return {
    isUsable: configuration.isUsable,
    servers: patients.length,
    sections: [
      examining(about('environment'), section => examineEnvironment(section, options)),
      examining(about('network'), section => examineNetwork(section, env)),
      examining(files, section => examineState(section, state)),
      sealed.then(() => credentials),
      examining(about('issuer'), async section =>
        examineIssuer(section, { env, state: await sealed, identity: configuration.identity }),
      ),
      ...patients.map(({ section }) => section),
    ],
    async close() {
      await Promise.all(patients.map(patient => patient.close()))
    },
  }
}

/** What breaks there is told there; the others go on without credentials. */
async function examineSealed(
  section: Section,
  options: Parameters<typeof examineCredentials>[1],
): Promise<SealedState> {
  let state: SealedState = { entries: new Map(), damaged: [] }
  await examining(section, async () => {
    state = await examineCredentials(section, options)
  })
  return state
}

// Values that stand in every path: taken out, nothing could be read any more.
const PLAIN_VARIABLES = ['HOME', 'USERPROFILE', 'PWD', 'PATH', 'TMPDIR', 'USER']

function secretsOf({ servers, secrets }: Configuration, { env }: DoctorOptions): string[] {
  const plain = new Set(PLAIN_VARIABLES.map(name => env[name]))
  const handedOn = servers.flatMap(server =>
    server.transport === 'stdio' ? server.inheritEnv.filter(name => !PLAIN_VARIABLES.includes(name)) : [],
  )
  const own = ['GATEWAY_CREDENTIALS_KEY', 'GATEWAY_PASSPHRASE', ...handedOn].flatMap(name => env[name] ?? [])
  return [...secrets, ...own].filter(secret => !plain.has(secret))
}

interface Surroundings extends DoctorOptions {
  readonly redactor: Redactor
  readonly sealed: Promise<SealedState>
}

function openPatient(config: ServerConfig, surroundings: Surroundings) {
  const { env, redactor, sealed, limitMs = HTTP_LIMIT_MS } = surroundings
  const section = openSection(`server/${config.name}`, redactor.scopedTo(config.name))
  const limited = config.transport === 'stdio' ? config : withLimit(config, limitMs)
  const { logger } = openLog({ level: 'silent', redactor })
  const store = openStore(surroundings)
  const backend = new Backend(limited, {
    env,
    logger,
    redactor,
    authorize: server =>
      new BackendLogin(server, { store, logger, learnSecrets: secrets => redactor.learn(server.name, secrets) }),
  })
  const examine = async (): Promise<void> => {
    const [problem] = config.misconfigured
    if (config.disabled) return section.skipped('configuration', '"disabled" is true in the servers file')
    if (problem) {
      for (const { path, message } of config.misconfigured)
        section.failed(
          'configuration',
          `${path}: ${message}`,
          'apps do not see the variables of your shell: set it in "env" of the client',
        )
      return
    }
    if (limited.transport === 'stdio') return examineStdio(section, limited, { backend, machine: surroundings })
    const readOnly = { ...store, read: async (name: string) => readFrom(await sealed, name) }
    await examineHttp(section, limited, { backend, store: readOnly, limitMs })
  }
  const examined = examining(section, examine)
  return {
    section: examined.finally(() => backend.close()),
    close: () => backend.close(),
  }
}

/** The store of a running gateway, but for damaged entries: reading one would take it out of the file. */
function openStore({ env, keychain, sealed }: Surroundings): CredentialStore {
  const directory = stateDirectory(env)
  const store = openCredentialStore({ directory, env, warn: () => {}, ...(keychain && { keychain }) })
  const read = async (name: string) => ((await sealed).damaged.includes(name) ? undefined : store.read(name))
  return { ...store, read }
}

/** Nobody waits two minutes for an answer that a doctor wants. */
const withLimit = <T extends ServerConfig>(config: T, limitMs: number): T => ({
  ...config,
  startupTimeoutMs: Math.min(config.startupTimeoutMs, limitMs),
})

/** As it was found; what cannot be read says so. */
function readFrom({ entries, damaged, problem }: SealedState, name: string) {
  if (problem) throw problem
  if (damaged.includes(name))
    throw new GatewayError('CONFIG_INVALID', `the ${name.startsWith(loginEntry('')) ? 'login' : 'entry'} is damaged`)
  return entries.get(name)
}

function unknownServer(name: string, { servers }: Configuration): GatewayError {
  const known = servers.map(server => server.name).join(', ') || 'none'
  return new GatewayError('CONFIG_INVALID', `there is no server "${name}" (there are: ${known})`)
}
