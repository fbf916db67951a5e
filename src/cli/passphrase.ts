import { openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { ReadStream, WriteStream } from 'node:tty'
import { GatewayError, messageOf } from '../errors/gateway-error.js'

export interface PassphraseSource {
  /** `--passphrase-file`. */
  readonly file: string | undefined
  /** Asked twice: nobody can open what was sealed with a slip. */
  readonly isNew: boolean
}

/** The passphrase: from the file, else `GATEWAY_PASSPHRASE`, else asked for on the terminal. Throws LOGIN_FAILED without one. */
export async function readPassphrase({ file, isNew }: PassphraseSource): Promise<string> {
  if (file !== undefined) {
    const content = await readFile(file, 'utf8').catch(error => {
      throw new GatewayError('LOGIN_FAILED', `${file} cannot be read: ${messageOf(error)}`, { cause: error })
    })
    return notEmpty(content.replace(/\r?\n$/, ''), file)
  }
  if (process.env.GATEWAY_PASSPHRASE !== undefined)
    return notEmpty(process.env.GATEWAY_PASSPHRASE, 'GATEWAY_PASSPHRASE')
  const passphrase = notEmpty(await ask('Passphrase: '), 'the terminal')
  if (isNew && (await ask('The same again: ')) !== passphrase)
    throw new GatewayError('LOGIN_FAILED', 'the two passphrases differ: nothing was done')
  return passphrase
}

function notEmpty(passphrase: string, source: string): string {
  if (passphrase !== '') return passphrase
  throw new GatewayError('LOGIN_FAILED', `the passphrase from ${source} is empty`)
}

/** Asks on the terminal itself, not shown: stdin may carry the file, and stdout its copy. */
async function ask(prompt: string): Promise<string> {
  const { read } = await import('read')
  const terminal = openTerminal()
  try {
    const passphrase = await read({ prompt, silent: true, ...terminal })
    terminal.output.write('\n')
    return passphrase
  } catch {
    throw new GatewayError('LOGIN_FAILED', 'no passphrase was given: nothing was done')
  } finally {
    terminal.input.destroy()
    terminal.output.destroy()
  }
}

function openTerminal(): { input: ReadStream; output: WriteStream } {
  const [input, output] = process.platform === 'win32' ? ['\\\\.\\CONIN$', '\\\\.\\CONOUT$'] : ['/dev/tty', '/dev/tty']
  try {
    return { input: new ReadStream(openSync(input, 'r')), output: new WriteStream(openSync(output, 'w')) }
  } catch (error) {
    throw new GatewayError(
      'LOGIN_FAILED',
      'there is no terminal to ask for the passphrase: set GATEWAY_PASSPHRASE, or use --passphrase-file',
      { cause: error },
    )
  }
}
