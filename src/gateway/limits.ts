import type { LimitConfig, LimitsConfig } from '../config/limits.js'
import { formatPath } from '../config/problem.js'
import { GatewayError } from '../errors/gateway-error.js'
import { createMinuteCounts, type MinuteCounts } from '../observability/minute-counts.js'
import { compileGlob, isGlob, type Matcher } from '../rules/glob.js'

type Kind = keyof LimitsConfig

/** What a call counts for. Of an agent, the entries of the rules that stand above it: names below are for the caller to make up. */
export interface Subjects {
  /** Limits are written for an id; what is counted is the principal's own, whoever else has that id at another issuer. */
  readonly principal: { readonly id: string; readonly key: string }
  readonly agents: readonly string[]
  /** The agent itself, with or without an entry. */
  readonly agent?: string | undefined
  readonly server?: string | undefined
  readonly tool?: string | undefined
}

interface Limit extends LimitConfig {
  readonly rule: string
}

interface KindOfLimits {
  readonly exact: ReadonlyMap<string, Limit>
  readonly globs: readonly { readonly matches: Matcher; readonly limit: Limit }[]
}

/** Where it is counted. In memory; another implementation would let several gateways share their limits. */
export interface LimitStore {
  readonly minutes: MinuteCounts
  /** False when `max` are under way. */
  enter(key: string, max: number): boolean
  /** One more, whatever the limit is: it was under way before. */
  reenter(key: string): void
  leave(key: string): void
}

/** The limits of one configuration; what was counted stays when it changes. */
export interface Limits {
  readonly kinds: Readonly<Record<Kind, KindOfLimits>>
  readonly store: LimitStore
}

export function compileLimits(config: LimitsConfig, store: LimitStore = createMemoryStore()): Limits {
  const compile = (kind: Kind): KindOfLimits => {
    const entries = Object.entries(config[kind] ?? {}).map(([name, limit]): [string, Limit] => [
      name,
      { ...limit, rule: formatPath(['limits', kind, name]) },
    ])
    return {
      exact: new Map(entries.filter(([name]) => !isGlob(name))),
      globs: entries.filter(([name]) => isGlob(name)).map(([name, limit]) => ({ matches: compileGlob(name), limit })),
    }
  }
  const kinds = {
    principals: compile('principals'),
    agents: compile('agents'),
    servers: compile('servers'),
    tools: compile('tools'),
  }
  return { kinds, store }
}

/** Only as many keys as calls are under way. */
export function createMemoryStore(): LimitStore {
  const underWay = new Map<string, number>()
  const reenter = (key: string) => void underWay.set(key, (underWay.get(key) ?? 0) + 1)
  return {
    minutes: createMinuteCounts(),
    enter(key, max) {
      if ((underWay.get(key) ?? 0) >= max) return false
      reenter(key)
      return true
    },
    reenter,
    leave(key) {
      const rest = (underWay.get(key) ?? 0) - 1
      if (rest > 0) underWay.set(key, rest)
      else underWay.delete(key)
    },
  }
}

// When a call ends is for its backend to say.
const BUSY_RETRY_MS = 1_000

/** What one call takes of the limits, as it becomes known what it is about. Each limit is asked once. */
export class Admission {
  readonly #limits: Limits
  readonly #asked = new Set<string>()
  readonly #held: string[] = []
  /** What was held before the pause. */
  #left: string[] = []
  #pauses = 0
  #isOver = false

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /**
   * Rejects with RATE_LIMITED when one of them is used up, and has then taken nothing from the others. What is not counted was
   * counted before, as the request that this one goes on with.
   */
  async admit(subjects: Subjects, { isCounted = true } = {}): Promise<void> {
    const { store, kinds } = this.#limits
    const wanted = [...applying(kinds, subjects)].filter(({ key }) => !this.#asked.has(key))
    const entered: string[] = []
    const counted: string[] = []
    try {
      for (const each of wanted) {
        const { key, limit } = each
        if (limit.concurrent === undefined) continue
        if (!store.enter(key, limit.concurrent)) throw tooMany(each)
        entered.push(key)
      }
      for (const each of wanted) {
        const { key, limit } = each
        if (limit.requestsPerMinute === undefined || !isCounted) continue
        const { count, resetsInMs } = await store.minutes.add(key)
        counted.push(key)
        if (count > limit.requestsPerMinute) throw tooOften(each, resetsInMs)
      }
    } catch (error) {
      for (const key of entered) store.leave(key)
      await Promise.all(counted.map(key => store.minutes.takeBack(key)))
      throw error
    }
    for (const { key } of wanted) this.#asked.add(key)
    this.#held.push(...entered)
    if (this.#isOver) this.#leave()
  }

  /** While somebody is asked, a call is not at work; until the returned function is called. */
  pause(): () => void {
    if (this.#pauses++ === 0 && !this.#isOver) this.#left = this.#leave()
    return () => {
      if (--this.#pauses > 0 || this.#isOver) return
      for (const key of this.#left) this.#limits.store.reenter(key)
      this.#held.push(...this.#left.splice(0))
    }
  }

  /** The call is over, however it went. */
  end(): void {
    this.#isOver = true
    this.#leave()
  }

  #leave(): string[] {
    const held = this.#held.splice(0)
    for (const key of held) this.#limits.store.leave(key)
    return held
  }
}

interface Applying {
  /** What is counted under it. */
  readonly key: string
  /** The same for people. */
  readonly what: string
  readonly limit: Limit
}

/** Each has its own count, also where one pattern stands for many. */
function* applying(kinds: Limits['kinds'], { principal, agents, agent, server, tool }: Subjects): Generator<Applying> {
  yield* oneOf('principal', kinds.principals, principal.id, principal.key)
  const [nearest, ...above] = agents
  if (nearest !== undefined) yield* oneOf('agent', kinds.agents, nearest)
  // It has the rules of its roles alone, and may have made up its name: what it calls itself counts for whoever it is.
  else if (agent !== undefined) yield* oneOf('agent', kinds.agents, agent, `of ${principal.key}`)
  for (const name of above) {
    const limit = kinds.agents.exact.get(name)
    const key = `agent ${name}`
    if (limit) yield { key, what: key, limit }
  }
  if (server === undefined) return
  yield* oneOf('server', kinds.servers, server)
  if (tool !== undefined) yield* oneOf('tool', kinds.tools, `${server}/${tool}`)
}

/** The name itself comes before patterns, and the pattern that is written first before the others. */
function* oneOf(kind: string, { exact, globs }: KindOfLimits, name: string, key = name): Generator<Applying> {
  const limit = exact.get(name) ?? globs.find(({ matches }) => matches(name))?.limit
  if (limit) yield { key: `${kind} ${key}`, what: `${kind} ${name}`, limit }
}

const tooOften = ({ what, limit: { requestsPerMinute, rule } }: Applying, resetsInMs: number): GatewayError =>
  limited(`the ${what} may make ${requestsPerMinute} requests a minute (${rule})`, Math.ceil(resetsInMs), rule)

const tooMany = ({ what, limit: { concurrent, rule } }: Applying): GatewayError =>
  limited(`the ${what} may have ${concurrent} calls under way at a time (${rule})`, BUSY_RETRY_MS, rule)

const limited = (what: string, retryAfterMs: number, rule: string): GatewayError =>
  new GatewayError('RATE_LIMITED', `${what}: try again in ${Math.ceil(retryAfterMs / 1000)} s`, {
    details: { retry_after_ms: retryAfterMs, limit: rule },
  })
