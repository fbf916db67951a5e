// @ts-check
/**
 * The load generator, a process of its own. For every job its parent sends it keeps `concurrency` requests under way and
 * answers with what it measured, or with the first thing that went wrong: a fast error must not pass for a fast call.
 */
import { Pool } from 'undici'

// Opens the connections and brings the target's queues into their steady state; counted, but not measured.
const LEAD_IN_MS = 150
const TIMEOUT_MS = 10_000

/**
 * @typedef {object} Job
 * @property {string} url
 * @property {Record<string, string>} headers
 * @property {string} body
 * @property {string} expected part of every right answer
 * @property {number} concurrency
 * @property {number} [durationMs] how long to measure
 * @property {number} [calls] instead: how many calls to make
 */

/**
 * @typedef {object} Measured
 * @property {number} calls all that were made, with those of the lead-in
 * @property {number} requestsPerSecond
 * @property {number} p50 milliseconds
 * @property {number} p99
 */

/** @param {Job} job @returns {Promise<Measured>} */
async function run({ url, headers, body, expected, concurrency, durationMs = 0, calls = 0 }) {
  const { origin, pathname: path } = new URL(url)
  const pool = new Pool(origin, { connections: concurrency, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS })
  const startsAt = performance.now() + (calls > 0 ? 0 : LEAD_IN_MS)
  const endsAt = calls > 0 ? Number.POSITIVE_INFINITY : startsAt + durationMs
  /** @type {number[]} */
  const latencies = []
  let started = 0
  let lastAt = startsAt

  const oneAfterAnother = async () => {
    for (;;) {
      const sentAt = performance.now()
      if (sentAt >= endsAt || (calls > 0 && started >= calls)) return
      started++
      const response = await pool.request({ path, method: 'POST', headers, body })
      const text = await response.body.text()
      if (response.statusCode !== 200 || !text.includes(expected))
        throw new Error(`${url} answered ${response.statusCode}: ${text.slice(0, 500)}`)
      if (sentAt < startsAt) continue
      lastAt = performance.now()
      latencies.push(lastAt - sentAt)
    }
  }
  try {
    await Promise.all(Array.from({ length: concurrency }, oneAfterAnother))
  } finally {
    await pool.destroy()
  }
  latencies.sort((a, b) => a - b)
  /** @param {number} share */
  const percentile = share =>
    latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? Number.NaN
  return {
    calls: started,
    requestsPerSecond: (latencies.length * 1000) / (lastAt - startsAt),
    p50: percentile(0.5),
    p99: percentile(0.99),
  }
}

process.on('message', job => {
  run(/** @type {Job} */ (job)).then(
    measured => process.send?.({ measured }),
    error => process.send?.({ error: String(error?.stack ?? error) }),
  )
})
process.once('disconnect', () => process.exit())
