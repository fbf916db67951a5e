import { readdir, readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { messageOf } from '../errors/gateway-error.js'
import type { Logger } from '../observability/logger.js'
import { signalGroup } from './process-groups.js'
import { currentPlace, type FoundProcess, findProcess } from './process-identity.js'
import { parseRecord, type RecordContent } from './process-record.js'

const GRACE_MS = 1_500
const POLL_MS = 50
// Nothing can be known of gateways in another container, on another machine, or before the last boot; their records are kept this long.
const ELSEWHERE_MS = 7 * 24 * 60 * 60_000

/** Ends what gateways that were killed have left running, and removes their records. Never rejects. */
export async function endPredecessors(directory: string, logger: Logger): Promise<void> {
  const names = await readdir(directory).catch(() => [])
  const records = names.filter(name => /\.json(\.tmp)?$/.test(name)).map(name => join(directory, name))
  await Promise.all(
    records.map(file =>
      endPredecessor(file, logger).catch(error =>
        logger.warn({ file, reason: messageOf(error) }, 'cannot end what another gateway left'),
      ),
    ),
  )
}

async function endPredecessor(file: string, logger: Logger): Promise<void> {
  const record = parseRecord(await readFile(file, 'utf8').catch(() => ''))
  if (record?.place !== (await currentPlace())) {
    if (await isOld(file)) await rm(file, { force: true })
    return
  }
  if ((await findSame(record.gateway))?.isZombie === false) return
  await Promise.all(
    record.groups.map(async group => {
      if (!(await findSame(group))) return
      logger.warn({ server: group.server, pid: group.pid }, 'ending a server that a killed gateway left running')
      await endGroup(group.pid)
    }),
  )
  await rm(file, { force: true })
}

/** The process of this number, if it is not a later one. */
async function findSame({ pid, startTime }: RecordContent['gateway']): Promise<FoundProcess | undefined> {
  const found = await findProcess(pid)
  return found?.startTime === startTime ? found : undefined
}

async function endGroup(pid: number): Promise<void> {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    if (!signalGroup(pid, signal)) return
    // They are nobody's children, so nobody is told when they end.
    for (const end = performance.now() + GRACE_MS; signalGroup(pid, 0) && performance.now() < end; ) await wait(POLL_MS)
  }
}

async function isOld(file: string): Promise<boolean> {
  const found = await stat(file).catch(() => undefined)
  return found !== undefined && Date.now() - found.mtimeMs > ELSEWHERE_MS
}
