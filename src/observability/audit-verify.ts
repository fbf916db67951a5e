import { type FileHandle, open } from 'node:fs/promises'
import { type ChainedLine, hashOf, readChained } from './audit-chain.js'
import { KEPT_FILES } from './audit-file.js'
import { type Head, readHead } from './audit-head.js'
import { codeOf } from './file-turn.js'

export interface AuditVerdict {
  readonly ok: boolean
  readonly files: readonly string[]
  readonly lines: number
  /** Lines at the beginning that are older than the chain: nothing can be said about them. */
  readonly unchained: number
  /** To be kept elsewhere by whoever wants to know later that nothing has become of it. */
  readonly last?: { readonly seq: number; readonly hash: string }
  /** The first line that is wrong. */
  readonly problem?: AuditProblem
  /** Half a line at the end: being written, or left by a crash. The next gateway takes it away. */
  readonly incomplete?: { readonly file: string; readonly line: number }
  /** Lines up to this one went with files beyond those that are kept. */
  readonly missing_up_to?: number
}

export interface AuditProblem {
  readonly file: string
  readonly line: number
  readonly kind: 'changed' | 'removed' | 'reordered' | 'truncated'
  readonly message: string
}

interface Line {
  readonly file: string
  readonly number: number
  readonly hash: string
  readonly place: ReturnType<typeof readChained>
}

interface Chained extends Line {
  readonly place: ChainedLine
}

const isChained = (line: Line | undefined): line is Chained => typeof line?.place === 'object'

/** Walks the chain through a log and the older files it goes on from, and finds the first line that breaks it. */
export async function verifyAuditLog(file: string): Promise<AuditVerdict> {
  const { base, number } = placeOf(file)
  const head = await readHead(file) // before the lines: a gateway may be writing
  const opened = await openAll(file, head)
  try {
    const dropped = (await readHead(base))?.dropped // after they are open: one more may go at any time
    return await verify({ file, opened, head, oldest: { base, count: KEPT_FILES + 1 - number, dropped } })
  } finally {
    await Promise.all(opened.map(({ handle }) => handle.close()))
  }
}

interface Log {
  readonly file: string
  readonly opened: readonly OpenFile[]
  readonly head: Head | undefined
  readonly oldest: Oldest
}

/** How a log has to begin that has lost its first lines because no more files are kept. */
interface Oldest {
  readonly base: string
  /** So many files there are then, from the one that is verified. */
  readonly count: number
  /** As the gateway has noted it. */
  readonly dropped: number | undefined
}

async function verify({ file, opened, head, oldest }: Log): Promise<AuditVerdict> {
  const files = opened.map(({ name }) => name)
  const lines = new LineReader(opened)
  let count = 0
  let unchained = 0
  let missing: number | undefined
  let previous: Line | undefined
  const verdict = (problem?: AuditProblem): AuditVerdict => ({
    ok: problem === undefined,
    files,
    lines: count,
    unchained,
    ...(isChained(previous) && { last: { seq: previous.place.seq, hash: previous.hash } }),
    ...(problem && { problem }),
    ...(lines.incomplete && { incomplete: lines.incomplete }),
    ...(missing !== undefined && { missing_up_to: missing }),
  })

  for (let line = await lines.next(); line; line = await lines.next()) {
    count++
    if (line.place === 'unchained' && !isChained(previous)) unchained++
    else if (!isChained(line)) return verdict(problem(line, 'changed', 'is not a line of an audit log'))
    else {
      if (!previous && line.place.seq > 1 && wereDropped(line, opened, oldest)) missing = line.place.seq - 1
      else {
        const found = await findBreak(line, previous, lines, head)
        if (found) return verdict(found)
      }
    }
    previous = line
  }
  const last = isChained(previous) ? previous.place.seq : 0
  // No line after it vouches for the last one.
  if (previous && head && head.seq === last && head.hash !== previous.hash)
    return verdict(problem(previous, 'changed', 'is not what was written there'))
  if (head && last < head.seq) {
    const place = previous ?? { file, number: 0 }
    const message = `is missing, and everything after it: the log has had ${head.seq} lines, and ends with ${last}`
    return verdict(problem({ ...place, number: place.number + 1 }, 'truncated', message))
  }
  return verdict()
}

interface OpenFile {
  readonly name: string
  readonly handle: FileHandle
}

/**
 * Before any is read: a gateway that moves them meanwhile changes their names only. The newest first, or one could be missed; it is
 * not there where a gateway has ended between moving it and beginning the next, or where somebody has removed it.
 */
async function openAll(file: string, head: Head | undefined): Promise<OpenFile[]> {
  const opened = new Map<number, OpenFile>()
  for (const name of [file, ...olderThan(file)]) {
    const handle = await open(name).catch(error => {
      if (name === file && !(head && codeOf(error) === 'ENOENT')) throw error
    })
    if (!handle) continue
    const { ino } = await handle.stat()
    const moved = opened.get(ino)
    opened.set(ino, { name, handle: moved?.handle ?? handle })
    if (moved) await handle.close()
  }
  return [...opened.values()].reverse()
}

function placeOf(file: string): { readonly base: string; readonly number: number } {
  const [, base = file, number = '0'] = /^(.*)\.(\d{1,2})$/.exec(file) ?? []
  return { base, number: Number(number) }
}

/** `FILE.1` … `FILE.10`; of an older file, those older than it. */
function olderThan(file: string): string[] {
  const { base, number } = placeOf(file)
  return Array.from({ length: Math.max(0, KEPT_FILES - number) }, (_, index) => `${base}.${number + index + 1}`)
}

/** Whether the lines before the first that is left are missing because the gateway itself has dropped them. */
function wereDropped({ file, place }: Chained, opened: readonly OpenFile[], { base, count, dropped }: Oldest): boolean {
  if (!place.continues || file !== `${base}.${KEPT_FILES}`) return false
  // A copy may come without what is noted.
  return dropped === undefined ? opened.length === count : place.seq <= dropped + 1
}

const problem = (
  { file, number }: Pick<Line, 'file' | 'number'>,
  kind: AuditProblem['kind'],
  message: string,
): AuditProblem => ({ file, line: number, kind, message })

async function findBreak(
  line: Chained,
  previous: Line | undefined,
  rest: LineReader,
  head: { readonly seq: number; readonly hash: string } | undefined,
): Promise<AuditProblem | undefined> {
  const { seq, prev } = line.place
  const wanted = (isChained(previous) ? previous.place.seq : 0) + 1
  const before = previous?.hash ?? null
  if (seq === wanted && prev === before) return undefined
  if (seq === wanted) {
    // Either of the two was changed: this one is as it was written if somebody else says so.
    const next = await rest.next()
    const isVouchedFor = next
      ? isChained(next) && next.place.prev === line.hash
      : head?.hash !== undefined && head.seq === seq && head.hash === line.hash
    if (previous && (isVouchedFor || (!next && head?.seq !== seq)))
      return problem(previous, 'changed', 'was changed: the line after it was written after another one')
    return problem(line, 'changed', 'was changed: it does not name the line before it')
  }
  if (prev === before && previous)
    return problem(line, 'changed', `was changed: it has the number ${seq} instead of ${wanted}`)
  if (seq < wanted) return problem(line, 'reordered', `is out of order: it has the number ${seq}, after ${wanted - 1}`)
  for (let later = await rest.next(); later; later = await rest.next()) {
    if (isChained(later) && later.place.seq === wanted)
      return problem(line, 'reordered', `is out of order: it has the number ${seq}, and ${wanted} comes later`)
  }
  const gone = seq - wanted === 1 ? `line ${wanted} is` : `lines ${wanted} to ${seq - 1} are`
  return problem(line, 'removed', `has the number ${seq}: ${gone} missing before it`)
}

/** The whole lines of some files, one after the other. */
class LineReader {
  incomplete: AuditVerdict['incomplete']
  readonly #lines: AsyncGenerator<Line, undefined>

  constructor(files: readonly OpenFile[]) {
    this.#lines = this.#read(files)
  }

  async next(): Promise<Line | undefined> {
    const { value } = await this.#lines.next()
    return value
  }

  async *#read(files: readonly OpenFile[]): AsyncGenerator<Line, undefined> {
    for (const { name: file, handle } of files) {
      let number = 0
      let rest: Buffer[] = []
      for await (const chunk of handle.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
        let start = 0
        for (let end = chunk.indexOf(LINE_BREAK); end >= 0; end = chunk.indexOf(LINE_BREAK, start)) {
          const bytes = Buffer.concat([...rest, chunk.subarray(start, end)])
          rest = []
          start = end + 1
          yield { file, number: ++number, hash: hashOf(bytes), place: readChained(bytes.toString('utf8')) }
        }
        rest.push(chunk.subarray(start))
      }
      const left = Buffer.concat(rest)
      if (left.length === 0) continue
      if (file === files.at(-1)?.name) this.incomplete = { file, line: number + 1 }
      else yield { file, number: ++number, hash: hashOf(left), place: undefined }
    }
    return undefined
  }
}

const LINE_BREAK = 0x0a
