// @ts-check
/**
 * Measures what the gateway adds to a call, beside a bare `node:http` reverse proxy in the same run: a machine's noise is larger
 * than many a difference, but it strikes the neighbours in one round alike. See README.md.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { chooseCores, memoryMb, nextMessage, Processes, usageOf } from './processes.js'
import { toAddedTable, toGoals, toLoadTable, toWaited } from './report.js'
import { ERAS, MESSAGE, startBackendAndProxy, startGateway, startGenerator } from './targets.js'

/** @typedef {import('./targets.js').Target} Target */
/** @typedef {import('./targets.js').Era} Era */
/** @typedef {import('./report.js').Round} Round */

const CONCURRENCIES = [1, 16, 64]
// For each target and era; the JIT of a gateway needs some 5,000 calls to settle, whichever they are.
const WARM_UP_CALLS = 2_500
const STARTED_MS = 2_000
// V8 gives memory back when it has had nothing to do for some seconds.
const IDLE_MS = 12_000

const FULL = { rounds: 5, durationMs: 1_000, limitMs: 235_000 }
const QUICK = { rounds: 2, durationMs: 300, limitMs: 55_000 }

/** @param {string} text */
const print = text => void process.stdout.write(`${text}\n`)

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean' }, help: { type: 'boolean' } } })
if (flags.help) print('node bench/run.js [--quick]   (needs a build; --quick: short rounds, under a minute)')
else await main(flags.quick ? QUICK : FULL)

/** @param {typeof FULL} plan */
async function main(plan) {
  const processes = new Processes()
  const directory = await mkdtemp(join(tmpdir(), 'gateway-bench-'))
  const stopped = new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done after ${plan.limitMs} ms`)), plan.limitMs).unref()
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => reject(new Error(signal)))
  })
  try {
    await Promise.race([measure(processes, directory, plan), stopped])
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  } finally {
    await processes.stop()
    await rm(directory, { recursive: true, force: true, maxRetries: 3 })
  }
  // What was cut short may still wait for something.
  process.exit()
}

/** @param {Processes} processes @param {string} directory @param {typeof FULL} plan */
async function measure(processes, directory, { rounds, durationMs, limitMs }) {
  const cores = chooseCores()
  const pinning = cores
    ? `system under test on core ${cores.system}, load generator and backends on core ${cores.load}`
    : 'NOT pinned (no taskset, or one core only): expect more noise'
  print(`Node ${process.version}, ${availableParallelism()} cores; ${pinning}`)

  const { backend, proxy, simple } = await startBackendAndProxy(processes, cores)
  const gateway = await startGateway(processes, cores, { directory, backendUrl: backend.url })
  const generator = startGenerator(processes, cores)
  const targets = [backend, proxy, simple, gateway.http, gateway.stdio]
  let gatewayCalls = 0

  /**
   * @param {Target} target @param {Era} era @param {{ concurrency: number, durationMs?: number, calls?: number }} how
   * @returns {Promise<Round>}
   */
  const drive = async (target, era, how) => {
    const before = usageOf(target.pid)
    const startedAt = performance.now()
    generator.send({ ...how, ...target.request(era), url: target.url, expected: MESSAGE })
    const { measured, error } = await nextMessage(generator)
    if (error !== undefined) throw new Error(error)
    const elapsedMs = performance.now() - startedAt
    const after = usageOf(target.pid)
    if (target.pid === gateway.pid) gatewayCalls += measured.calls
    const used = before && after && { cpuMs: after.cpuMs - before.cpuMs, waitedMs: after.waitedMs - before.waitedMs }
    return { ...measured, elapsedMs, used }
  }

  /** @param {Target} target */
  const warmUp = async target => {
    for (const era of ERAS) await drive(target, era, { concurrency: 16, calls: WARM_UP_CALLS })
  }

  await pause(STARTED_MS)
  const started = memoryMb(gateway.pid)
  for (const target of [gateway.http, gateway.stdio]) await drive(target, '2026-07-28', { concurrency: 1, calls: 1 })
  const rested = pause(IDLE_MS)
  for (const target of [backend, proxy, simple]) await warmUp(target)
  await rested
  const idle = memoryMb(gateway.pid)
  for (const target of [gateway.http, gateway.stdio]) await warmUp(target)

  const cells = ERAS.flatMap(era =>
    CONCURRENCIES.flatMap(concurrency =>
      targets.map(target => ({ era, concurrency, target, rounds: /** @type {Round[]} */ ([]) })),
    ),
  )
  let done = 0
  // Fewer rounds on a slow machine are better than none.
  for (let roundMs = 0; done < rounds && performance.now() + 1.2 * roundMs < limitMs; done++) {
    const startedAt = performance.now()
    for (const { target, era, concurrency, rounds } of cells) {
      rounds.push(await drive(target, era, { concurrency, durationMs }))
    }
    roundMs = performance.now() - startedAt
  }
  const loaded = memoryMb(gateway.pid)
  await checkAudit(gateway.audit, gatewayCalls)

  const named = cells.map(({ target, ...cell }) => ({ ...cell, target: target.name }))
  print(
    `${done} rounds of ${durationMs} ms, every target in every round; medians over the rounds. ${toWaited(named)}\n`,
  )
  print(toLoadTable(named))
  print(`\n${toAddedTable(named)}\n`)
  /** @param {number | undefined} value */
  const megabytes = value => (value === undefined ? '-' : `${value.toFixed(0)} MB`)
  print(
    `Memory of the gateway: ${megabytes(started?.now)} after the start, ${megabytes(idle?.now)} idle after the first ` +
      `call of each backend, ${megabytes(loaded?.peak)} at its highest in ${gatewayCalls} calls\n`,
  )
  print(toGoals(named, idle?.now))
}

/** A gateway that drops audit lines would be measured as a faster one. @param {string} file @param {number} calls */
async function checkAudit(file, calls) {
  await pause(500)
  const lines = (await readFile(file)).reduce((count, byte) => count + (byte === 0x0a ? 1 : 0), 0)
  if (lines !== calls) throw new Error(`${calls} calls left ${lines} audit lines`)
}
