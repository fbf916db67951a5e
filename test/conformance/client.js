// @ts-check
/**
 * The client that the conformance suite runs: `node client.js URL`, after a build. It is a person with a gateway: the server is in
 * a servers file, its tools are called through the gateway's own tools, and whenever the gateway says AUTH_REQUIRED the person
 * logs in and tries again. When to stop is for the gateway to say. Where the server asks something back, the person uses a client
 * that can answer, of the revision of the scenario, at the gateway's address for that server. Exit status 0 when every call came
 * through.
 */
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { callGatewayTool } from '../../dist/cli/gateway-tool.js'
import { openCredentialStore } from '../../dist/credentials/store.js'
import { GatewayError } from '../../dist/errors/gateway-error.js'
import { login, requireOAuth } from '../../dist/oauth/login.js'
import { startGateway } from '../../dist/start.js'

/** @typedef {Record<string, any>} Json */

const SERVER = 'conformance'
// Where the suite expects the document of a client without a registration; nobody fetches it.
const CLIENT_METADATA_URL = 'https://conformance-test.local/client-metadata.json'
// Below the limit of run.js: then the suite ends no more than the shell around this process.
const LIMIT_MS = 50_000
const LOGIN_LIMIT_MS = 20_000
const AGENT = 'default'
const RULES = { agents: { [AGENT]: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } }
const MODERN = '2026-07-28'
const TOKEN_SECONDS = 600
/** Scenarios whose server asks its client something before it answers. */
const ASKING = new Set(['elicitation-sep1034-client-defaults', 'sep-2322-client-request-state'])
/** @type {Json} */
const SAMPLES = { string: 'a', number: 1, integer: 1, boolean: true, array: [], object: {}, null: null }

await main()
// A connection the suite keeps open is nothing to wait for.
process.exit()

async function main() {
  const directory = await mkdtemp(join(tmpdir(), 'gateway-conformance-'))
  const late = wait(LIMIT_MS).then(() => Promise.reject(new Error(`not done after ${LIMIT_MS} ms`)))
  try {
    await Promise.race([playScenario(directory), late])
  } catch (error) {
    process.stderr.write(`${describe(error)}\n`)
    process.exitCode = 1
  } finally {
    await rm(directory, { recursive: true, force: true, maxRetries: 3 })
  }
}

/** What the gateway refuses in one line; anything else is a mistake in here. @param {unknown} error */
function describe(error) {
  if (error instanceof GatewayError) return `${error.code}: ${error.message}`
  return error instanceof Error ? error.stack : String(error)
}

/** @param {string} directory */
async function playScenario(directory) {
  const person = await openGateway(directory)
  try {
    const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? ''
    if (ASKING.has(scenario)) await callAndAnswer(person)
    else for (const call of callsFor(scenario, await listTools(person))) await callTool(person, call)
  } finally {
    await person.gateway.close()
  }
}

/** @param {string} directory */
async function openGateway(directory) {
  const config = join(directory, '.mcp.json')
  const rules = join(directory, 'rules.json')
  const server = { url: process.argv.at(-1), ...(await oauthSettings(directory)) }
  await writeFile(config, JSON.stringify({ mcpServers: { [SERVER]: server } }))
  await writeFile(rules, JSON.stringify(RULES))
  // Of the environment nothing else: what is set on a developer's machine must not change a result.
  const env = {
    LOG_LEVEL: process.env.LOG_LEVEL ?? 'info',
    GATEWAY_STATE_DIR: directory,
    GATEWAY_CREDENTIALS_KEY: randomBytes(32).toString('base64'),
  }
  const gateway = await startGateway({ config, rules, env, cwd: directory })
  // A store of its own, as the process of `gateway login` has one.
  const store = openCredentialStore({ directory, env, warn: text => void process.stderr.write(`${text}\n`) })
  return { gateway, store }
}

/** What a user writes under "oauth" for the server of this scenario; nothing, for most. @param {string} directory */
async function oauthSettings(directory) {
  const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? ''
  const { client_id: clientId, client_secret: clientSecret, private_key_pem: key, signing_algorithm } = readContext()
  if (scenario === 'auth/basic-cimd') return { oauth: { clientMetadataUrl: CLIENT_METADATA_URL } }
  if (clientId === undefined) return {}
  const grant = scenario.startsWith('auth/client-credentials') ? { grant: 'client_credentials' } : {}
  if (key === undefined) return { oauth: { ...grant, clientId, clientSecret } }
  const privateKeyFile = join(directory, 'private-key.pem')
  await writeFile(privateKeyFile, key, { mode: 0o600 })
  return { oauth: { ...grant, clientId, privateKeyFile, signingAlgorithm: signing_algorithm } }
}

/** @returns {Json} */
function readContext() {
  return JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}')
}

/** @typedef {Awaited<ReturnType<typeof openGateway>>} Person */
/** @typedef {{ tool: string, args: Json, mayFail?: boolean }} Call */

/** @param {Person} person @returns {Promise<Json[]>} */
async function listTools(person) {
  const { structuredContent } = await callGateway(person, 'get_server_tools', { server: SERVER })
  return structuredContent.tools
}

/** @param {Person} person @param {Call} call */
async function callTool(person, { tool, args, mayFail }) {
  const call = (/** @type {Json} */ args) => callGateway(person, 'execute_tool', { server: SERVER, tool, args })
  try {
    const result = await call(args).catch(error => {
      // The suite fills in null for whatever is optional. Told that this is not what the schema says, an agent leaves it out.
      if (!isGatewayError(error, 'INVALID_ARGUMENTS') || !Object.values(args).includes(null)) throw error
      return call(withoutNulls(args))
    })
    if (result.isError === true) throw new Error(`${tool}: ${JSON.stringify(result.content)}`)
  } catch (error) {
    if (!mayFail) throw error
    process.stderr.write(`${tool}: ${describe(error)}\n`)
  }
}

/** @param {unknown} error @param {string} code */
function isGatewayError(error, code) {
  return error instanceof GatewayError && error.code === code
}

/** @param {Json} args @returns {Json} */
function withoutNulls(args) {
  return Object.fromEntries(Object.entries(args).filter(([, value]) => value !== null))
}

/**
 * Calls a tool of the gateway, and logs in for as long as that is the answer.
 * @param {Person} person @param {string} name @param {Json} args @returns {Promise<Json>}
 */
async function callGateway(person, name, args) {
  for (;;) {
    const { result, error } = await callGatewayTool(person.gateway, name, args, undefined)
    if (!error) return result
    if (!isGatewayError(error, 'AUTH_REQUIRED')) throw error
    process.stderr.write(`${name}: ${describe(error)}\n`)
    await logIn(person)
  }
}

/** As `gateway login` does it. @param {Person} person */
async function logIn({ gateway, store }) {
  const server = gateway.config.servers.find(({ name }) => name === SERVER)
  if (!server) throw new Error('the servers file lost its server')
  const userAgent = { show() {}, open: browse, refused() {} }
  await login(requireOAuth(server), { store, userAgent, timeLimitMs: LOGIN_LIMIT_MS })
}

/** A browser: it follows redirects, and shows its last page only when the login has ended. @param {string} url */
async function browse(url) {
  fetch(url).then(
    response => response.arrayBuffer(),
    error => process.stderr.write(`browser: ${error.message}\n`),
  )
  return true
}

/**
 * Calls every tool with a client that fills in a form with its defaults, and leaves the rest of what it is asked to the SDK.
 * @param {Person} person
 */
async function callAndAnswer({ gateway }) {
  const front = await gateway.serveHttp({ host: '127.0.0.1', port: 0 })
  const headers = { Authorization: `Bearer ${await front.issueToken(AGENT, TOKEN_SECONDS)}` }
  const url = new URL(`/servers/${SERVER}/mcp`, front.url)
  const isModern = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION === MODERN
  const client = new Client(
    { name: 'conformance', version: '1.0.0' },
    {
      capabilities: { elicitation: { form: { applyDefaults: true } } },
      ...(isModern && { versionNegotiation: { mode: { pin: MODERN } } }),
    },
  )
  client.setRequestHandler('elicitation/create', () => ({ action: 'accept', content: {} }))
  await client.connect(new StreamableHTTPClientTransport(url, { requestInit: { headers } }))
  const { tools } = await client.listTools()
  // At the same time: what one tool asks must not get into the call of another.
  await Promise.all(
    tools.map(async ({ name, inputSchema }) => {
      const { isError, content } = await client.callTool({ name, arguments: sampleArguments(inputSchema) })
      if (isError === true) throw new Error(`${name}: ${JSON.stringify(content)}`)
    }),
  )
  await client.close()
}

/** What the scenario wants called: what its context says, else every tool that is listed. @param {string} scenario @param {Json[]} tools @returns {Call[]} */
function callsFor(scenario, tools) {
  const { toolCalls } = readContext()
  if (toolCalls) {
    return toolCalls.map((/** @type {Json} */ call) => ({ tool: call.name, args: call.arguments }))
  }
  if (scenario === 'json-schema-2020-12-preservation') {
    const focal = tools.find(({ name }) => name === 'json_schema_2020_12_tool')
    return [{ tool: 'json_schema_echo', args: { schema: focal?.inputSchema } }]
  }
  // That server answers no call. It is called all the same: to check the arguments, the gateway reads the whole schema.
  const mayFail = scenario === 'json-schema-ref-no-deref'
  return tools.map(({ name, inputSchema }) => ({ tool: name, args: sampleArguments(inputSchema), mayFail }))
}

/** Arguments that the schemas of the suite accept. @param {Json} schema @returns {Json} */
function sampleArguments({ properties = {}, required = [] }) {
  const names = /** @type {string[]} */ (required)
  return Object.fromEntries(names.map(name => [name, SAMPLES[properties[name]?.type ?? 'string']]))
}
