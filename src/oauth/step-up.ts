import type { LoginRecord } from './login-record.js'
import { unionOf } from './scopes.js'

// With the first login that makes three authorizations for what a server still refuses.
const MAX_ATTEMPTS = 2
// Whoever changes consents or roles gets another chance.
const FORGET_MS = 60 * 60_000
// A server that wants something else every time wants too much.
const MAX_STEP_UPS = 10

type StepUp = LoginRecord['stepUps'][number]

/** Scopes that requests were refused for, and that another authorization may get (MCP authorization, "Step-Up Authorization Flow"). */
export const wantedByStepUps = ({ stepUps }: LoginRecord, now = Date.now()): string[] =>
  unionOf(...stepUps.filter(stepUp => isRecent(stepUp, now)).map(({ scopes }) => scopes))

/**
 * Notes that a request was refused for want of `scopes`. Undefined when they have been asked for often enough: then another
 * authorization would lead nowhere.
 */
export function noteStepUp(
  { stepUps }: LoginRecord,
  scopes: readonly string[],
  now = Date.now(),
): LoginRecord['stepUps'] | undefined {
  const recent = stepUps.filter(stepUp => isRecent(stepUp, now))
  const same = recent.find(stepUp => keyOf(stepUp.scopes) === keyOf(scopes))
  if (same) return same.attempts < MAX_ATTEMPTS ? recent : undefined
  return recent.length < MAX_STEP_UPS ? [...recent, { scopes: [...scopes], attempts: 0, at: now }] : undefined
}

/** Counts an authorization for the scopes it asked for. */
export const countStepUps = ({ stepUps }: LoginRecord, requested: readonly string[]): LoginRecord['stepUps'] =>
  stepUps.map(stepUp =>
    stepUp.scopes.every(scope => requested.includes(scope)) ? { ...stepUp, attempts: stepUp.attempts + 1 } : stepUp,
  )

const isRecent = ({ at }: StepUp, now: number): boolean => now - at < FORGET_MS

const keyOf = (scopes: readonly string[]): string => [...scopes].sort().join(' ')
