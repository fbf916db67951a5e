import {
  type ArgumentPattern,
  isPathTemplate,
  type Placeholder,
  parseArgumentPath,
  parseTemplate,
  type Step,
  type Template,
} from '../config/condition-syntax.js'
import type { ToolRule } from '../config/rules-file.js'
import { isJsonObject, type JsonObject, parseJson } from '../json.js'
import { compilePieces, type GlobPiece, isGlob } from './glob.js'
import { allReadingsOf, compilePath, hasClimb, readingsOf, toText } from './path-pattern.js'

/** What conditions may ask of whoever calls. */
export interface Subject {
  readonly id: string
  readonly name?: string | undefined
  readonly roles?: readonly string[] | undefined
  readonly claims?: Readonly<Record<string, unknown>> | undefined
}

/** What is known of a call so far: first its names, then the tool's definition, then its arguments. */
export interface Facts {
  readonly caller?: Subject | undefined
  /** Present once the tool is known, also when it has no annotations. */
  readonly definition?: { readonly annotations?: unknown } | undefined
  readonly args?: JsonObject | undefined
}

export type Verdict = 'yes' | 'no' | 'maybe'

/** One thing that has to hold. */
export interface Condition {
  /** The argument it asks for, as a path; undefined for an annotation. */
  readonly argument: string | undefined
  /** As it is written. */
  readonly text: string
  judge(facts: Facts): Verdict
}

/** Whether a list of conditions grants or takes away: what cannot be told counts against the call. */
export type Mode = 'allow' | 'deny'

export function compileConditions({ when = {}, annotations = {} }: ToolRule, mode: Mode): readonly Condition[] {
  return [
    ...Object.entries(annotations).map(([hint, wanted]) => compileHint(hint as Hint, wanted === true)),
    ...Object.entries(when).map(([path, patterns]) => compileArgument(path, [patterns].flat(), mode)),
  ]
}

/** All of them have to hold. */
export function judge(conditions: readonly Condition[], facts: Facts): Verdict {
  let verdict: Verdict = 'yes'
  for (const condition of conditions) {
    const each = condition.judge(facts)
    if (each === 'no') return 'no'
    if (each === 'maybe') verdict = 'maybe'
  }
  return verdict
}

/** Of a tool that says nothing the worst is assumed (MCP, "ToolAnnotations"); one that only reads destroys nothing. */
const HINTS = {
  readOnlyHint: hints => hints.readOnlyHint === true,
  destructiveHint: hints =>
    typeof hints.destructiveHint === 'boolean' ? hints.destructiveHint : hints.readOnlyHint !== true,
  idempotentHint: hints => hints.idempotentHint === true,
  openWorldHint: hints => hints.openWorldHint !== false,
} as const satisfies Record<string, (hints: JsonObject) => boolean>
type Hint = keyof typeof HINTS

function compileHint(hint: Hint, wanted: boolean): Condition {
  const read = HINTS[hint]
  return {
    argument: undefined,
    text: `${hint}: ${wanted}`,
    judge({ definition }) {
      if (!definition) return 'maybe'
      const { annotations } = definition
      return read(isJsonObject(annotations) ? annotations : {}) === wanted ? 'yes' : 'no'
    },
  }
}

function compileArgument(path: string, patterns: readonly ArgumentPattern[], mode: Mode): Condition {
  const steps = parseArgumentPath(path)
  if (typeof steps === 'string') throw new TypeError(`${path} ${steps}`)
  const tests = (mode === 'deny' ? patterns.flatMap(asMeant) : patterns).map(pattern => compilePattern(pattern, mode))
  const fits = (value: Scalar, caller: Subject | undefined) => tests.some(test => test.fits(value, caller))
  const compare = mode === 'allow' ? isWithin : isTouchedBy
  return {
    argument: path,
    text: `${path}: ${patterns.map(pattern => JSON.stringify(pattern)).join(' or ')}`,
    judge({ args, caller }) {
      if (args === undefined) return caller && !tests.some(test => test.isMeantFor(caller)) ? 'no' : 'maybe'
      return compare(args, steps, value => fits(value, caller)) ? 'yes' : 'no'
    },
  }
}

/** Who writes `"true"` means true. */
const asMeant = (pattern: ArgumentPattern): ArgumentPattern[] =>
  pattern === 'true' || pattern === 'false' ? [pattern, pattern === 'true'] : [pattern]

type Scalar = string | number | boolean
type Compare = (value: unknown, steps: readonly Step[], fits: (value: Scalar) => boolean) => boolean

const isScalar = (value: unknown): value is Scalar => typeof value !== 'object' && value !== undefined

/** For what is allowed: the value is there, it is one value or all of a list, and it fits. */
const isWithin: Compare = (value, [step, ...others], fits) => {
  if (step === undefined) return isScalar(value) && fits(value)
  if (step === 'each')
    return Array.isArray(value) && value.length > 0 && value.every(each => isWithin(each, others, fits))
  const next = into(value, step)
  return next !== undefined && isWithin(next.value, others, fits)
}

/** For what is denied: any value in that place fits, or something is there that cannot be compared. */
const isTouchedBy: Compare = (value, steps, fits) => {
  if (value === undefined || value === null) return false
  const [step, ...others] = steps
  if (step === undefined) {
    if (Array.isArray(value)) return value.some(each => isTouchedBy(each, [], fits))
    return isScalar(value) ? fits(value) || listIn(value).some(each => isScalar(each) && fits(each)) : true
  }
  if (step === 'each') return Array.isArray(value) ? value.some(each => isTouchedBy(each, others, fits)) : true
  const next = into(value, step)
  return next === undefined ? true : isTouchedBy(next.value, others, fits)
}

/** Servers take the JSON of a list for the list. */
function listIn(value: Scalar): readonly unknown[] {
  const list = typeof value === 'string' && /^\s*\[/.test(value) ? parseJson(value)?.value : undefined
  return Array.isArray(list) ? list.flat(Number.POSITIVE_INFINITY) : []
}

/** What a step leads to, which may be nothing; undefined where there is no such step to take. */
function into(value: unknown, step: Exclude<Step, 'each'>): { readonly value: unknown } | undefined {
  if ('index' in step) return Array.isArray(value) ? { value: value[step.index] } : undefined
  if (!isJsonObject(value)) return undefined
  return { value: Object.hasOwn(value, step.key) ? value[step.key] : undefined }
}

interface PatternTest {
  /** False when it names something of the caller that it does not have. */
  isMeantFor(caller: Subject): boolean
  fits(value: Scalar, caller: Subject | undefined): boolean
}

function compilePattern(pattern: ArgumentPattern, mode: Mode): PatternTest {
  if (typeof pattern !== 'string') {
    const isSame = (value: Scalar) => value === pattern || (mode === 'deny' && readsAs(value, pattern))
    return { isMeantFor: () => true, fits: isSame }
  }
  const template = parseTemplate(pattern)
  if (typeof template === 'string') throw new TypeError(`${pattern} ${template}`)
  if (template.every(piece => typeof piece === 'string')) {
    const fits = compileTemplate(template, template, mode)
    return { isMeantFor: () => true, fits: value => fits(String(value)) }
  }
  const forCallers = new WeakMap<Subject, TextTest>()
  const testFor = (caller: Subject): TextTest => {
    const known = forCallers.get(caller)
    if (known) return known
    const pieces = fillIn(template, caller)
    const test = pieces ? compileTemplate(template, pieces, mode) : NEVER
    forCallers.set(caller, test)
    return test
  }
  return {
    isMeantFor: caller => testFor(caller) !== NEVER,
    fits: (value, caller) => caller !== undefined && testFor(caller)(String(value)),
  }
}

// As YAML and the libraries that read arguments for a server have them.
const SPELLINGS: ReadonlyMap<string, boolean> = new Map([
  ...['true', 't', 'yes', 'y', 'on'].map(word => [word, true] as const),
  ...['false', 'f', 'no', 'n', 'off'].map(word => [word, false] as const),
])

/** Servers take `"42"` for 42, and 1, `"yes"` and `"True"` for true. */
function readsAs(value: Scalar, wanted: number | boolean): boolean {
  const text = String(value).trim().toLowerCase()
  const digits = text.replaceAll('_', '')
  const number = typeof value === 'boolean' ? Number(value) : digits === '' ? Number.NaN : Number(digits)
  if (typeof wanted === 'number') return number === wanted
  return (SPELLINGS.get(text) ?? (Number.isNaN(number) ? undefined : number !== 0)) === wanted
}

type TextTest = (text: string) => boolean
const NEVER: TextTest = () => false

/** The pattern with what it names of the caller in its place, literally; undefined when the caller does not have that. */
function fillIn(template: Template, caller: Subject): readonly GlobPiece[] | undefined {
  const isPath = isPathTemplate(template)
  const pieces: GlobPiece[] = []
  for (const piece of template) {
    const text = typeof piece === 'string' ? undefined : textOf(piece, caller)
    if (typeof piece === 'string') pieces.push(piece)
    else if (text === undefined || (isPath && !isSegment(text))) return undefined
    else pieces.push({ literal: text })
  }
  return pieces
}

function textOf(placeholder: Placeholder, caller: Subject): string | undefined {
  let value: unknown = placeholder.of === 'claims' ? caller.claims : caller[placeholder.of]
  for (const step of placeholder.of === 'claims' ? placeholder.path : []) {
    value = step === 'each' ? undefined : into(value, step)?.value
  }
  const text = isScalar(value) ? String(value) : ''
  return text === '' ? undefined : text
}

/** A name that leads nowhere else when it becomes part of a path. */
const isSegment = (text: string): boolean =>
  !/[/\\%\p{Cc}]/u.test(text) && text !== '.' && text !== '..' && text.trim() === text

// Longer texts cannot be compared while others wait.
const MAX_LENGTH = 256 * 1024

function compileTemplate(template: Template, pieces: readonly GlobPiece[], mode: Mode): TextTest {
  const test = isPathTemplate(template) ? compilePathTest(pieces, mode) : compileTextTest(pieces, mode)
  return text => (text.length > MAX_LENGTH ? mode === 'deny' : test(text))
}

function compilePathTest(pieces: readonly GlobPiece[], mode: Mode): TextTest {
  const matches = compilePath(pieces) // what has been filled in has no slash in it
  return mode === 'deny'
    ? text => allReadingsOf(text)?.some(matches) ?? true
    : text => readingsOf(text)?.every(matches) ?? false
}

function compileTextTest(pieces: readonly GlobPiece[], mode: Mode): TextTest {
  const matches = compilePieces(pieces)
  if (mode === 'deny') {
    return text =>
      matches(text) || matches(text.trim()) || (allReadingsOf(text)?.some(path => matches(toText(path))) ?? false)
  }
  // Where a star could stand for a way out, there must be none; a lone star stands for everything.
  const isFree = pieces.every(piece => typeof piece === 'string' && /^\*+$/.test(piece))
  const isExact = pieces.every(piece => typeof piece !== 'string' || !isGlob(piece))
  return isFree || isExact ? matches : text => matches(text) && !hasClimb(text)
}
