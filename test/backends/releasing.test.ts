import { expect, test } from 'vitest'
import { OWNER, openBackend } from '../fixtures/backend.js'
import { createRichServer } from '../fixtures/servers/rich.js'
import { openByHand } from '../fixtures/servers.js'

test('a client that leaves while its connection is being made is no failure of the server', async () => {
  const rich = createRichServer({ eras: ['legacy'], countExecution: () => 1 })
  let held = 0
  let isGivenUp = false
  const receive: typeof rich = (message, wire) => {
    if (message.method === 'initialize' && held++ === 0) return
    if (message.method === 'notifications/cancelled') isGivenUp = true
    rich(message, wire)
  }
  await using http = await openByHand(receive)
  await using server = openBackend({ url: http.url })
  const { backend } = server
  const client = { key: 'leaving', capabilities: { roots: {} } }
  const stop = await backend.watch({ ...OWNER, client }, { uris: [], onChange: () => {} })
  await expect.poll(() => held).toBe(1)
  stop()
  backend.release('leaving')

  await expect.poll(() => isGivenUp).toBe(true)
  expect(backend.failure).toBeUndefined()
  await expect(server.call('text')).resolves.toMatchObject({ content: [{ text: 'plain' }] })
})
