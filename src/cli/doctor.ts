import { styleText } from 'node:util'
import type { ConfigFlags } from './config-flags.js'
import { openExamination } from './doctor/examine.js'
import { desktopPath } from './doctor/programs.js'
import type { Finding, Section, Status } from './doctor/section.js'
import { oneLine, printJson, progress, visible } from './output.js'
import { firstSignal } from './shutdown.js'

const CONFIGURATION_IS_WRONG = 78
const INTERRUPTED = 1

/** Looks at everything that logins and calls depend on, and says what to do. Exits 1 when a check failed, 78 for the configuration. */
export async function doctor(
  name: string | undefined,
  { json = false, ...flags }: ConfigFlags & { readonly json?: boolean },
): Promise<number> {
  const machine = { env: process.env, cwd: process.cwd(), desktopPath: desktopPath() }
  const stopped = firstSignal()
  const examination = await openExamination({ ...flags, ...machine, name })
  try {
    if (examination.servers > 0) progress(`looking at ${examination.servers} servers`)
    const findings: Finding[] = []
    const style = json ? undefined : styleFor(process.stdout, process.env)
    for (const pending of examination.sections) {
      const section = await Promise.race([pending, stopped])
      if (typeof section === 'string') return INTERRUPTED
      findings.push(...section.findings)
      if (style) write(section, style)
    }
    if (json) printJson({ checks: findings })
    else process.stdout.write(`${summaryOf(findings)}\n`)
    if (!examination.isUsable) return CONFIGURATION_IS_WRONG
    return findings.some(({ status }) => status === 'failed') ? 1 : 0
  } finally {
    await examination.close()
  }
}

/** How marks are written. */
export type Style = (status: Status, text: string) => string

const COLOURS = { ok: 'green', warning: 'yellow', failed: 'red', skipped: 'gray' } as const

/** Colours for a terminal that may have them (https://no-color.org), else none. */
export function styleFor(
  { isTTY }: { readonly isTTY?: boolean },
  env: Readonly<Record<string, string | undefined>>,
): Style {
  const isPlain = !isTTY || Boolean(env.NO_COLOR) || env.TERM === 'dumb'
  return isPlain ? (_, text) => text : (status, text) => styleText(COLOURS[status], text, { validateStream: false })
}

const MARK_WIDTH = 'warning'.length

/** One line a check, in columns; below it what to do. What servers say cannot leave its line. */
export function linesOf({ subject, findings }: Section, style: Style): string[] {
  const width = Math.max(...findings.map(({ check }) => check.length))
  const indent = ' '.repeat(2 + MARK_WIDTH + 2)
  const lines = findings.flatMap(({ check, status, found, advice }) => {
    const mark = style(status, status.padEnd(MARK_WIDTH))
    const line = `  ${mark}  ${visible(`${check.padEnd(width)}  ${oneLine(found, 2_000)}`)}`
    return advice === undefined ? [line] : [line, `${indent}→ ${visible(oneLine(advice, 2_000))}`]
  })
  return [visible(subject), ...lines, '']
}

const write = (section: Section, style: Style): void =>
  void process.stdout.write(`${linesOf(section, style).join('\n')}\n`)

function summaryOf(findings: readonly Finding[]): string {
  const count = (wanted: Status) => findings.filter(({ status }) => status === wanted).length
  return `${findings.length} checks: ${count('failed')} failed, ${count('warning')} warnings, ${count('skipped')} skipped`
}
