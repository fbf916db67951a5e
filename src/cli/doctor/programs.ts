import { accessSync, closeSync, constants, openSync, readFileSync, readSync, statSync } from 'node:fs'
import { basename, delimiter, resolve } from 'node:path'
import type { Env } from '../../config/variables.js'

// What launchd gives to apps; path_helper is for login shells only.
const LAUNCHD_PATH = '/usr/bin:/bin:/usr/sbin:/sbin'
const LOGIN_MANAGER_PATH = '/usr/local/bin:/usr/bin:/bin'
const FIRST_LINE_BYTES = 256

/** Where a program is looked for. */
export interface SearchPlace {
  readonly path: string
  /** What relative names are relative to. */
  readonly cwd: string
  /** Endings that Windows adds. */
  readonly endings?: readonly string[] | undefined
}

/** The PATH of apps that are started from the Dock or the desktop; undefined where that is everybody's. */
export function desktopPath(platform: NodeJS.Platform = process.platform): string | undefined {
  if (platform === 'win32') return undefined
  if (platform === 'darwin') return LAUNCHD_PATH
  return pathIn(readText('/etc/environment')) ?? LOGIN_MANAGER_PATH
}

/** `PATH` of a file like /etc/environment, which sessions of every kind read (pam_env). */
export const pathIn = (text: string): string | undefined => /^PATH="?([^"\n$]+?)"?\s*$/m.exec(text)?.[1]

/** The file that a command runs, as the operating system would find it; nothing is executed. */
export function findProgram(command: string, { path, cwd, endings = [''] }: SearchPlace): string | undefined {
  const isPath = /[/\\]/.test(command)
  const places = isPath ? [resolve(cwd, command)] : path.split(delimiter).map(place => resolve(cwd, place, command))
  return places.flatMap(place => endings.map(ending => place + ending)).find(isExecutable)
}

export const endingsOf = (env: Env, platform: NodeJS.Platform = process.platform): readonly string[] =>
  platform === 'win32' ? ['', ...(env.PATHEXT || '.COM;.EXE;.BAT;.CMD').split(';')] : ['']

/** The program that a script names in its first line, as it would have to be found: a path, or a name that `env` looks up. */
export function interpreterOf(file: string): string | undefined {
  const [, line] = /^#!\s*([^\r\n]+)/.exec(firstBytes(file)) ?? []
  const [program, ...rest] = line?.trim().split(/\s+/) ?? []
  if (program === undefined || basename(program) !== 'env') return program
  return rest.find(word => !word.startsWith('-') && !word.includes('='))
}

/** What is missing to run a command: itself, or the interpreter of its script. */
export type Located =
  | { readonly file: string; readonly interpreter?: string | undefined }
  | { readonly missing: string; readonly script?: string | undefined }

export function locateProgram(command: string, place: SearchPlace): Located {
  const file = findProgram(command, place)
  if (file === undefined) return { missing: command }
  const interpreter = interpreterOf(file)
  if (interpreter === undefined) return { file }
  const found = findProgram(interpreter, place)
  return found === undefined ? { missing: interpreter, script: file } : { file, interpreter: found }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    return false
  }
}

function firstBytes(file: string): string {
  try {
    const descriptor = openSync(file, 'r')
    try {
      const buffer = Buffer.alloc(FIRST_LINE_BYTES)
      return buffer.toString('utf8', 0, readSync(descriptor, buffer))
    } finally {
      closeSync(descriptor)
    }
  } catch {
    return ''
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

export const isDirectory = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true

/** A PATH in which the directory comes first. */
export const withDirectory = (directory: string, path: string): string =>
  [directory, ...path.split(delimiter).filter(place => place !== directory)].join(delimiter)
