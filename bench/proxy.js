// @ts-check
/** The yardstick: a reverse proxy of `node:http` alone that pipes and looks at nothing. Its argument is the backend's port. */
import { Agent, createServer, request as send } from 'node:http'

const agent = new Agent({ keepAlive: true })
const port = Number(process.argv[2])

const server = createServer((request, response) => {
  const { method, url, headers } = request
  const outgoing = send({ host: '127.0.0.1', port, path: url, method, headers, agent }, incoming => {
    response.writeHead(incoming.statusCode ?? 502, incoming.headers)
    incoming.pipe(response)
  })
  outgoing.on('error', () => response.destroy())
  request.pipe(outgoing)
})
server.listen(0, '127.0.0.1', () => process.send?.(server.address()))
process.once('disconnect', () => process.exit())
