// @ts-check
/** The echo server over stdin and stdout, one line a message. */
import { createInterface } from 'node:readline'
import { answer } from './echo.js'

for await (const line of createInterface({ input: process.stdin })) {
  const reply = answer(JSON.parse(line))
  if (reply) process.stdout.write(`${JSON.stringify(reply)}\n`)
}
