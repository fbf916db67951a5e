#!/usr/bin/env node
import { run } from './cli/program.js'
import { standInForInit } from './pid-one.js'

standInForInit()
const status = await run(process.argv)
// Everything is closed by now, but what a server left behind, or a reader that never reads, may hold a pipe open for ever.
process.stdout.write('', () => process.exit(status))
