import { randomUUID } from 'node:crypto'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { messageOf } from '../errors/gateway-error.js'
import { parseJson } from '../json.js'
import type { Logger } from '../observability/logger.js'
import { ownGroups } from './process-groups.js'
import { currentPlace, findProcess } from './process-identity.js'

const Process = z.object({ pid: z.int().min(2), startTime: z.string() })
const Content = z.object({
  place: z.string(),
  gateway: Process,
  groups: z.array(Process.extend({ server: z.string(), command: z.string() })),
})

/** What a gateway has running: itself, and the groups it started. */
export type RecordContent = Readonly<z.infer<typeof Content>>

export interface ProcessRecord {
  /** Resolves when what has changed is on disk; nothing is left of the record when nothing runs any more. */
  close(): Promise<void>
}

/** The record in this text; undefined for anything else. */
export const parseRecord = (text: string): RecordContent | undefined => Content.safeParse(parseJson(text)?.value).data

/**
 * Keeps on disk which process groups this process has running, for the next gateway in case this one is killed together with its
 * watchdog. Nobody waits for it.
 */
export function openProcessRecord(directory: string, logger: Logger): ProcessRecord {
  if (process.platform === 'win32') return { async close() {} } // nothing to end there, as with the watchdog
  // A number alone is taken by another gateway in each container that has the directory.
  const file = join(directory, `${process.pid}-${randomUUID()}.json`)
  let writing = Promise.resolve()
  let isQueued = false
  const unsubscribe = ownGroups.onChange(() => {
    if (isQueued) return
    isQueued = true
    writing = writing.then(async () => {
      isQueued = false
      await replace(directory, file).catch(error =>
        logger.warn({ file, reason: messageOf(error) }, 'cannot record which processes run'),
      )
    })
  })
  return {
    async close() {
      unsubscribe()
      await writing
    },
  }
}

async function replace(directory: string, file: string): Promise<void> {
  const [place, gateway, groups] = await Promise.all([
    currentPlace(),
    identified([{ pid: process.pid }]),
    identified(ownGroups.all),
  ])
  if (!gateway[0] || groups.length === 0) return rm(file, { force: true })
  const content: RecordContent = { place, gateway: gateway[0], groups }
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const temporary = `${file}.tmp`
  await writeFile(temporary, `${JSON.stringify(content, null, 2)}\n`, { mode: 0o600 })
  await rename(temporary, file)
}

/** Those that are there still, with what tells them from a later process of the same number. */
async function identified<P extends { readonly pid: number }>(processes: readonly P[]) {
  const found = await Promise.all(processes.map(async each => ({ each, found: await findProcess(each.pid) })))
  return found.flatMap(({ each, found }) => (found ? [{ ...each, startTime: found.startTime }] : []))
}
