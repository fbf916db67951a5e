import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { stateDirectory } from '../config/locate.js'
import { GatewayError } from '../errors/gateway-error.js'
import { headOf } from '../observability/audit-head.js'
import { verifyAuditLog } from '../observability/audit-verify.js'
import { print, printJson } from './output.js'

export async function verifyAudit(given: string | undefined, { json }: { readonly json?: boolean }): Promise<number> {
  const { env } = process
  const file = resolve(given ?? (env.GATEWAY_AUDIT_LOG || join(stateDirectory(env), 'audit.jsonl')))
  if (!existsSync(file) && !existsSync(headOf(file)))
    throw new GatewayError('INVALID_ARGUMENTS', `there is no audit log at ${file}`)
  const verdict = await verifyAuditLog(file)
  if (json) {
    printJson(verdict)
    return verdict.ok ? 0 : 1
  }
  const { problem, files, lines, last, unchained, incomplete, missing_up_to: missing } = verdict
  if (problem) print(`${problem.file}:${problem.line}: ${problem.kind}: this line ${problem.message}`)
  else print(`ok: ${lines} lines in ${files.length === 1 ? file : `${files.length} files`}`)
  if (last && !problem) print(`last: ${last.seq} ${last.hash}`)
  if (unchained > 0)
    print(`note: the first ${unchained} lines are from before lines were chained, and cannot be checked`)
  if (missing !== undefined) print(`note: lines 1 to ${missing} went with older files than are kept`)
  if (incomplete) {
    print(`note: ${incomplete.file}:${incomplete.line} is half a line, being written or left by a crash`)
  }
  return problem ? 1 : 0
}
