// @ts-check
/**
 * Serves everything.js over HTTP for the conformance suite, both eras on one URL or only one of them. Prints its URL as one line of
 * JSON when it listens.
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import { serve } from '@hono/node-server'
import {
  createMcpHandler,
  createRequestStateCodec,
  hostHeaderValidationResponse,
  isLegacyRequest,
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  originValidationResponse,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server'
import { createEverything } from './everything.js'

/** @typedef {import('@modelcontextprotocol/server').EventStore} EventStore */
/** @typedef {import('@modelcontextprotocol/server').JSONRPCMessage} JSONRPCMessage */
/** @typedef {(request: Request) => Promise<Response>} Fetch */

const ERAS = ['legacy', 'modern', 'both']
const RETRY_MS = 200

const { values: flags } = parseArgs({
  options: {
    era: { type: 'string', default: 'both' },
    port: { type: 'string', default: '0' },
    help: { type: 'boolean' },
  },
})
if (flags.help)
  process.stdout.write(`node test/conformance/everything-server.js [--era ${ERAS.join('|')}] [--port N]\n`)
else if (ERAS.includes(flags.era)) listen(openEverything(flags.era), Number(flags.port))
else {
  process.stderr.write(`--era is one of ${ERAS.join(', ')}, not ${flags.era}\n`)
  process.exitCode = 2
}

/** @param {Fetch} fetch @param {number} port */
function listen(fetch, port) {
  serve({ fetch, port, hostname: '127.0.0.1' }, address => {
    process.stdout.write(`${JSON.stringify({ url: `http://127.0.0.1:${address.port}/mcp` })}\n`)
  })
}

/** @param {string} era @returns {Fetch} */
function openEverything(era) {
  /** @type {import('./everything-asking.js').StateCodec} */
  const states = createRequestStateCodec({ key: randomBytes(32) })
  const lists = {
    tools: 0,
    prompts: 0,
    /** @param {'tools' | 'prompts'} list */
    change(list) {
      lists[list]++
      if (list === 'tools') modern.notify.toolsChanged()
      else modern.notify.promptsChanged()
      legacy.refresh(list)
    },
  }
  const modern = createMcpHandler(() => createEverything({ era: 'modern', lists, states }).server, { legacy: 'reject' })
  const legacy = openSessions(() => createEverything({ era: 'legacy', lists, states }))
  return async request => {
    const refused =
      hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
      originValidationResponse(request, localhostAllowedOrigins())
    if (refused) return refused
    if (new URL(request.url).pathname !== '/mcp') return new Response('MCP is served under /mcp\n', { status: 404 })
    const isLegacy = era === 'both' ? await isLegacyRequest(request) : era === 'legacy'
    return isLegacy ? legacy.fetch(request) : modern.fetch(request)
  }
}

/** The sessions of 2025-11-25, each with its own server. @param {() => ReturnType<typeof createEverything>} create */
function openSessions(create) {
  /** @type {Map<string, { transport: WebStandardStreamableHTTPServerTransport, everything: ReturnType<typeof createEverything> }>} */
  const sessions = new Map()
  const open = async () => {
    const everything = create()
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: createEventStore(),
      retryInterval: RETRY_MS,
      onsessioninitialized: id => void sessions.set(id, { transport, everything }),
      onsessionclosed: id => void sessions.delete(id),
    })
    await everything.server.connect(transport)
    return transport
  }
  return {
    /** @type {Fetch} */
    async fetch(request) {
      const id = request.headers.get('mcp-session-id')
      if (id !== null) return sessions.get(id)?.transport.handleRequest(request) ?? unknownSession()
      // Only `initialize` makes it a session; the transport refuses everything else.
      const transport = await open()
      const response = await transport.handleRequest(request)
      if (transport.sessionId === undefined) await transport.close()
      return response
    },
    /** @param {'tools' | 'prompts'} list */
    refresh(list) {
      for (const { everything } of sessions.values()) everything.refresh(list)
    },
  }
}

function unknownSession() {
  const error = { code: -32001, message: 'Session not found' }
  return Response.json({ jsonrpc: '2.0', id: null, error }, { status: 404 })
}

/** Every event of one session, for whoever comes back. @returns {EventStore} */
function createEventStore() {
  /** @type {{ id: string, streamId: string, message: JSONRPCMessage }[]} */
  const events = []
  return {
    async storeEvent(streamId, message) {
      const id = `${events.length + 1}`
      events.push({ id, streamId, message })
      return id
    },
    async getStreamIdForEventId(eventId) {
      return events.find(({ id }) => id === eventId)?.streamId
    },
    async replayEventsAfter(lastEventId, { send }) {
      const last = events.findIndex(({ id }) => id === lastEventId)
      const streamId = events[last]?.streamId ?? ''
      for (const { id, streamId: its, message } of events.slice(last + 1)) {
        // The first event of a stream only gives it an id to come back with.
        if (its === streamId && 'jsonrpc' in message) await send(id, message)
      }
      return streamId
    },
  }
}
