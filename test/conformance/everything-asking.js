// @ts-check
/**
 * The tools and the prompt that ask their client something before they answer. They are written for 2026-07-28 (`input_required`);
 * at 2025-11-25 the SDK turns what they ask into requests of the server to its client.
 */
import {
  acceptedContent,
  CLIENT_CAPABILITIES_META_KEY,
  inputRequired,
  inputResponse,
} from '@modelcontextprotocol/server'
import * as z from 'zod'

/** @typedef {import('@modelcontextprotocol/server').McpServer} McpServer */
/** @typedef {import('@modelcontextprotocol/server').ServerContext} ServerContext */
/** @typedef {import('@modelcontextprotocol/server').InputRequest} InputRequest */
/** @typedef {import('@modelcontextprotocol/server').CallToolResult} CallToolResult */
/** @typedef {import('@modelcontextprotocol/server').RequestStateCodec<string>} StateCodec */

/** @param {string} text */
export const textContent = text => ({ type: /** @type {const} */ ('text'), text })

/** @param {string} text @returns {CallToolResult} */
export const textResult = text => ({ content: [textContent(text)] })

/** @param {string} message @param {Record<string, any>} properties @param {string[]} [required] */
const form = (message, properties, required) =>
  inputRequired.elicit({
    message,
    requestedSchema: { type: 'object', properties, ...(required && { required }) },
  })

/** @param {string} prompt @param {number} [maxTokens] */
const sample = (prompt, maxTokens = 100) =>
  inputRequired.createMessage({ messages: [{ role: 'user', content: textContent(prompt) }], maxTokens })

const TEXT = { type: 'string' }
const askName = () => form('What is your name?', { name: TEXT }, ['name'])
const askConsent = () => form('Please confirm', { ok: { type: 'boolean' } }, ['ok'])

/** @param {readonly string[]} consts @param {string} kind */
const titled = (consts, kind) =>
  ['First', 'Second', 'Third'].map((title, index) => ({ const: consts[index], title: `${title} ${kind}` }))

const OPTIONS = ['option1', 'option2', 'option3']
const VALUES = ['value1', 'value2', 'value3']

/** Forms that are filled in once. @type {Readonly<Record<string, () => InputRequest>>} */
const FORMS = {
  test_elicitation_sep1034_defaults: () =>
    form('Please review the defaults', {
      name: { type: 'string', default: 'John Doe' },
      age: { type: 'integer', default: 30 },
      score: { type: 'number', default: 95.5 },
      status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
      verified: { type: 'boolean', default: true },
    }),
  test_elicitation_sep1330_enums: () =>
    form('Please choose', {
      untitledSingle: { type: 'string', enum: OPTIONS },
      titledSingle: { type: 'string', oneOf: titled(VALUES, 'Option') },
      legacyEnum: {
        type: 'string',
        enum: ['opt1', 'opt2', 'opt3'],
        enumNames: ['Option One', 'Option Two', 'Option Three'],
      },
      untitledMulti: { type: 'array', items: { type: 'string', enum: OPTIONS } },
      titledMulti: { type: 'array', items: { anyOf: titled(VALUES, 'Choice') } },
    }),
  test_streaming_elicitation: askName,
}

/** @param {McpServer} server @param {{ states: StateCodec }} options */
export function registerAskingTools(server, { states }) {
  registerForms(server)
  registerSampling(server)
  registerGreeting(server)
  registerStates(server, states)
  registerCapabilities(server)
}

/** @param {McpServer} server */
function registerForms(server) {
  const description = 'Answers with what the user filled in'
  const message = { description, inputSchema: z.object({ message: z.string().describe('What the user is shown') }) }
  server.registerTool('test_elicitation', message, ({ message }, ctx) => {
    const fields = {
      username: { type: 'string', description: "User's response" },
      email: { type: 'string', description: "User's email address" },
    }
    return filledIn(ctx, 'User response', () => form(message, fields, ['username', 'email']))
  })
  for (const [name, ask] of Object.entries(FORMS)) {
    server.registerTool(name, { description }, ctx => filledIn(ctx, 'Elicitation completed', ask))
  }
}

/** @param {ServerContext} ctx @param {string} before @param {() => InputRequest} ask */
function filledIn({ mcpReq }, before, ask) {
  const filled = inputResponse(mcpReq.inputResponses, 'form')
  if (filled.kind !== 'elicit') return inputRequired({ inputRequests: { form: ask() } })
  const content = 'content' in filled ? filled.content : {}
  return textResult(`${before}: action=${filled.action}, content=${JSON.stringify(content)}`)
}

/** @param {McpServer} server */
function registerSampling(server) {
  const description = 'Answers with what the model of the client says'
  const prompt = { description, inputSchema: z.object({ prompt: z.string().describe('What the model is asked') }) }
  server.registerTool('test_sampling', prompt, ({ prompt }, ctx) => sampled(ctx, 'response', prompt))
  server.registerTool('test_input_required_result_sampling', { description }, ctx =>
    sampled(ctx, 'capital_question', 'What is the capital of France?'),
  )
}

/** @param {ServerContext} ctx @param {string} key @param {string} prompt */
function sampled({ mcpReq }, key, prompt) {
  const answer = inputResponse(mcpReq.inputResponses, key)
  if (answer.kind !== 'sampling') return inputRequired({ inputRequests: { [key]: sample(prompt) } })
  return textResult(`LLM response: ${JSON.stringify(answer.result.content)}`)
}

/** Tools that ask for a name, for roots, or for both and a greeting. @param {McpServer} server */
function registerGreeting(server) {
  const description = 'Greets whoever says a name'
  server.registerTool('test_input_required_result_elicitation', { description }, ({ mcpReq }) => {
    const user = acceptedContent(mcpReq.inputResponses, 'user_name', z.object({ name: z.string() }))
    return user ? textResult(`Hello, ${user.name}!`) : inputRequired({ inputRequests: { user_name: askName() } })
  })
  const roots = { description: 'Names the roots of the client' }
  server.registerTool('test_input_required_result_list_roots', roots, ({ mcpReq }) => {
    const answer = inputResponse(mcpReq.inputResponses, 'client_roots')
    if (answer.kind !== 'roots') return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } })
    return textResult(`Roots: ${JSON.stringify(answer.roots)}`)
  })
}

/** Tools that remember in a signed state how far they have come. @param {McpServer} server @param {StateCodec} states */
function registerStates(server, states) {
  /** @param {string} step @param {Record<string, InputRequest>} inputRequests */
  const ask = async (step, inputRequests) => inputRequired({ inputRequests, requestState: await states.mint(step) })
  const isAt = (/** @type {ServerContext} */ { mcpReq }, /** @type {string} */ step) => mcpReq.requestState() === step

  const description = 'Answers once it has its state back'
  for (const name of ['test_input_required_result_request_state', 'test_input_required_result_tampered_state']) {
    server.registerTool(name, { description }, ctx => {
      const confirmed = acceptedContent(ctx.mcpReq.inputResponses, 'confirm')
      return confirmed && isAt(ctx, name) ? textResult('state-ok') : ask(name, { confirm: askConsent() })
    })
  }
  server.registerTool('test_input_required_result_multiple_inputs', { description }, ctx => {
    const answers = ctx.mcpReq.inputResponses ?? {}
    const questions = {
      user_name: askName(),
      greeting: sample('Generate a greeting', 50),
      client_roots: inputRequired.listRoots(),
    }
    const isDone = isAt(ctx, 'multiple') && Object.keys(questions).every(key => key in answers)
    return isDone ? textResult(`Got ${JSON.stringify(answers)}`) : ask('multiple', questions)
  })
  server.registerTool('test_input_required_result_multi_round', { description }, ctx => {
    const answers = ctx.mcpReq.inputResponses
    if (isAt(ctx, 'step2') && acceptedContent(answers, 'step2')) return textResult('All steps taken')
    if (isAt(ctx, 'step1') && acceptedContent(answers, 'step1')) {
      return ask('step2', { step2: form('Step 2: What is your favorite color?', { color: TEXT }, ['color']) })
    }
    return ask('step1', { step1: form('Step 1: What is your name?', { name: TEXT }, ['name']) })
  })
}

/** Tools that look at what the client can do. @param {McpServer} server */
function registerCapabilities(server) {
  const capabilities = { description: 'Asks for whatever the client can answer' }
  server.registerTool('test_input_required_result_capabilities', capabilities, ctx => {
    const answers = ctx.mcpReq.inputResponses
    if (answers) return textResult(`Got ${JSON.stringify(answers)}`)
    const able = capabilitiesOf(server, ctx)
    const inputRequests = {
      ...(able.sampling && { model: sample('Say hello') }),
      ...(able.elicitation && { user: askName() }),
      ...(able.roots && { roots: inputRequired.listRoots() }),
    }
    return Object.keys(inputRequests).length > 0 ? inputRequired({ inputRequests }) : textResult('Nothing to ask')
  })
  const missing = { description: 'Needs a client that can sample' }
  // Without sampling the SDK refuses what it is to ask: -32021 at 2026-07-28.
  server.registerTool('test_missing_capability', missing, ctx => sampled(ctx, 'model', 'Say hello'))
}

/**
 * Of this request, or of the session.
 * @param {McpServer} server @param {ServerContext} ctx @returns {import('@modelcontextprotocol/server').ClientCapabilities}
 */
function capabilitiesOf(server, { mcpReq }) {
  const envelope = /** @type {Record<string, any> | undefined} */ (mcpReq.envelope)
  return envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? server.server.getClientCapabilities() ?? {}
}

/** @param {McpServer} server */
export function registerAskingPrompt(server) {
  const config = { description: 'Asks for its context' }
  server.registerPrompt('test_input_required_result_prompt', config, ({ mcpReq }) => {
    const user = acceptedContent(mcpReq.inputResponses, 'user_context')
    if (!user) {
      const ask = form('What context should the prompt use?', { context: TEXT }, ['context'])
      return inputRequired({ inputRequests: { user_context: ask } })
    }
    return { messages: [{ role: 'user', content: textContent(`Use this context: ${user.context}`) }] }
  })
}
