import { execFile } from 'node:child_process'
import { readFile, readlink } from 'node:fs/promises'
import { hostname } from 'node:os'
import { promisify } from 'node:util'

export interface FoundProcess {
  /** In the words of the system. With its number it names one process. */
  readonly startTime: string
  /** It has ended, and its parent has not asked how. */
  readonly isZombie: boolean
}

export async function findProcess(pid: number): Promise<FoundProcess | undefined> {
  try {
    if (process.platform === 'linux') {
      const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
      // proc(5): fields 3 and 22, counted behind the name, which may hold anything.
      const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return { startTime: fields[19] ?? '', isZombie: fields[0] === 'Z' }
    }
    const env = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' }
    const { stdout } = await promisify(execFile)('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { env })
    const [, state = '', startTime = ''] = /^\s*(\S+)\s+(.*\S)/.exec(stdout) ?? []
    return { startTime, isZombie: state.startsWith('Z') }
  } catch {
    return undefined
  }
}

/** Where process numbers mean what they mean here: this boot of this machine, and this container. */
export async function currentPlace(): Promise<string> {
  if (process.platform !== 'linux') return hostname()
  const [boot, namespace] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    readlink('/proc/self/ns/pid'),
  ])
  return `${boot.trim()} ${namespace}`
}
