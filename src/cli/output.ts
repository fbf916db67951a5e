// What a terminal obeys, and what turns the direction of the text beside it; servers put such into what they say.
const UNSEEN = /[\p{Bidi_Control}\u2028\u2029]|(?![\n\t])\p{Cc}/gu

/** Text for a terminal: what would not be seen is written out. Within JSON it stays the same value. */
export const visible = (text: string): string =>
  text.replace(UNSEEN, character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** What a command has to say, on stdout; errors and progress go to stderr. */
export const print = (text: string): void => void process.stdout.write(`${visible(text)}\n`)

export const printJson = (value: unknown): void => print(JSON.stringify(value, null, 2))

/** Short news for a person at a terminal; nothing on a pipe. */
export function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`${text}\n`)
}

/** Rows as columns of equal width; the last column takes what is left. `style` may dress a cell that has its width already. */
export function printTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  style: (cell: string, column: number) => string = cell => cell,
): void {
  const all = [header, ...rows.map(row => row.map(cell => oneLine(cell, Number.POSITIVE_INFINITY)))]
  const widths = header.map((_, column) => Math.max(...all.map(row => (row[column] ?? '').length)))
  for (const row of all) {
    const cells = row.map((cell, column) => {
      const padded = column === header.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)
      return row === header ? visible(padded) : style(visible(padded), column)
    })
    process.stdout.write(`${cells.join('  ').trimEnd()}\n`)
  }
}

/** A point in time to the minute, as in `2026-11-21 14:05Z`. */
export const toMinute = (iso: string): string => `${iso.slice(0, 16).replace('T', ' ')}Z`

/** Text from a backend on one line, without the control characters a terminal would obey. */
export const oneLine = (text: string, length = 100): string => {
  const clean = text.replace(/[\p{Cc}\p{Bidi_Control}\u2028\u2029]+/gu, ' ').trim()
  return clean.length > length ? `${clean.slice(0, length - 1)}…` : clean
}
