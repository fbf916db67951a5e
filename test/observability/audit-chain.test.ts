import { fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFile,
  copyFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hashOf } from '../../src/observability/audit-chain.js'
import { type AuditEvent, openAuditLog } from '../../src/observability/audit-log.js'
import { verifyAuditLog } from '../../src/observability/audit-verify.js'
import { gateway } from '../fixtures/cli.js'

let directory: string
let file: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gateway-chain-'))
  file = join(directory, 'audit.jsonl')
})
afterEach(() => rm(directory, { recursive: true, force: true }))

const event: AuditEvent = {
  time: '2026-01-01T00:00:00.000Z',
  principal: 'local:me',
  agent: 'reader',
  operation: 'execute_tool',
  server: 'shop',
  tool: 'query',
  decision: 'allow',
  rule: null,
  code: 'OK',
  latency_ms: 1,
}

/** Writes as a gateway does that starts, serves some calls and ends. */
async function write(count: number, options: { maxBytes?: number; label?: string } = {}) {
  const running = openRunning(options.maxBytes)
  await running.write(count, options.label)
  await running.close()
}

/** A gateway that goes on after it has written. */
function openRunning(maxBytes?: number) {
  const errors: Error[] = []
  const log = openAuditLog({ file, redact: text => text, onError: error => errors.push(error), maxBytes })
  return {
    async write(count: number, label = 'OK') {
      for (let index = 0; index < count; index++) log.write({ ...event, code: `${label}-${index}` })
      await expect.poll(() => readFile(file, 'utf8').catch(() => '')).toContain(`"${label}-${count - 1}"`)
    },
    async close() {
      await log.close()
      expect(errors).toEqual([])
    },
  }
}

const lines = async (of = file) => (await readFile(of, 'utf8')).trimEnd().split('\n')
const edit = async (change: (lines: string[]) => string[], of = file) =>
  writeFile(of, `${change(await lines(of)).join('\n')}\n`)
/** A copy that is looked at alone, as somebody else would who was given it. */
async function copied(): Promise<string> {
  const copy = join(directory, 'copy.jsonl')
  await copyFile(file, copy)
  return copy
}

describe('the chain', () => {
  test('begins every line with the fields of the contract, and names the line before it', async () => {
    await write(3)
    const all = await lines()
    expect(Object.keys(JSON.parse(all[0] ?? ''))).toEqual([...Object.keys(event), 'seq', 'prev'])
    expect(all.map(line => JSON.parse(line).seq)).toEqual([1, 2, 3])
    expect(all.map(line => JSON.parse(line).prev)).toEqual([null, hashOf(all[0] ?? ''), hashOf(all[1] ?? '')])
    expect(await verifyAuditLog(file)).toMatchObject({
      ok: true,
      lines: 3,
      last: { seq: 3, hash: hashOf(all[2] ?? '') },
    })
  })

  test('goes on after a restart', async () => {
    for (const label of ['a', 'b', 'c']) await write(5, { label })
    expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 15, last: { seq: 15 } })
  })

  test('goes on from lines that have none', async () => {
    await writeFile(file, `${JSON.stringify(event)}\n${JSON.stringify(event)}\n`)
    await write(2)
    expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 4, unchained: 2, last: { seq: 2 } })
    await edit(([first = '', second = '', ...rest]) => [first, second.replace('shop', 'bank'), ...rest])
    expect(await verifyAuditLog(file)).toMatchObject({ ok: false, problem: { line: 2, kind: 'changed' } })
  })

  test('goes on in the next file when one is full, and older files go in the end', async () => {
    for (let run = 0; run < 30; run++) await write(5, { maxBytes: 2_000, label: `run${run}` })
    const files = (await readdir(directory)).filter(name => /^audit\.jsonl(\.\d+)?$/.test(name))
    expect(files).toHaveLength(11)
    const verdict = await verifyAuditLog(file)
    expect(verdict).toMatchObject({ ok: true, last: { seq: 150 } })
    expect(verdict.missing_up_to).toBe(150 - verdict.lines)
    const [first = ''] = await lines()
    expect(JSON.parse(first)).toMatchObject({ continues: true, prev: hashOf((await lines(`${file}.1`)).at(-1) ?? '') })
    // Each is good for itself, with what is older.
    expect(await verifyAuditLog(`${file}.4`)).toMatchObject({ ok: true })
    await edit(all => [...all.slice(0, -1), (all.at(-1) ?? '').replace('shop', 'bank')], `${file}.3`)
    const found = (await verifyAuditLog(file)).problem
    expect(found).toMatchObject({ file: `${file}.3`, line: (await lines(`${file}.3`)).length, kind: 'changed' })
    await rm(`${file}.3`)
    expect((await verifyAuditLog(file)).problem).toMatchObject({ file: `${file}.2`, line: 1, kind: 'removed' })
  })

  test('is one chain for several gateways that write at the same time, and rotate', async () => {
    const script = `
      import { openAuditLog } from ${JSON.stringify(new URL('../../dist/observability/audit-log.js', import.meta.url).href)}
      const [, file, label] = process.argv
      const log = openAuditLog({ file, redact: text => text, maxBytes: 40_000, onError: error => { console.error(error); process.exitCode = 1 } })
      for (let round = 0; round < 40; round++) {
        for (let index = 0; index < 5; index++) log.write({ operation: 'x', label, round, index })
        await new Promise(resolve => setTimeout(resolve, Math.random() * 12))
      }
      await log.close()`
    const run = (label: string) =>
      new Promise<number | null>(resolve => {
        const child = fork('/dev/null', [], { execArgv: ['--input-type=module', '-e', script, file, label] })
        child.on('exit', resolve)
      })
    expect(await Promise.all(['a', 'b', 'c', 'd'].map(run))).toEqual([0, 0, 0, 0])
    expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 800, last: { seq: 800 } })
  })
})

test('processes that are killed while they write leave a chain that goes on', async () => {
  const script = `
    import { openAuditLog } from ${JSON.stringify(new URL('../../dist/observability/audit-log.js', import.meta.url).href)}
    const [, file] = process.argv
    const log = openAuditLog({ file, redact: text => text, maxBytes: 40_000, onError: () => {} })
    setInterval(() => { for (let index = 0; index < 50; index++) log.write({ operation: 'x', pad: 'p'.repeat(200) }) }, 1)
    process.send('ready')`
  for (let round = 0; round < 4; round++) {
    const children = [0, 1].map(() => fork('/dev/null', [], { execArgv: ['--input-type=module', '-e', script, file] }))
    await Promise.all(children.map(child => once(child, 'message')))
    await new Promise(resolve => setTimeout(resolve, 100 + Math.random() * 60))
    const ended = Promise.all(children.map(child => once(child, 'exit')))
    for (const child of children) child.kill('SIGKILL')
    await ended
  }
  await write(1)
  const verdict = await verifyAuditLog(file)
  expect(verdict.problem).toBeUndefined()
  expect(verdict.last?.seq).toBeGreaterThan(1_000)
})

describe('what is found', () => {
  beforeEach(() => write(9))

  test.each<[what: string, change: (lines: string[]) => string[], line: number, kind: string]>([
    ['a changed line', all => all.with(3, (all[3] ?? '').replace('shop', 'bank')), 4, 'changed'],
    ['a changed first line', all => all.with(0, (all[0] ?? '').replace('shop', 'bank')), 1, 'changed'],
    ['a changed last line', all => all.with(8, (all[8] ?? '').replace('shop', 'bank')), 9, 'changed'],
    [
      'another hash in a line',
      all => all.with(3, (all[3] ?? '').replace(/"prev":"..../, '"prev":"AAAA')),
      4,
      'changed',
    ],
    ['another number in a line', all => all.with(3, (all[3] ?? '').replace('"seq":4', '"seq":14')), 4, 'changed'],
    ['a line that is none', all => all.with(3, 'nonsense'), 4, 'changed'],
    ['a line without a place', all => all.with(3, JSON.stringify(event)), 4, 'changed'],
    ['a removed line', all => all.toSpliced(3, 1), 4, 'removed'],
    ['several removed lines', all => all.toSpliced(3, 4), 4, 'removed'],
    ['a removed first line', all => all.slice(1), 1, 'removed'],
    ['a removed last line', all => all.slice(0, -1), 9, 'truncated'],
    ['lines that have changed places', all => all.with(3, all[4] ?? '').with(4, all[3] ?? ''), 4, 'reordered'],
    ['a line that was moved to the end', all => [...all.toSpliced(3, 1), all[3] ?? ''], 4, 'reordered'],
    ['a line that is there twice', all => all.toSpliced(3, 0, all[3] ?? ''), 5, 'reordered'],
    ['an invented line', all => all.toSpliced(3, 0, (all[3] ?? '').replace('shop', 'bank')), 5, 'reordered'],
    ['an empty line', all => all.toSpliced(3, 0, ''), 4, 'changed'],
  ])('%s', async (_, change, line, kind) => {
    await edit(change)
    const { ok, problem } = await verifyAuditLog(file)
    expect([ok, problem?.line, problem?.kind]).toEqual([false, line, kind])
    const { status, stdout } = await gateway(['audit', 'verify', file], { cwd: directory, env: {} })
    expect([status, stdout]).toEqual([1, expect.stringContaining(`${file}:${line}: ${kind}: `)])
  })

  test('stays found when gateways go on writing', async () => {
    for (const change of [
      (all: string[]) => all.slice(0, -2),
      (all: string[]) => all.with(8, (all[8] ?? '').replace('shop', 'bank')),
    ]) {
      await edit(change)
      await write(3)
      expect(await verifyAuditLog(file)).toMatchObject({ ok: false })
      await rm(directory, { recursive: true })
      await write(9)
    }
  })

  test('half a line at the end is no more than that, and the next gateway takes it away', async () => {
    await appendFile(file, (await lines())[4]?.slice(0, 40) ?? '')
    expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 9, incomplete: { line: 10 } })
    const { status, stdout } = await gateway(['audit', 'verify', file, '--json'], { cwd: directory, env: {} })
    expect([status, JSON.parse(stdout)]).toMatchObject([0, { ok: true, incomplete: { file, line: 10 } }])
    await write(2)
    expect(await verifyAuditLog(file)).toEqual(expect.objectContaining({ ok: true, lines: 11 }))
  })

  test('a log that was cut off in the middle of a line has lost what it had before', async () => {
    await truncate(file, (await readFile(file)).length - 20)
    expect(await verifyAuditLog(file)).toMatchObject({
      ok: false,
      incomplete: { line: 9 },
      problem: { line: 9, kind: 'truncated' },
    })
  })

  test('a copy is checked without what is kept beside the log', async () => {
    expect(await verifyAuditLog(await copied())).toMatchObject({ ok: true, lines: 9 })
    await edit(all => all.slice(1))
    expect((await verifyAuditLog(await copied())).problem).toMatchObject({ line: 1, kind: 'removed' })
  })

  test('a log that is not there', async () => {
    const missing = join(directory, 'none.jsonl')
    const { status, stderr } = await gateway(['audit', 'verify', missing], { cwd: directory, env: {} })
    expect([status, stderr]).toEqual([1, `there is no audit log at ${missing}\n`])
  })

  test('without a file it is the log of this user', async () => {
    await copyFile(file, join(directory, 'mine.jsonl'))
    const env = { GATEWAY_AUDIT_LOG: join(directory, 'mine.jsonl') }
    const { status, stdout } = await gateway(['audit', 'verify'], { cwd: directory, env })
    expect([status, stdout]).toEqual([0, expect.stringMatching(/^ok: 9 lines in .*mine\.jsonl\nlast: 9 \S{43}\n$/)])
  })
})

describe('lines that are gone', () => {
  const REMOVED = { ok: false, problem: { kind: 'removed', line: 1 } }
  const verify = (of = file) => gateway(['audit', 'verify', of], { cwd: directory, env: {} })
  const older = (number: number) => `${file}.${number}`

  test.each<[how: string, remove: () => Promise<void>]>([
    ['emptied', () => truncate(file, 0)],
    ['removed', () => rm(file)],
    ['taken away by somebody else', () => rename(file, join(directory, 'collected.jsonl'))],
  ])('of a whole log that was %s are missed, whoever goes on', async (_, remove) => {
    const [one, other] = [openRunning(), openRunning()]
    await one.write(6, 'one')
    await remove()
    expect(await verify()).toMatchObject({ status: 1, stdout: expect.stringContaining(`${file}:1: truncated: `) })
    await one.write(1, 'again')
    const missing = `${file}:1: removed: this line has the number 7: lines 1 to 6 are missing before it\n`
    expect(await verify()).toEqual({ status: 1, stdout: missing, stderr: '' })
    await other.write(1, 'other')
    await Promise.all([one.close(), other.close()])
    await remove()
    await write(1)
    expect((await verifyAuditLog(file)).problem).toMatchObject({ ...REMOVED.problem, file })
  })

  test('of older files are missed, unless they went because so many are kept', async () => {
    const fill = async (runs: number) => {
      for (let run = 0; run < runs; run++) await write(5, { maxBytes: 2_000, label: `run${run}` })
    }
    await fill(30)
    const { ok, missing_up_to: missing = 0 } = await verifyAuditLog(file)
    expect([ok, missing]).toEqual([true, expect.toSatisfy(number => number > 5)])
    expect((await verify()).stdout).toContain(`note: lines 1 to ${missing} `)

    await rm(older(10))
    expect(await verifyAuditLog(file)).toMatchObject({ ok: false, problem: { ...REMOVED.problem, file: older(9) } })
    await rename(older(9), older(10))
    expect(await verifyAuditLog(file)).toMatchObject({ ok: false, problem: { ...REMOVED.problem, file: older(10) } })
    await fill(1)
    expect(await verifyAuditLog(file)).toMatchObject(REMOVED)
    for (let number = 1; number <= 10; number++) await rm(older(number), { force: true })
    expect(await verifyAuditLog(file)).toMatchObject({ ok: false, problem: { ...REMOVED.problem, file } })
  })

  test('of older files are missed in a copy as well, which must have all of them', async () => {
    for (let run = 0; run < 30; run++) await write(5, { maxBytes: 2_000 })
    const copy = join(directory, 'copy')
    await mkdir(copy)
    for (const name of await readdir(directory))
      if (/jsonl(\.\d+)?$/.test(name)) await copyFile(join(directory, name), join(copy, name))
    const there = join(copy, 'audit.jsonl')
    expect(await verifyAuditLog(there)).toMatchObject({ ok: true, last: { seq: 150 } })
    expect(await verifyAuditLog(`${there}.4`)).toMatchObject({ ok: true })
    await rm(`${there}.10`)
    expect(await verifyAuditLog(there)).toMatchObject(REMOVED)
    await rename(`${there}.9`, `${there}.10`)
    expect(await verifyAuditLog(there)).toMatchObject(REMOVED)
  })

  test('do not include those of a gateway that ended after it had moved its file', async () => {
    const [one, other] = [openRunning(), openRunning()]
    await one.write(3, 'one')
    await other.write(3, 'other')
    await rename(file, older(1))
    expect(await verify()).toMatchObject({ status: 0, stdout: expect.stringContaining('ok: 6 lines') })
    await one.write(2, 'next')
    await other.write(2, 'last')
    await Promise.all([one.close(), other.close()])
    expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 10, last: { seq: 10 } })
    expect((await lines()).map(line => JSON.parse(line).continues)).toEqual([true, undefined, undefined, undefined])
  })
})

test('a lock that a dead process has left holds nobody up', async () => {
  const { pid } = spawnSync(process.execPath, ['-e', ''])
  const counter = `${hostname()} ${await readlink('/proc/self/ns/pid').catch(() => '')}`.trim()
  await symlink(`${pid} ${counter}`, `${file}.lock`)
  await write(1)
  expect(await verifyAuditLog(file)).toMatchObject({ ok: true, lines: 1 })
})
