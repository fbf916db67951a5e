import { execFile, spawn } from 'node:child_process'
import { cp, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll } from 'vitest'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** Addresses on the island: one backend that counts as public, its neighbour, and those that nobody should reach. */
export const PUBLIC = '93.184.216.34'
export const NEIGHBOUR = '93.184.216.35'
const ADDRESSES = [
  PUBLIC,
  NEIGHBOUR,
  '10.1.2.3',
  '172.16.9.9',
  '192.168.7.7',
  '169.254.169.254',
  '100.64.0.1',
  'fd00::1',
  '64:ff9b::a01:203',
]
const NAMES = [
  '127.0.0.1 localhost localhost.',
  '10.1.2.3 private.example private.example.',
  '127.0.0.1 loop.example',
  '169.254.169.254 metadata.example',
  'fd00::1 six.example',
  `${NEIGHBOUR} mixed.example`,
  '10.1.2.3 mixed.example',
]

export interface Island {
  /** Runs a module's text on the island; in it there are `modules`, where the compiled code is, and `print`. */
  run<T>(script: string): Promise<T>
}

/** A network of its own (Linux namespaces), with addresses and names as needed, where the compiled code runs. */
export function useIsland(): Island {
  let directory = ''
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'gateway-island-'))
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    await cp(join(ROOT, 'package.json'), join(directory, 'package.json'))
    await writeFile(join(directory, 'hosts'), `${NAMES.join('\n')}\n`)
    const compiler = join(ROOT, 'node_modules/typescript/bin/tsc')
    const options = ['-p', join(ROOT, 'tsconfig.build.json'), '--outDir', join(directory, 'dist')]
    await promisify(execFile)(process.execPath, [
      compiler,
      ...options,
      '--declaration',
      'false',
      '--sourceMap',
      'false',
    ])
  })
  afterAll(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }))
  return {
    async run(script) {
      const source = `
        const modules = ${JSON.stringify(pathToFileURL(join(directory, 'dist/')).href)}
        const directory = ${JSON.stringify(directory)}
        const print = value => console.log(JSON.stringify(value))
        ${script}`
      const setUp = [
        'ip link set lo up',
        ...ADDRESSES.map(address => `ip addr add ${address}${address.includes(':') ? '/128' : '/32'} dev lo`),
        `mount --bind ${join(directory, 'hosts')} /etc/hosts`,
        'exec "$@"',
      ]
      const node = [process.execPath, '--input-type=module', '-e', source]
      const child = spawn('unshare', ['-rnm', 'sh', '-ec', setUp.join('\n'), 'sh', ...node], {
        env: { PATH: process.env.PATH },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      const status = new Promise(resolve => child.once('close', resolve))
      const [printed, complaints] = await Promise.all([text(child.stdout), text(child.stderr)])
      if ((await status) !== 0) throw new Error(`the island ended with ${await status}: ${complaints}`)
      return JSON.parse(printed)
    },
  }
}
