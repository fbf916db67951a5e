import { messageOf } from '../../errors/gateway-error.js'

export type Status = 'ok' | 'warning' | 'failed' | 'skipped'

/** What one check found; one that found something wrong says what to do. */
export interface Finding {
  readonly subject: string
  readonly check: string
  readonly status: Status
  readonly found: string
  readonly advice?: string
}

/** The findings about one subject, in the order of the checks. */
export interface Section {
  readonly subject: string
  readonly findings: readonly Finding[]
  ok(check: string, found: string): void
  warning(check: string, found: string, advice: string): void
  failed(check: string, found: string, advice: string): void
  skipped(check: string, why: string): void
  /** Those of the checks that nothing was found about yet. */
  skipRest(checks: readonly string[], why: string): void
  add(finding: Omit<Finding, 'subject'>): void
}

/** `redact` takes secrets out of what is found. */
export function openSection(subject: string, redact: (text: string) => string = text => text): Section {
  const findings: Finding[] = []
  const add = ({ check, status, found, advice }: Omit<Finding, 'subject'>): void => {
    const told = { subject, check, status, found: redact(found) }
    findings.push(advice === undefined ? told : { ...told, advice: redact(advice) })
  }
  const skipped = (check: string, why: string) => add({ check, status: 'skipped', found: why })
  return {
    subject,
    findings,
    add,
    skipped,
    ok: (check, found) => add({ check, status: 'ok', found }),
    warning: (check, found, advice) => add({ check, status: 'warning', found, advice }),
    failed: (check, found, advice) => add({ check, status: 'failed', found, advice }),
    skipRest(checks, why) {
      for (const check of checks) if (!findings.some(finding => finding.check === check)) skipped(check, why)
    },
  }
}

/** Fills a section. A mistake in a check is a finding, too, and not the end of all others. */
export async function examining(section: Section, examine: (section: Section) => Promise<void>): Promise<Section> {
  await examine(section).catch(error =>
    section.failed(
      'doctor',
      `this check broke: ${messageOf(error)}`,
      'this is a mistake in the gateway: please report it',
    ),
  )
  return section
}
