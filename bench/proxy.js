// @ts-check
/**
 * The yardstick: a reverse proxy of `node:http` alone that pipes and looks at nothing. Its arguments are the backend's port, and
 * `new-connections` for one that opens a connection for every request, as many a simple proxy does.
 */
import { Agent, createServer, request as send } from 'node:http'

const agent = new Agent({ keepAlive: process.argv[3] !== 'new-connections' })
const port = Number(process.argv[2])

const server = createServer((request, response) => {
  const { method, url } = request
  const { connection: _hop, ...headers } = request.headers // the agent's to say
  const outgoing = send({ host: '127.0.0.1', port, path: url, method, headers, agent }, incoming => {
    response.writeHead(incoming.statusCode ?? 502, incoming.headers)
    incoming.pipe(response)
  })
  outgoing.on('error', () => response.destroy())
  request.pipe(outgoing)
})
server.listen(0, '127.0.0.1', () => process.send?.(server.address()))
process.once('disconnect', () => process.exit())
