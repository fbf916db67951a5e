// @ts-check
/**
 * The MCP server that the conformance suite describes in its scenarios: every tool, prompt and resource has its name and answer
 * from there. Built once a request for 2026-07-28 and once a session for 2025-11-25.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { completable, fromJsonSchema, McpServer, ResourceTemplate } from '@modelcontextprotocol/server'
import * as z from 'zod'
import { registerAskingPrompt, registerAskingTools, textContent, textResult } from './everything-asking.js'

/** @typedef {import('@modelcontextprotocol/server').CallToolResult} CallToolResult */
/** @typedef {import('@modelcontextprotocol/server').ServerContext} ServerContext */
/** @typedef {import('./everything-asking.js').StateCodec} StateCodec */

/** How often each list was changed, and how to change it once more. */
/** @typedef {{ readonly tools: number, readonly prompts: number, change(list: 'tools' | 'prompts'): void }} Lists */

/** One red pixel. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=='
/** A header of 44 bytes and no samples. */
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA='

const STEP_MS = 50
const RECONNECTION_MS = 100
const CACHED = /** @type {const} */ ({ ttlMs: 1000, cacheScope: 'public' })

const SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } },
    },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
}

const SCHEMA_WITH_HEADER = {
  type: 'object',
  properties: { region: { type: 'string', description: 'Where to look', 'x-mcp-header': 'Region' } },
}

const image = () => ({ type: /** @type {const} */ ('image'), data: PNG, mimeType: 'image/png' })
/** @param {string} uri @param {string} mimeType @param {string} text */
const embedded = (uri, mimeType, text) => ({
  type: /** @type {const} */ ('resource'),
  resource: { uri, mimeType, text },
})

/** What the tool of each name answers with. @type {Readonly<Record<string, CallToolResult>>} */
const ANSWERS = {
  // The first tool of the list has to take a call without arguments (http-header-validation).
  test_simple_text: textResult('This is a simple text response for testing.'),
  test_image_content: { content: [image()] },
  test_audio_content: { content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] },
  test_embedded_resource: {
    content: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')],
  },
  test_multiple_content_types: {
    content: [
      textContent('Multiple content types test:'),
      image(),
      embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
    ],
  },
  test_error_handling: {
    isError: true,
    content: [textContent('This tool intentionally returns an error for testing')],
  },
}

/** @param {{ era: 'legacy' | 'modern', lists: Lists, states: StateCodec }} options */
export function createEverything({ era, lists, states }) {
  const server = new McpServer(
    { name: 'everything', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        completions: {},
        logging: {},
      },
      cacheHints: {
        'tools/list': CACHED,
        'prompts/list': CACHED,
        'resources/list': CACHED,
        'resources/templates/list': CACHED,
        'resources/read': CACHED,
      },
      requestState: { verify: states.verify },
    },
  )
  for (const [name, answer] of Object.entries(ANSWERS)) {
    server.registerTool(name, { description: `Answers as ${name} should` }, () => answer)
  }
  registerWorkingTools(server)
  registerSchemaTools(server)
  registerAskingTools(server, { states })
  const triggers = registerTriggers(server, lists)
  registerPrompts(server)
  registerAskingPrompt(server)
  registerResources(server)
  if (era === 'legacy') {
    server.server.setRequestHandler('resources/subscribe', () => ({}))
    server.server.setRequestHandler('resources/unsubscribe', () => ({}))
  }
  return { server, ...triggers }
}

/** Tools that take a while and say so. @param {McpServer} server */
function registerWorkingTools(server) {
  const progress = { description: 'Reports progress in three steps' }
  server.registerTool('test_tool_with_progress', progress, async ctx => {
    const { progressToken } = ctx.mcpReq._meta ?? {}
    for (const progress of [0, 50, 100]) {
      if (progress > 0) await wait(STEP_MS)
      if (progressToken === undefined) continue
      await ctx.mcpReq.notify({
        method: 'notifications/progress',
        params: { progressToken, progress, total: 100 },
      })
    }
    return textResult('Reported progress')
  })
  for (const name of ['test_tool_with_logging', 'test_logging_tool']) {
    server.registerTool(name, { description: 'Logs three lines' }, logLines)
  }
  const reconnection = { description: 'Hangs up in the middle and answers whoever comes back' }
  server.registerTool('test_reconnection', reconnection, async ctx => {
    ctx.http?.closeSSE?.()
    await wait(RECONNECTION_MS)
    return textResult('Answered after the reconnection')
  })
}

/** @param {ServerContext} ctx */
async function logLines({ mcpReq }) {
  await mcpReq.log('info', 'Tool execution started')
  await wait(STEP_MS)
  await mcpReq.log('info', 'Tool processing data')
  await wait(STEP_MS)
  await mcpReq.log('info', 'Tool execution completed')
  return textResult('Logged three lines')
}

/** @param {McpServer} server */
function registerSchemaTools(server) {
  const echo = (/** @type {unknown} */ args) => textResult(JSON.stringify(args))
  const schemas = { json_schema_2020_12_tool: SCHEMA_2020_12, test_x_mcp_header: SCHEMA_WITH_HEADER }
  for (const [name, schema] of Object.entries(schemas)) {
    server.registerTool(name, { description: 'Echoes its arguments', inputSchema: fromJsonSchema(schema) }, echo)
  }
}

/**
 * Tools that change a list. It is their own description that changes, so that scenarios may run beside each other: names and order stay.
 * @param {McpServer} server @param {Lists} lists
 */
function registerTriggers(server, lists) {
  const toolDescription = () => `Changes the list of tools (${lists.tools} times so far)`
  const promptDescription = () => `Says nothing (changed ${lists.prompts} times so far)`
  const tool = server.registerTool('test_trigger_tool_change', { description: toolDescription() }, () => {
    lists.change('tools')
    return textResult('The list of tools has changed')
  })
  const changing = { description: 'Changes the list of prompts' }
  server.registerTool('test_trigger_prompt_change', changing, () => {
    lists.change('prompts')
    return textResult('The list of prompts has changed')
  })
  const prompt = server.registerPrompt('test_changing_prompt', { description: promptDescription() }, () => ({
    messages: [{ role: 'user', content: textContent(promptDescription()) }],
  }))
  return {
    /** For a server that lives on: it shows the change and announces it. @param {'tools' | 'prompts'} list */
    refresh(list) {
      if (list === 'tools') tool.update({ description: toolDescription() })
      else prompt.update({ description: promptDescription() })
    },
  }
}

/** @param {McpServer} server */
function registerPrompts(server) {
  const user = /** @type {const} */ ('user')
  server.registerPrompt('test_simple_prompt', { description: 'One message' }, () => ({
    messages: [{ role: user, content: textContent('This is a simple prompt for testing.') }],
  }))
  const twoArguments = z.object({
    arg1: completable(z.string().describe('First test argument'), suggest),
    arg2: completable(z.string().describe('Second test argument'), suggest),
  })
  const withArguments = { description: 'Repeats its arguments', argsSchema: twoArguments }
  server.registerPrompt('test_prompt_with_arguments', withArguments, ({ arg1, arg2 }) => ({
    messages: [{ role: user, content: textContent(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`) }],
  }))
  const withResource = {
    description: 'Embeds a resource',
    argsSchema: z.object({ resourceUri: z.string().describe('URI of the resource to embed') }),
  }
  server.registerPrompt('test_prompt_with_embedded_resource', withResource, ({ resourceUri }) => ({
    messages: [
      { role: user, content: embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.') },
      { role: user, content: textContent('Please process the embedded resource above.') },
    ],
  }))
  server.registerPrompt('test_prompt_with_image', { description: 'Shows an image' }, () => ({
    messages: [
      { role: user, content: image() },
      { role: user, content: textContent('Please analyze the image above.') },
    ],
  }))
}

/** @param {string | undefined} value */
const suggest = (value = '') => ['test', 'testValue1', 'testValue2'].filter(word => word.startsWith(value))

/** @param {McpServer} server */
function registerResources(server) {
  const plain = { description: 'A text that never changes', mimeType: 'text/plain' }
  server.registerResource('static-text', 'test://static-text', plain, ({ href: uri }) => ({
    contents: [{ uri, mimeType: 'text/plain', text: 'This is the content of the static text resource.' }],
  }))
  const picture = { description: 'An image that never changes', mimeType: 'image/png' }
  server.registerResource('static-binary', 'test://static-binary', picture, ({ href: uri }) => ({
    contents: [{ uri, mimeType: 'image/png', blob: PNG }],
  }))
  const watched = { description: 'To be subscribed to', mimeType: 'text/plain' }
  server.registerResource('watched-resource', 'test://watched-resource', watched, ({ href: uri }) => ({
    contents: [{ uri, mimeType: 'text/plain', text: 'Watched resource content' }],
  }))
  const template = new ResourceTemplate('test://template/{id}/data', { list: undefined, complete: { id: suggest } })
  const numbered = { description: 'Data of an id', mimeType: 'application/json' }
  server.registerResource('template', template, numbered, ({ href: uri }, { id }) => ({
    contents: [
      {
        uri,
        mimeType: 'application/json',
        text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
      },
    ],
  }))
}
