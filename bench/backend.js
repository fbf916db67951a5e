// @ts-check
/** The echo server over Streamable HTTP, without sessions. Tells its parent the port and ends with it. */
import { createServer } from 'node:http'
import { answer } from './echo.js'

const server = createServer((request, response) => {
  if (request.method !== 'POST') return response.writeHead(405).end()
  /** @type {Buffer[]} */
  const chunks = []
  request.on('data', chunk => chunks.push(chunk))
  request.on('end', () => {
    const reply = answer(JSON.parse(Buffer.concat(chunks).toString('utf8')))
    if (!reply) return response.writeHead(202).end()
    const body = Buffer.from(JSON.stringify(reply))
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length }).end(body)
  })
})
// Longer than any pause between two rounds of the same target: closing a connection under a pool is not what is measured.
server.keepAliveTimeout = 300_000
server.listen(0, '127.0.0.1', () => process.send?.(server.address()))
process.once('disconnect', () => process.exit())
