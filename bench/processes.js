// @ts-check
/** What the bench starts: pinned where the machine allows it, watched through /proc where there is one, ended for sure. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'

const STOP_MS = 3_000

/** @typedef {import('node:child_process').ChildProcess} ChildProcess */

/** The output of a command, or undefined where there is no such command. @param {string} command @param {string[]} args */
function outputOf(command, args) {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    return undefined
  }
}

/**
 * One core for the system under test, another for the load generator and the backend; undefined where pinning is impossible.
 * @returns {{ system: number, load: number } | undefined}
 */
export function chooseCores() {
  const allowed =
    outputOf('taskset', ['-cp', String(process.pid)])
      ?.split(':')
      .at(-1) ?? ''
  const [system, load] = allowed.split(',').flatMap(range => {
    const [first = Number.NaN, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
  return system === undefined || load === undefined ? undefined : { system, load }
}

/** A command line that runs Node on one core. @param {number | undefined} core @param {string[]} args */
export const nodeOn = (core, args) =>
  core === undefined
    ? { command: process.execPath, args }
    : { command: 'taskset', args: ['-c', String(core), process.execPath, ...args] }

/** Owns the processes of one run. */
export class Processes {
  /** @type {Set<ChildProcess>} */
  #running = new Set()

  /**
   * @param {object} options
   * @param {string[]} options.args
   * @param {number} [options.core]
   * @param {NodeJS.ProcessEnv} [options.env]
   * @param {string} [options.cwd]
   * @param {import('node:child_process').StdioOptions} [options.stdio]
   */
  start({ args, core, env = process.env, cwd, stdio = ['ignore', 'inherit', 'inherit', 'ipc'] }) {
    const line = nodeOn(core, args)
    const child = spawn(line.command, line.args, { env, cwd, stdio })
    this.#running.add(child)
    child.once('exit', () => this.#running.delete(child))
    return child
  }

  /** Asks first: the gateway ends its own children on SIGTERM. */
  async stop() {
    const children = [...this.#running]
    const exits = children.map(child => once(child, 'exit'))
    for (const child of children) child.kill('SIGTERM')
    const killer = setTimeout(() => {
      for (const child of this.#running) child.kill('SIGKILL')
    }, STOP_MS)
    await Promise.all(exits)
    clearTimeout(killer)
  }
}

/** The next message of a child; rejects when it ends instead. @param {ChildProcess} child @returns {Promise<any>} */
export function nextMessage(child) {
  return new Promise((resolve, reject) => {
    /** @param {number | null} code */
    const fail = code => reject(new Error(`${child.spawnargs.join(' ')} ended with ${code}`))
    child.once('exit', fail)
    child.once('message', message => {
      child.off('exit', fail)
      resolve(message)
    })
  })
}

/** @param {string} file */
function read(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

const tickMs = 1000 / Number(outputOf('getconf', ['CLK_TCK']) ?? 100)

/**
 * What a process has used so far, in milliseconds: CPU of all its threads, and how long its main thread was ready to run but its
 * core was busy with something else. Undefined without /proc.
 * @param {number} pid
 */
export function usageOf(pid) {
  // The command name, field 2, may contain spaces: count from behind its parenthesis. utime and stime are fields 14 and 15.
  const fields = read(`/proc/${pid}/stat`)?.split(') ').at(-1)?.split(' ')
  const [, waitedNs] = read(`/proc/${pid}/schedstat`)?.split(' ') ?? []
  return (
    fields && {
      cpuMs: (Number(fields[11]) + Number(fields[12])) * tickMs,
      waitedMs: Number(waitedNs ?? Number.NaN) / 1e6,
    }
  )
}

/** Resident memory of a process in MB, now and at its highest; undefined without /proc. @param {number} pid */
export function memoryMb(pid) {
  const status = read(`/proc/${pid}/status`)
  /** @param {string} field */
  const megabytes = field => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status ?? '')?.[1]) / 1024
  return status === undefined ? undefined : { now: megabytes('VmRSS'), peak: megabytes('VmHWM') }
}
