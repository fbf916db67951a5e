import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { gateway, serveGateway } from '../fixtures/cli.js'
import { writeFiles } from '../fixtures/gateway.js'

test('a client that hangs up in the middle of its request is no failure of the gateway', async () => {
  const files = await writeFiles({ servers: {}, rules: { agents: { reader: { allow: { servers: ['*'] } } } } })
  const env = { ...files.env, SERVE_LOG_LEVEL: 'debug' }
  const { process: serving, url } = await serveGateway([], { cwd: files.directory, env })
  const issued = await gateway(['token', 'issue', '--agent', 'reader'], { cwd: files.directory, env })
  const { hostname, port, host } = new URL(url)
  const socket = connect(Number(port), hostname)
  const authorization = `Bearer ${issued.stdout.trim()}`
  socket.end(`POST /mcp HTTP/1.1\r\nHost: ${host}\r\nAuthorization: ${authorization}\r\nContent-Length: 100\r\n\r\n{`)
  await expect.poll(() => serving.output.stderr).toContain('the client hung up')
  expect(serving.output.stderr).not.toContain('"level":"error"')
  serving.kill()
  await files.close()
})
