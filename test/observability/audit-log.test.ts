import { execFile, execFileSync } from 'node:child_process'
import { createReadStream, existsSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type AuditEvent, openAuditLog } from '../../src/observability/audit-log.js'
import { createRedactor } from '../../src/observability/redactor.js'

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-audit-'))
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const event: AuditEvent = {
  time: '2026-01-01T00:00:00.000Z',
  principal: 'local:me',
  agent: 'team.role',
  operation: 'execute_tool',
  server: 'shop',
  tool: 'query',
  decision: 'allow',
  rule: 'agents.team.allow.servers[0] ("shop")',
  code: 'OK',
  latency_ms: 1.5,
}

async function written(file: string): Promise<AuditEvent[]> {
  const text = await readFile(file, 'utf8')
  expect(text.endsWith('\n')).toBe(true)
  return text
    .trimEnd()
    .split('\n')
    .map(line => {
      const { seq: _seq, prev: _prev, ...event } = JSON.parse(line) // see audit-chain.test.ts
      return event
    })
}

function open(file: string, secrets: string[] = []) {
  const redactor = createRedactor()
  redactor.learn('test', secrets)
  const errors: Error[] = []
  const log = openAuditLog({ file, redact: redactor.redact, onError: error => errors.push(error) })
  return Object.assign(log, { errors })
}

describe('the audit log', () => {
  test('has one line of JSON an event, in order, all of them on disk when it is closed', async () => {
    const file = join(directory, 'new', 'audit.jsonl')
    const log = open(file)
    const events = Array.from({ length: 500 }, (_, index) => ({ ...event, latency_ms: index }))
    for (const each of events) log.write(each)
    await log.close()
    expect(await written(file)).toEqual(events)
    expect(log.errors).toEqual([])
  })

  test('starts no line of its own in what a caller named', async () => {
    const file = join(directory, 'audit.jsonl')
    const log = open(file)
    const hostile = { ...event, server: 'a"}\n{"code":"OK"', tool: '\u2028\r\n\0' }
    log.write(hostile)
    await log.close()
    expect(await written(file)).toEqual([hostile])
  })

  test('continues the file that is there, and closes it to others', async () => {
    const file = join(directory, 'audit.jsonl')
    await writeFile(file, `${JSON.stringify(event)}\n`)
    await chmod(file, 0o644)
    const log = open(file)
    log.write({ ...event, code: 'TIMEOUT' })
    await log.close()
    expect((await written(file)).map(({ code }) => code)).toEqual(['OK', 'TIMEOUT'])
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  test('is readable by its owner alone from the start', async () => {
    const file = join(directory, 'audit.jsonl')
    const log = open(file)
    log.write(event)
    await log.close()
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  test('holds no secret, and stays JSON', async () => {
    const file = join(directory, 'audit.jsonl')
    const log = open(file, ['the "secret" key'])
    log.write({ ...event, tool: 'with the "secret" key' })
    await log.close()
    expect(await written(file)).toMatchObject([{ tool: 'with [redacted]' }])
  })
})

describe('a queue that is full', () => {
  // Nobody reads from it: it takes no line, and does not fail either.
  const openFull = () => {
    const file = join(directory, 'pipe')
    execFileSync('mkfifo', [file])
    const log = open(file)
    const drain = async () => {
      const read = text(createReadStream(file))
      await expect.poll(() => log.failure).toBeUndefined()
      return async () => {
        await log.close()
        return (await read)
          .trimEnd()
          .split('\n')
          .map(line => JSON.parse(line))
      }
    }
    return { log, drain }
  }
  const long = { ...event, code: 'FLOOD', rule: 'r'.repeat(10_000) }
  const flood = (log: ReturnType<typeof open>) => {
    for (let index = 0; index < 500; index++) log.write(long)
  }

  test('is a failure while it lasts, said once, and over by itself', async () => {
    const { log, drain } = openFull()
    for (let index = 0; index < 100; index++) log.write(long)
    expect(log.failure).toBeUndefined()
    flood(log)
    expect(log.failure?.message).toContain('wait to be written')
    flood(log)
    expect(log.errors).toEqual([log.failure])
    const close = await drain()
    flood(log)
    expect(log.errors).toHaveLength(2)
    await close()
  })

  test('keeps the lines that are owed, and counts those that it gives up', async () => {
    const { log, drain } = openFull()
    flood(log)
    for (let index = 0; index < 50; index++) {
      log.write({ ...event, code: `OWED-${index}` }, true)
      log.write(long)
    }
    const close = await drain()
    log.write({ ...event, code: 'LAST' })
    const lines = await close()
    expect(lines.filter(({ code }) => code.startsWith('OWED'))).toHaveLength(50)
    expect(log.dropped).toBeGreaterThan(0)
    expect(lines.reduce((sum, { lost = 0 }) => sum + lost, 0)).toBe(log.dropped)
    expect(lines.filter(({ code }) => code === 'FLOOD')).toHaveLength(550 - (log.dropped ?? 0))
  })
})

// In a process of its own: the end of the process is part of it.
describe('an audit log that cannot be written', () => {
  const script = `
    import { openAuditLog } from ${JSON.stringify(new URL('../../dist/observability/audit-log.js', import.meta.url).href)}
    const errors = []
    let report
    const reported = new Promise(resolve => { report = resolve })
    const onError = error => { errors.push(error.code); report() }
    const log = openAuditLog({ file: process.argv[1], redact: text => text, onError })
    log.write({ code: 'OK' })
    await reported
    for (let round = 0; round < 3; round++) {
      log.write({ code: 'OK' })
      await new Promise(setImmediate)
    }
    await log.close()
    console.log(JSON.stringify(errors))`
  const run = (file: string) =>
    promisify(execFile)(process.execPath, ['--input-type=module', '-e', script, file], { timeout: 10_000 })

  const places = ['a directory', ...(existsSync('/dev/full') ? ['/dev/full'] : [])]
  test.each(places)('is reported once and stops neither a call nor the end of the process: %s', async place => {
    const { stdout } = await run(place === 'a directory' ? directory : place)
    expect(JSON.parse(stdout)).toEqual([place === 'a directory' ? 'EISDIR' : 'ENOSPC'])
  })
})
