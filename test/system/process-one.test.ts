import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeFiles } from '../fixtures/gateway.js'
import { pgrep } from '../fixtures/process-trees.js'
import { stdioServer } from '../fixtures/servers.js'
import { RULES } from '../fixtures/stdio-gateway.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const WITHIN = { timeout: 15_000 }
// What unshare runs is process 1 in there; from here it is a process like any other.
const CONTAINER = ['-rpf', '--mount-proc']

let node: string
let directory: string
let main: string
beforeAll(async () => {
  // process.execve() came with Node 22.15.
  const suite = (await import(new URL('../conformance/suite.js', import.meta.url).href)) as {
    findNode(): Promise<string>
  }
  node = await suite.findNode()
  const cache = join(ROOT, 'node_modules', '.cache')
  await mkdir(cache, { recursive: true })
  directory = await mkdtemp(join(cache, 'process-one-'))
  main = join(directory, 'dist', 'main.js')
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
  const options = ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(directory, 'dist')]
  await promisify(execFile)(process.execPath, [compiler, ...options])
  await promisify(execFile)('cp', [join(ROOT, 'package.json'), directory])
})
afterAll(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }))

/** Runs the gateway as process 1. */
function openContainer(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn('unshare', [...CONTAINER, node, ...args], {
    env: { PATH: process.env.PATH, GATEWAY_KEYCHAIN: 'off', LOG_LEVEL: 'silent', ...env },
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.on('data', chunk => (output.stdout += chunk))
  child.stderr.on('data', chunk => (output.stderr += chunk))
  const ended = once(child, 'close').then(([status]) => status as number | null)
  const processOne = async () => (await pgrep('-P', String(child.pid)))[0]
  return { child, output, ended, processOne }
}

describe('as process 1 of a container', () => {
  test.each([
    ['what backends leave behind is no zombie', [], 0],
    // So that the test is known to see what it looks for.
    [
      'without process.execve() it is one, and that is said',
      ['--import', 'data:text/javascript,delete process.execve'],
      2,
    ],
  ])('%s', async (_, flags, zombies) => {
    const { command, args } = stdioServer('stubborn')
    // Two that are nobody's children from the start.
    const script = '(sleep 0.7311 &); (sleep 0.7311 &); exec "$0" "$@"'
    const server = { command: 'sh', args: ['-c', script, command, ...args], env: { PID_FILE: '/dev/null' } }
    const files = await writeFiles({ servers: { one: server }, rules: RULES })
    const words = [...flags, main, 'stdio', '--agent', 'default', '--config', files.config, '--rules', files.rules]
    const container = openContainer(words, files.env)
    const send = (message: object) => container.child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`)
    const clientInfo = { name: 'test', version: '1' }
    send({ id: 1, method: 'initialize', params: { protocolVersion: '2025-06-18', capabilities: {}, clientInfo } })
    send({ method: 'notifications/initialized' })
    send({ id: 2, method: 'tools/call', params: { name: 'execute_tool', arguments: { server: 'one', tool: 'hello' } } })
    await expect.poll(() => container.output.stdout, WITHIN).toContain('"id":2')
    await expect.poll(() => pgrep('-f', 'sleep 0.7311'), WITHIN).toEqual([])
    const one = String(await container.processOne())
    await expect.poll(() => pgrep('-r', 'Z', '-P', one), WITHIN).toHaveLength(zombies)
    expect(container.output.stderr.includes('run the container with --init')).toBe(zombies > 0)

    // What `docker stop` does.
    process.kill(Number(one), 'SIGTERM')
    expect(await container.ended).toBe(0)
    await files.close()
  })

  test('the exit status is the gateway’s', async () => {
    const container = openContainer([main, 'no-such-command'])
    expect(await container.ended).toBe(2)
    expect(container.output.stderr).toContain('unknown command')
  })

  test('it ends when the gateway is killed', async () => {
    const files = await writeFiles({ servers: {}, rules: {} })
    const container = openContainer([main, 'stdio', '--config', files.config, '--rules', files.rules], files.env)
    await expect.poll(async () => pgrep('-P', String(await container.processOne())), WITHIN).toHaveLength(1)
    const [gateway] = await pgrep('-P', String(await container.processOne()))
    process.kill(Number(gateway), 'SIGKILL')
    expect(await container.ended).toBe(137)
    await files.close()
  })
})

test('the watchdog does not touch a group that only has the number of one it watched', async () => {
  const modules = pathToFileURL(join(directory, 'dist', 'backends', 'process-watchdog.js')).href
  const script = `
    import { spawn } from 'node:child_process'
    import { once } from 'node:events'
    import { existsSync, readFileSync, writeFileSync } from 'node:fs'
    import { setTimeout as wait } from 'node:timers/promises'
    const { startWatchdog } = await import(${JSON.stringify(modules)})
    const until = async condition => { while (!condition()) await wait(10) }
    const sleeper = () => spawn('sleep', ['1000'], { detached: true, stdio: 'ignore' })
    const watchdog = startWatchdog()
    const [watched, kept] = [sleeper(), sleeper()]
    const shell = watched.pid - 1
    const isReading = () => readFileSync('/proc/' + shell + '/syscall', 'utf8').startsWith('0 0x0 ')
    await until(isReading)
    const bytesRead = () => Number(/rchar: (\\d+)/.exec(readFileSync('/proc/' + shell + '/io', 'utf8'))[1])
    const before = bytesRead()
    watchdog.watch(watched.pid)
    watchdog.watch(kept.pid)
    const told = [watched, kept].map(({ pid }) => '+ ' + pid + '\\n').join('')
    await until(() => bytesRead() >= before + told.length && isReading())
    watched.kill('SIGKILL')
    await once(watched, 'exit')
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(watched.pid - 1))
    const stranger = sleeper()
    const sameNumber = stranger.pid === watched.pid
    const keptGone = once(kept, 'exit')
    watchdog.dismiss()
    await keptGone
    await until(() => !existsSync('/proc/' + shell) || /^State:\\s+Z/m.test(readFileSync('/proc/' + shell + '/status', 'utf8')))
    process.stdout.write(JSON.stringify({ sameNumber, strangerLives: stranger.exitCode === null && stranger.signalCode === null }))
    process.exit()`
  const { stdout } = await promisify(execFile)('unshare', [...CONTAINER, node, '--input-type=module', '-e', script])
  expect(JSON.parse(stdout)).toEqual({ sameNumber: true, strangerLives: true })
})
