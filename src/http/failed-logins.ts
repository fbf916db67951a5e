import type { Principal } from '../identity/principal.js'
import { type AuditLog, whoOf } from '../observability/audit-log.js'
import { createMinuteCounts, type MinuteCounts } from '../observability/minute-counts.js'

/** Lines a minute: of one address, and of all. A flood must not fill the disk. */
const LINES = { each: 10, all: 120 }
const ALL = 'all'

export interface FailedLogin {
  readonly address: string
  /** As in the audit log; never anything of the token. */
  readonly code: 'NO_TOKEN' | 'INVALID_REQUEST' | 'INVALID_TOKEN' | 'RATE_LIMITED' | 'ISSUER_UNAVAILABLE'
}

/** The audit line of somebody who names the session of somebody else. */
export const logStranger = (audit: AuditLog, principal: Principal): void =>
  audit.write({
    time: new Date().toISOString(),
    ...whoOf(principal),
    agent: null,
    operation: 'session',
    server: null,
    tool: null,
    decision: 'deny',
    rule: null,
    code: 'DENIED_BY_POLICY',
    latency_ms: 0,
  })

/** Writes what failed to authenticate to the audit log; of many alike only the first, and how many were left out. */
export function createFailedLoginLog(
  audit: AuditLog,
  counts: MinuteCounts = createMinuteCounts(),
): (failure: FailedLogin) => Promise<void> {
  let suppressed = 0
  return async ({ address, code }) => {
    const { count: own } = await counts.add(`address ${address}`)
    if (own > LINES.each || (await counts.add(ALL)).count > LINES.all) {
      suppressed++
      return
    }
    const before = suppressed
    suppressed = 0
    audit.write({
      time: new Date().toISOString(),
      principal: 'anonymous',
      agent: null,
      operation: 'authenticate',
      server: null,
      tool: null,
      decision: 'deny',
      rule: null,
      code,
      latency_ms: 0,
      address,
      ...(before > 0 && { suppressed: before }),
    })
  }
}
