import { readdirSync, readFileSync } from 'node:fs'
import { posix, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

// DESIGN.md section 7. Imports point down only, and never sideways unless it says so here.
const FLOOR = ['errors']
const GROUND = ['config', 'observability', ...FLOOR]
const ROOMS = ['backends', 'rules', 'identity', 'credentials', ...GROUND]
const FRONTS = ['http', 'gateway', 'oauth', ...ROOMS]
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  config: FLOOR,
  observability: FLOOR,
  backends: GROUND,
  rules: GROUND,
  credentials: GROUND,
  // It resolves agents against the rules, and keeps its issuer's key with the credentials.
  identity: ['rules', 'credentials', ...GROUND],
  http: ROOMS,
  gateway: ROOMS,
  oauth: ROOMS,
  start: FRONTS,
  cli: ['start', ...FRONTS],
  main: ['cli', 'start', ...FRONTS],
  index: ['start', 'errors'],
}
// Leaves: anybody may import them, they import nobody.
const LEAVES = ['json', 'version', 'pid-one']
const MAX_LINES = 400
const NAMES_THAT_SAY_NOTHING = ['utils', 'util', 'helpers', 'common', 'shared', 'lib']

const root = fileURLToPath(new URL('../src/', import.meta.url))
const files = readdirSync(root, { recursive: true, encoding: 'utf8' })
  .map(file => file.split(sep).join('/'))
  .filter(file => file.endsWith('.ts'))
  .sort()
const sources = new Map(files.map(file => [file, readFileSync(`${root}${file}`, 'utf8')]))
const imports = new Map([...sources].map(([file, source]) => [file, importsOf(file, source)]))

/** The files that a file imports: statically, for its types only, re-exported, or with `import()`. */
function importsOf(file: string, source: string): string[] {
  const found = source.matchAll(/\b(?:from|import)\s*\(?\s*['"](\.{1,2}\/[^'"]+)['"]/g)
  return [...found].map(([, path = '']) => posix.join(posix.dirname(file), path).replace(/\.js$/, '.ts'))
}

/** The first folder; `start-http.ts` and its like are parts of `start.ts` that only some commands need. */
function roomOf(file: string): string {
  const room = file.split('/')[0]?.replace(/\.ts$/, '') ?? ''
  return room.startsWith('start-') ? 'start' : room
}

const rooms = [...new Set(files.map(roomOf))]

describe('the house', () => {
  test('its imports are found at all', () => {
    expect(imports.get('main.ts')).toEqual(['cli/program.ts', 'pid-one.ts'])
    expect(imports.get('start.ts')).toContain('start-http.ts') // import()
    expect(imports.get('rules/decide.ts')).toEqual(['config/problem.ts', 'rules/compile.ts', 'rules/conditions.ts'])
    expect([...imports.values()].flat().filter(file => !sources.has(file))).toEqual([])
  })

  test('has no room that the table does not know', () => {
    expect(rooms.filter(room => !(room in MAY_IMPORT) && !LEAVES.includes(room))).toEqual([])
  })

  test.each(rooms)('%s imports only what lies below it', room => {
    const allowed = [room, ...LEAVES.filter(leaf => leaf !== room), ...(MAY_IMPORT[room] ?? [])]
    const forbidden = [...imports]
      .filter(([file]) => roomOf(file) === room)
      .flatMap(([file, targets]) => targets.map(target => ({ file, target })))
      .filter(({ target }) => !(LEAVES.includes(room) ? [] : allowed).includes(roomOf(target)))
      .map(({ file, target }) => `src/${file} imports src/${target}: ${room} may not import ${roomOf(target)}`)
    expect(forbidden).toEqual([])
  })

  test.each(['http', 'gateway', 'oauth'])('%s never meets the other fronts', room => {
    const others = ['http', 'gateway', 'oauth'].filter(other => other !== room)
    const meetings = [...imports].filter(
      ([file, targets]) => roomOf(file) === room && targets.some(target => others.includes(roomOf(target))),
    )
    expect(meetings).toEqual([])
  })

  test('has no import cycle', () => {
    expect(cycles()).toEqual([])
  })

  test('names no folder after nothing in particular', () => {
    expect(files.filter(file => file.split('/').some(part => NAMES_THAT_SAY_NOTHING.includes(part)))).toEqual([])
  })

  test(`has no file of more than ${MAX_LINES} lines`, () => {
    const long = [...sources].map(([file, source]) => ({ file, lines: source.trimEnd().split('\n').length }))
    expect(long.filter(({ lines }) => lines > MAX_LINES)).toEqual([])
  })

  test('never writes to stdout by console.log', () => {
    expect([...sources].filter(([, source]) => /\bconsole\s*\.\s*log\b/.test(source)).map(([file]) => file)).toEqual([])
  })
})

/** Every way back to a file that is still being walked, as `a → b → a`. */
function cycles(): string[] {
  const found: string[] = []
  const done = new Set<string>()
  const walk = (file: string, path: readonly string[]): void => {
    const start = path.indexOf(file)
    if (start >= 0) found.push([...path.slice(start), file].join(' → '))
    if (start >= 0 || done.has(file)) return
    for (const target of imports.get(file) ?? []) walk(target, [...path, file])
    done.add(file)
  }
  for (const file of files) walk(file, [])
  return found
}
