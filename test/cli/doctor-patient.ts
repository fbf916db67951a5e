import { once } from 'node:events'
import { createServer } from 'node:net'
import { onTestFinished } from 'vitest'
import { type DoctorOptions, openExamination } from '../../src/cli/doctor/examine.js'
import type { Finding } from '../../src/cli/doctor/section.js'
import { writeFiles } from '../fixtures/gateway.js'

export const RULES = { agents: { default: { allow: { servers: ['*'] } } }, defaults: { deny_on_missing_agent: false } }

type Files = Awaited<ReturnType<typeof writeFiles>>

export interface Patient {
  readonly files: Files
  /** Everything the doctor finds, in order. */
  examine(options?: Partial<DoctorOptions>): Promise<Findings>
}

/** What was found: all of it, and by subject. */
export interface Findings {
  readonly all: readonly Finding[]
  /** `check: status` of one subject, in order. */
  course(subject: string): string[]
  one(subject: string, check: string): Finding
  readonly isUsable: boolean
}

/** A machine with these servers and nothing else; gone when the test is over. */
export async function openPatient(servers: Record<string, unknown>, rules: Record<string, unknown> = RULES) {
  const files = await writeFiles({ servers, rules })
  onTestFinished(() => files.close())
  const examine = async ({ env, ...options }: Partial<DoctorOptions> = {}): Promise<Findings> => {
    const examination = await openExamination({
      cwd: files.directory,
      desktopPath: process.env.PATH,
      ...options,
      env: { ...files.env, MCP_SERVER_PORT: '0', ...env },
    })
    try {
      const sections = await Promise.all(examination.sections)
      return toFindings(
        sections.flatMap(({ findings }) => findings),
        examination.isUsable,
      )
    } finally {
      await examination.close()
    }
  }
  return { files, examine } satisfies Patient
}

export const toFindings = (all: readonly Finding[], isUsable = true): Findings => ({
  all,
  isUsable,
  course: subject =>
    all.filter(finding => finding.subject === subject).map(({ check, status }) => `${check}: ${status}`),
  one(subject, check) {
    const found = all.find(finding => finding.subject === subject && finding.check === check)
    if (!found) throw new Error(`nothing about ${subject} ${check} in ${JSON.stringify(all, null, 1)}`)
    return found
  },
})

/** A port that takes connections and says nothing. */
export async function openSilence(): Promise<number> {
  const server = createServer(socket => socket.on('error', () => {}))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}
