import { posix } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decide } from '../../src/rules/decide.js'
import { compiled } from './compiled.js'

type Json = Record<string, unknown>

const text = fc.constantFrom('a', 'b', 'ab', 'a/b', '/a/b', '/a/../b', 'a/..', '%2e%2e/a', 'a\\b', ' a')
const value: fc.Arbitrary<unknown> = fc.oneof(
  { depthSize: 'small' },
  text,
  fc.constantFrom<unknown>(1, true, null, undefined, [], {}),
  fc.array(text, { maxLength: 2 }),
  fc.record({ y: text }),
)
const args = fc.record({ x: value, y: value }, { requiredKeys: [] }) as fc.Arbitrary<Json>
const pattern = fc.constantFrom<string | number | boolean>('a', 'a*', '*', '/a/**', '**/b', 'a/*', 1, true)
const when = fc.dictionary(
  fc.constantFrom('x', 'y', 'x.y', 'x[0]', 'x[*]'),
  fc.oneof(pattern, fc.array(pattern, { minLength: 1, maxLength: 2 })),
  { minKeys: 1, maxKeys: 2 },
)
const entry = fc.oneof(
  fc.constantFrom('t', '*'),
  fc.record({ tool: fc.constantFrom('t', '*'), when }),
  fc.record({ tool: fc.constant('t'), when, effect: fc.constantFrom('allow', 'ask') }),
)
const denial = fc.oneof(fc.constant('t'), fc.record({ tool: fc.constantFrom('t', '*'), when }))
const lists = fc.record({ allow: fc.array(entry, { maxLength: 3 }), deny: fc.array(denial, { maxLength: 2 }) })
type Lists = { readonly allow: readonly unknown[]; readonly deny: readonly unknown[] }

const toEntry = ({ allow, deny }: Lists) => ({
  allow: { servers: ['s'], tools: { s: allow } },
  deny: { tools: { s: deny } },
})
const decideFor = (file: Json, given: Json | undefined, agent = 'a', roles: string[] = []) => {
  const facts = given && { args: given, definition: {} }
  return decide(compiled(file), { agent, server: 's', tool: 't', ...facts, caller: { id: 'u', roles } }).decision
}
const decided = (of: Lists, given: Json | undefined) => decideFor({ agents: { a: toEntry(of) } }, given)
const RUNS = { numRuns: 1000 }

test('a deny that matches whatever the arguments leaves nothing allowed', () => {
  fc.assert(
    fc.property(lists, args, (of, given) => {
      expect(decided({ ...of, deny: [...of.deny, 't'] }, given)).toBe('deny')
    }),
    RUNS,
  )
})

test('one more deny never allows more, one more thing to ask never allows more without asking', () => {
  fc.assert(
    fc.property(lists, denial, entry, args, (of, denied, other, given) => {
      const before = decided(of, given)
      if (before === 'deny') expect(decided({ ...of, deny: [...of.deny, denied] }, given)).toBe('deny')
      const asking = { ...(typeof other === 'string' ? { tool: other } : other), effect: 'ask' }
      if (before !== 'allow') expect(decided({ ...of, allow: [...of.allow, asking] }, given)).not.toBe('allow')
    }),
    RUNS,
  )
})

test('a condition only narrows: where it is taken away, at least as much is allowed', () => {
  fc.assert(
    fc.property(lists, args, (of, given) => {
      fc.pre(decided(of, given) !== 'deny')
      const free = of.allow.map(each => (typeof each === 'string' ? each : { tool: (each as { tool: string }).tool }))
      expect(decided({ ...of, allow: free }, given)).not.toBe('deny')
    }),
    RUNS,
  )
})

test('the same condition never both allows what it does not deny', () => {
  fc.assert(
    fc.property(when, args, (condition, given) => {
      const conditional = [{ tool: 't', when: condition }]
      const isAllowed = decided({ allow: conditional, deny: [] }, given) === 'allow'
      if (isAllowed) expect(decided({ allow: ['t'], deny: conditional }, given)).toBe('deny')
    }),
    RUNS,
  )
})

test('a condition asks about what it would deny, and grants what it would allow', () => {
  fc.assert(
    fc.property(when, args, (condition, given) => {
      const [one, asking] = [
        { tool: 't', when: condition },
        { tool: 't', when: condition, effect: 'ask' },
      ]
      const isDoubtful = decided({ allow: ['t'], deny: [one] }, given) === 'deny'
      expect(decided({ allow: ['t', asking], deny: [] }, given)).toBe(isDoubtful ? 'ask' : 'allow')
      const isClear = decided({ allow: [one], deny: [] }, given) === 'allow'
      expect(decided({ allow: [asking], deny: [] }, given)).toBe(isClear ? 'ask' : 'deny')
    }),
    RUNS,
  )
})

test('what is not shown cannot be called, with any arguments', () => {
  fc.assert(
    fc.property(lists, args, (of, given) => {
      fc.pre(decided(of, undefined) === 'deny')
      expect(decided(of, given)).toBe('deny')
    }),
    RUNS,
  )
})

test('a child never exceeds its parent, arguments and questions included', () => {
  const rank = { deny: 0, ask: 1, allow: 2 }
  fc.assert(
    fc.property(lists, lists, args, (parent, child, given) => {
      const file = { agents: { a: toEntry(parent), 'a.b': toEntry(child) } }
      expect(rank[decideFor(file, given, 'a.b')]).toBeLessThanOrEqual(rank[decideFor(file, given, 'a')])
    }),
    RUNS,
  )
})

test('roles: allowed by one of them, unless one denies', () => {
  fc.assert(
    fc.property(lists, lists, args, (own, role, given) => {
      const file = { agents: { a: toEntry(own) }, roles: { r: toEntry(role) } }
      const together = decideFor(file, given, 'a', ['r'])
      const alone = [decideFor(file, given, 'a'), decideFor(file, given, 'stranger', ['r'])]
      if (together === 'allow') expect(alone).toContain('allow')
      const deniesAny = [own, role].some(({ deny }) => decided({ allow: ['t'], deny }, given) === 'deny')
      expect(together === 'deny').toBe(deniesAny || alone.every(each => each === 'deny'))
    }),
    RUNS,
  )
})

test('roles: one of them that asks is heard, whichever allows it', () => {
  fc.assert(
    fc.property(when, fc.boolean(), args, (condition, isOwn, given) => {
      const asking = toEntry({ allow: [{ tool: 't', when: condition, effect: 'ask' }], deny: [] })
      const free = toEntry({ allow: ['t'], deny: [] })
      const file = { agents: { a: isOwn ? asking : free }, roles: { r: isOwn ? free : asking } }
      const isDoubtful = decided({ allow: ['t'], deny: [{ tool: 't', when: condition }] }, given) === 'deny'
      expect(decideFor(file, given, 'a', ['r'])).toBe(isDoubtful ? 'ask' : 'allow')
    }),
    RUNS,
  )
})

test('a decision that depends on nothing is the same with any arguments', () => {
  fc.assert(
    fc.property(lists, fc.option(lists), args, (own, role, given) => {
      const file = { agents: { a: toEntry(own) }, ...(role && { roles: { r: toEntry(role) } }) }
      const wanted = { agent: 'a', server: 's', tool: 't', definition: {}, caller: { id: 'u', roles: ['r'] } }
      const { decision, dependsOn } = decide(compiled(file), wanted)
      fc.pre(dependsOn === undefined)
      expect(decideFor(file, given, 'a', ['r'])).toBe(decision)
    }),
    RUNS,
  )
})

test('no path that leads elsewhere is within an allowed folder, however it is written', () => {
  const rules = compiled({
    agents: { a: { allow: { servers: ['s'], tools: { s: [{ tool: 't', when: { x: '/home/ann/**' } }] } } } },
  })
  const segment = fc.constantFrom('..', '.', '', 'home', 'ann', 'bob', '%2e%2e', '..\\..', 'x', '.%2E', '%2f')
  fc.assert(
    fc.property(fc.array(segment, { maxLength: 8 }), fc.boolean(), (segments, isRooted) => {
      const x = (isRooted ? '/home/ann/' : '/') + segments.join('/')
      const facts = { args: { x }, definition: {} }
      fc.pre(decide(rules, { agent: 'a', server: 's', tool: 't', ...facts }).decision === 'allow')
      for (const read of [x, decodeURIComponent(x), decodeURIComponent(x).replaceAll('\\', '/')])
        expect(`${posix.resolve('/', read)}/`).toMatch(/^\/home\/ann\//)
    }),
    { numRuns: 5000 },
  )
})

const URL_PIECES = fc.constantFrom(
  ...[
    'evil.org',
    'a',
    '.example.com',
    'example.com',
    '@',
    ':',
    '443',
    '/',
    '//',
    '\\',
    '?',
    '#',
    '%2f',
    '%40',
    '。',
    '.',
  ],
  ...[
    '\t',
    ' ',
    ';',
    'https:',
    'HTTPS://',
    'file:',
    '[',
    '%',
    'EXAMPLE.com',
    '/etc/',
    '%65tc',
    'x',
    'localhost',
    '%65',
  ],
)
const URL_TEXT = fc
  .tuple(fc.constantFrom('https://', 'https:', 'file:', 'file:///', ''), fc.array(URL_PIECES, { maxLength: 6 }))
  .map(([scheme, pieces]) => scheme + pieces.join(''))
const decider = (of: Lists) => {
  const rules = compiled({ agents: { a: toEntry(of) } })
  return (x: string) => decide(rules, { agent: 'a', server: 's', tool: 't', args: { x }, definition: {} }).decision
}

test('no URL that goes elsewhere is at an allowed host, however it is written', () => {
  const decision = decider({ allow: [{ tool: 't', when: { x: 'https://*.example.com/**' } }], deny: [] })
  fc.assert(
    fc.property(URL_TEXT, fc.constantFrom('', '.example.com/', '.example.com/x'), (start, end) => {
      const x = start + end
      if (decision(x) !== 'allow') return
      expect(new URL(x).hostname).toMatch(/\.example\.com$/)
      // RFC 3986, appendix B, with nobody who logs in and no port.
      expect(/^https:\/\/([^/?#]*)/i.exec(x)?.[1]).toMatch(/^[\w.-]*\.example\.com$/i)
    }),
    { numRuns: 10_000 },
  )
})

test('no URL that goes to a denied host or file is missed, however it is written', () => {
  const when = { x: ['https://example.com/**', '/etc/**'] }
  const decision = decider({ allow: ['t'], deny: [{ tool: 't', when }] })
  fc.assert(
    fc.property(URL_TEXT, x => {
      if (!URL.canParse(x)) return
      const { origin, protocol, pathname } = new URL(x)
      if (origin === 'https://example.com' || (protocol === 'file:' && /^\/+etc\//.test(pathname)))
        expect(decision(x)).toBe('deny')
    }),
    { numRuns: 10_000 },
  )
})
