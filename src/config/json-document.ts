import { readFile } from 'node:fs/promises'
import { type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser'
import { messageOf } from '../errors/gateway-error.js'
import { formatPath, type Problem } from './problem.js'

/** JSON with comments and trailing commas, as read from disk. `value` is undefined when the text does not parse. */
export interface JsonDocument {
  readonly file: string
  readonly value: unknown
  readonly problems: readonly Problem[]
}

export async function readJsonDocument(file: string): Promise<JsonDocument> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (error) {
    return { file, value: undefined, problems: [{ file, path: '', message: `cannot be read: ${messageOf(error)}` }] }
  }
  return parseJsonDocument(file, text)
}

export function parseJsonDocument(file: string, text: string): JsonDocument {
  const source = text.replace(/^\uFEFF/, '')
  const errors: ParseError[] = []
  try {
    const root = parseTree(source, errors, { allowTrailingComma: true, disallowComments: false })
    if (root && errors.length === 0) {
      const problems: Problem[] = []
      const value = toValue(root, [], (path, message) => problems.push({ file, path: formatPath(path), message }))
      return { file, value, problems }
    }
  } catch {
    // The parser is recursive, the stack is not endless.
    return {
      file,
      value: undefined,
      problems: [{ file, path: '', message: 'is nested too deeply to be a configuration' }],
    }
  }
  const found = errors.length > 0 ? errors : [{ error: 4, offset: 0, length: 0 }]
  const problems = found.map(({ error, offset }) => ({
    file,
    path: lineAndColumn(source, offset),
    message: `is not valid JSON: ${inWords(printParseErrorCode(error))}`,
  }))
  return { file, value: undefined, problems }
}

/** jsonc-parser's own conversion keeps the last of two equal keys in silence and lets `__proto__` set a prototype. */
function toValue(
  node: Node,
  path: readonly PropertyKey[],
  report: (path: readonly PropertyKey[], message: string) => void,
): unknown {
  if (node.type === 'array')
    return (node.children ?? []).map((child, index) => toValue(child, [...path, index], report))
  if (node.type !== 'object') return node.value
  const entries = new Map<string, unknown>()
  for (const property of node.children ?? []) {
    const [keyNode, valueNode] = property.children ?? []
    if (!keyNode || !valueNode) continue
    const key = String(keyNode.value)
    const keyPath = [...path, key]
    if (entries.has(key)) report(keyPath, 'is there twice: rename or remove one of the two')
    else if (key === '__proto__') report(keyPath, 'cannot be used as a name')
    else entries.set(key, toValue(valueNode, keyPath, report))
  }
  return Object.fromEntries(entries)
}

function lineAndColumn(text: string, offset: number): string {
  const before = text.slice(0, offset).split('\n')
  return `${before.length}:${(before.at(-1)?.length ?? 0) + 1}`
}

/** `PropertyNameExpected` as "property name expected". */
const inWords = (code: string): string => code.replace(/(?<!^)[A-Z]/g, letter => ` ${letter}`).toLowerCase()
