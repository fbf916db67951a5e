import { readlinkSync } from 'node:fs'
import { link, lstat, readFile, readlink, rename, symlink, unlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setTimeout as wait } from 'node:timers/promises'

// A turn is a few writes. Whoever needs this long is not alive, or not any more when it comes back.
const STALE_MS = 10_000
// Its number may be somebody else's by now, or it is stopped.
const STALE_THOUGH_ALIVE_MS = 60_000
const DEADLINE_MS = 15_000

/** No lock can be made there, by anybody: whoever writes is alone, or has been told to be. */
export const isUnlockable = (error: unknown): boolean => ['EACCES', 'EPERM', 'EROFS', 'ENOTSUP'].includes(codeOf(error))

export const codeOf = (error: unknown): string => (error instanceof Error && 'code' in error ? String(error.code) : '')

/**
 * Runs `work` while no other process does so for the same file. Much lighter than the lock of the credentials, because nothing is
 * lost with it but the order of lines. That of a process that has ended is taken over at once.
 */
export async function inTurn<T>(file: string, work: () => Promise<T>): Promise<T> {
  const path = `${file}.lock`
  await take(path)
  try {
    return await work()
  } finally {
    await unlink(path).catch(() => {})
  }
}

async function take(path: string): Promise<void> {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    try {
      return await make(path, `${process.pid} ${counter}`)
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      if (await removeIfStale(path)) continue
      if (Date.now() > deadline) throw error
      await wait(2 + Math.random() * 8)
    }
  }
}

// A link is there with all it says in one step; where links are not for everybody, a file does.
const usesLinks = process.platform !== 'win32'
const make = (path: string, holder: string): Promise<void> =>
  usesLinks ? symlink(holder, path) : writeFile(path, holder, { flag: 'wx', mode: 0o600 })
const holderOf = (path: string): Promise<string> => (usesLinks ? readlink(path) : readFile(path, 'utf8'))

async function removeIfStale(path: string): Promise<boolean> {
  const held = await holderOf(path).catch(error => (codeOf(error) === 'ENOENT' ? undefined : ''))
  if (held === undefined) return true
  if (!(await isStale(path, held))) return false
  const aside = `${path}.${process.pid}`
  try {
    await rename(path, aside)
    // Somebody was faster, and this one is new: it goes back.
    if ((await holderOf(aside).catch(() => '')) !== held) await link(aside, path)
    await unlink(aside)
  } catch {
    // Somebody else is at it.
  }
  return true
}

async function isStale(path: string, held: string): Promise<boolean> {
  const [pid = '', its = ''] = held.split(/ (.*)/)
  const isOurs = its === counter && pid !== String(process.pid)
  if (isOurs && !isAlive(Number(pid))) return true
  const { mtimeMs } = await lstat(path).catch(() => ({ mtimeMs: Date.now() }))
  return Date.now() - mtimeMs > (isOurs ? STALE_THOUGH_ALIVE_MS : STALE_MS)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return codeOf(error) === 'EPERM'
  }
}

const counter = whoCounts()

/** Whose process numbers they are: containers that share a directory count on their own. */
function whoCounts(): string {
  try {
    return `${hostname()} ${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    return hostname()
  }
}
