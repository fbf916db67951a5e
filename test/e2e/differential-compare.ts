import type { Heard } from './differential-script.js'

/** Something that is random or tells the time: a part of a text that is no part of the comparison. */
export interface Noise {
  readonly name: string
  readonly steps: readonly string[]
  /** The texts it is looked for in, by their path. */
  readonly path: string
  readonly clean: (text: string) => string
}

/** Which server, by which door, and the eras on both sides. */
export interface Where {
  readonly world?: string
  readonly client?: string
  readonly front?: string
  /** Of the server. */
  readonly era?: string
}

/** A difference that is meant to be. */
export interface Rule {
  /** The runs that it is for: all with these. */
  readonly in: Where
  /** Steps by name; `*` for all. */
  readonly steps: readonly string[] | '*'
  /** Where in the step, with `*` for one segment and `**` at the end for everything below. */
  readonly path: string
  readonly why: string
  /** A race of the server's own decides whether it is met; why. Any other rule has to be. */
  readonly sometimes?: string
  /** What the gateway's side has to be; `direct` is the other. */
  readonly holds?: (via: unknown, direct: unknown) => boolean
}

export interface Difference {
  readonly step: string
  readonly path: string
  readonly direct: unknown
  readonly via: unknown
}

type Run = ReadonlyMap<string, Heard>

/** Every place where two runs differ, as deep as it can be named. */
export function differences(direct: Run, via: Run): Difference[] {
  // What one of them left out is not compared: the script says which and why.
  const steps = [...via.keys()].filter(step => direct.has(step))
  return steps.flatMap(step =>
    differencesIn(direct.get(step), via.get(step), []).map(difference => ({ step, ...difference })),
  )
}

/** The differences that no rule is for; notes which rules were. */
export function unruly(found: readonly Difference[], run: Where, rules: readonly Rule[], used: Set<Rule>) {
  return found.filter(({ step, path, direct, via }) => {
    const allowing = rules.find(
      rule =>
        isIn(run, rule.in) &&
        (rule.steps === '*' || rule.steps.includes(step)) &&
        isUnder(rule.path, path) &&
        (rule.holds?.(via, direct) ?? true),
    )
    if (allowing) used.add(allowing)
    return !allowing
  })
}

/** The run without its noise; notes what of it there was. */
export function withoutNoise(run: Run, noises: readonly Noise[], met: Set<Noise> = new Set()): Map<string, Heard> {
  const clean = (step: string, value: unknown, path: readonly string[]): unknown => {
    if (typeof value === 'string') {
      let text = value
      for (const noise of noises) {
        if (!noise.steps.includes(step) || !isUnder(noise.path, path.join('.'))) continue
        const cleaned = noise.clean(text)
        if (cleaned !== text) met.add(noise)
        text = cleaned
      }
      return text
    }
    if (Array.isArray(value)) return value.map((item, index) => clean(step, item, [...path, String(index)]))
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, clean(step, inner, [...path, key])]))
  }
  return new Map([...run].map(([step, heard]) => [step, clean(step, heard, []) as Heard]))
}

function differencesIn(direct: unknown, via: unknown, path: readonly string[]): Omit<Difference, 'step'>[] {
  if (Object.is(direct, via)) return []
  if (!isContainer(direct) || !isContainer(via) || Array.isArray(direct) !== Array.isArray(via))
    return [{ path: path.join('.'), direct, via }]
  const keys = [...new Set([...Object.keys(direct), ...Object.keys(via)])]
  return keys.flatMap(key => differencesIn(direct[key], via[key], [...path, key.replaceAll('.', '·')]))
}

const isContainer = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

function isIn(run: Where, wanted: Where): boolean {
  return (Object.keys(wanted) as (keyof Where)[]).every(key => run[key] === wanted[key])
}

function isUnder(pattern: string, path: string): boolean {
  const wanted = pattern.split('.')
  const given = path.split('.')
  const isOpen = wanted.at(-1) === '**'
  if (isOpen) wanted.pop()
  return (
    (isOpen ? given.length >= wanted.length : given.length === wanted.length) &&
    wanted.every((segment, index) => segment === '*' || segment === given[index])
  )
}
