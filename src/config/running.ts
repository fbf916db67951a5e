import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { parseJson } from '../json.js'

const DIRECTORY = 'running'

const RunningGateway = z.object({
  pid: z.number().int().positive(),
  /** Where MCP is served, for whoever is on the same machine. */
  url: z.url(),
  /** Whom this user's tokens for it are made out to: this one process, so that they are of no use to whoever has its port later. */
  audience: z.string(),
  /** How others call it. */
  publicUrl: z.string(),
  servers: z.string(),
  rules: z.string(),
  version: z.string(),
  startedAt: z.string(),
})

/** A gateway that serves HTTP on this machine, for this user. */
export type RunningGateway = z.infer<typeof RunningGateway>

/** Lets other commands find this process. Resolves with a function that takes it back. */
export async function announceRunning(stateDirectory: string, gateway: RunningGateway): Promise<() => Promise<void>> {
  const directory = join(stateDirectory, DIRECTORY)
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const file = join(directory, `${gateway.pid}.json`)
  const draft = `${file}.draft`
  await writeFile(draft, JSON.stringify(gateway), { mode: 0o600 })
  await rename(draft, file) // never seen half
  return () => rm(file, { force: true })
}

/** The gateways that are running, the newest first. What those that died left behind is removed. */
export async function findRunning(stateDirectory: string): Promise<readonly RunningGateway[]> {
  const directory = join(stateDirectory, DIRECTORY)
  const names = await readdir(directory).catch(() => [])
  const found = await Promise.all(
    names.filter(name => name.endsWith('.json')).map(name => readRunning(join(directory, name))),
  )
  return found.flatMap(gateway => gateway ?? []).sort((a, b) => (a.startedAt < b.startedAt ? 1 : -1))
}

async function readRunning(file: string): Promise<RunningGateway | undefined> {
  const text = await readFile(file, 'utf8').catch(() => '')
  const parsed = RunningGateway.safeParse(parseJson(text)?.value)
  if (parsed.success && isAlive(parsed.data.pid)) return parsed.data
  await rm(file, { force: true })
  return undefined
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false // gone, or somebody else's by now
  }
}
