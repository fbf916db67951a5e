import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openScene } from './login-world.js'

const PASSPHRASE = { GATEWAY_PASSPHRASE: 'correct horse battery staple' }
const NOTES = 'notes'

async function openMachines() {
  const scene = await openScene()
  const [here, there] = [await scene.another(), await scene.another()]
  const login = await here.logIn(NOTES)
  if (login.status !== 0) throw new Error(login.stderr)
  const bearers = () => scene.server.authorizations().map(header => header.slice('Bearer '.length))
  const exported = async (): Promise<string> => {
    const { status, stdout } = await here.run(['credentials', 'export', NOTES], { env: PASSPHRASE })
    expect(status).toBe(0)
    return stdout
  }
  return { ...scene, here, there, bearers, exported }
}

test('a login moves to a machine with another key, and is renewed there', async () => {
  await using machines = await openMachines()
  const { authorizationServer, here, there, bearers, exported } = machines
  expect(await here.call(NOTES)).toMatchObject({ status: 0 })
  const sealed = await exported()
  for (const token of bearers()) expect(sealed).not.toContain(token)
  expect(await there.run(['credentials', 'import', '-'], { env: PASSPHRASE, input: sealed })).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('"notes"'),
  })
  expect(await here.run(['logout', '--local', NOTES])).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('here'),
  })
  expect(authorizationServer.requestsTo('revocation')).toEqual([])
  expect(await here.call(NOTES)).toMatchObject({ status: 77 })

  expect(await there.call(NOTES)).toMatchObject({ status: 0 })
  authorizationServer.expireAccessTokens()
  expect(await there.call(NOTES)).toMatchObject({ status: 0 })
  expect(authorizationServer.counts).toMatchObject({ refreshes: 1, reuses: 0, registrations: 1 })
})

test('what is exported opens with its passphrase only, and as a whole only', async () => {
  await using machines = await openMachines()
  const { there, exported } = machines
  const sealed = await exported()
  const file = join(there.directory, 'logins.json')
  const secret = join(there.directory, 'passphrase')
  await writeFile(file, sealed)
  await writeFile(secret, `${PASSPHRASE.GATEWAY_PASSPHRASE}\r\n`)
  const refusals = await Promise.all([
    there.run(['credentials', 'import', file], { env: { GATEWAY_PASSPHRASE: 'wrong' } }),
    there.run(['credentials', 'import', '-'], { env: PASSPHRASE, input: damaged(sealed) }),
    there.run(['credentials', 'import', '-'], {
      env: PASSPHRASE,
      input: sealed.slice(0, Math.floor(sealed.length / 2)),
    }),
    there.run(['credentials', 'import', '-'], { env: PASSPHRASE, input: '' }),
    there.run(['credentials', 'import', join(there.directory, 'nowhere')], { env: PASSPHRASE }),
    there.run(['credentials', 'import', file], { env: { GATEWAY_PASSPHRASE: '' } }),
    there.run(['credentials', 'import', file, '--passphrase-file', join(there.directory, 'nowhere')]),
  ])
  for (const { status, stdout, stderr } of refusals) {
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect(stderr).not.toMatch(/Internal|\n\s+at /)
  }
  const [wrong, broken, , , absent, empty] = refusals
  expect(wrong?.stderr).toMatch(/passphrase/)
  expect(broken?.stderr).toMatch(/damaged|passphrase/)
  expect(absent?.stderr).toMatch(/nowhere.*(ENOENT|no such file)/)
  expect(empty?.stderr).toMatch(/passphrase from GATEWAY_PASSPHRASE is empty/)
  expect((await there.run(['credentials', 'list'])).stdout).toMatch(/no logins/)

  expect(await there.run(['credentials', 'import', file, '--passphrase-file', secret])).toMatchObject({ status: 0 })
  expect(await there.call(NOTES)).toMatchObject({ status: 0 })
  const again = await there.run(['credentials', 'import', file], { env: PASSPHRASE })
  expect(again).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(/already.*"notes".*--force/) })
  expect(await there.run(['credentials', 'import', '--force', file], { env: PASSPHRASE })).toMatchObject({ status: 0 })
})

test('export needs a passphrase and a login, and writes a file of its own', async () => {
  await using machines = await openMachines()
  const { here } = machines
  const file = join(here.directory, 'out.json')
  const [empty, unknown] = await Promise.all([
    here.run(['credentials', 'export', NOTES], { env: { GATEWAY_PASSPHRASE: '' } }),
    here.run(['credentials', 'export', NOTES, 'other'], { env: PASSPHRASE }),
  ])
  expect(empty).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('empty') })
  expect(unknown).toMatchObject({ status: 1, stdout: '', stderr: expect.stringMatching(/not logged in to "other"/) })

  const first = await here.run(['credentials', 'export', NOTES, '--output', file], { env: PASSPHRASE })
  expect(first).toMatchObject({
    status: 0,
    stdout: '',
    stderr: expect.stringContaining('gateway logout --local notes'),
  })
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  const content = await readFile(file, 'utf8')
  const second = await here.run(['credentials', 'export', NOTES, '--output', file], { env: PASSPHRASE })
  expect(second).toMatchObject({ status: 1, stderr: expect.stringContaining(file) })
  expect(await readFile(file, 'utf8')).toBe(content)
})

test('logout revokes at the server, then deletes; the registration stays', async () => {
  await using machines = await openMachines()
  const { authorizationServer, server, here, bearers } = machines
  expect(await here.call(NOTES)).toMatchObject({ status: 0 })
  const [token = ''] = bearers()
  expect(await here.run(['logout', NOTES])).toMatchObject({ status: 0, stdout: 'logged out of "notes"\n', stderr: '' })
  expect(authorizationServer.isValid(token, server.url)).toBe(false)
  const revoked = authorizationServer.requestsTo('revocation').map(({ params }) => String(params.token))
  expect(revoked).toEqual([expect.stringMatching(/^rt-/), token])
  expect(await here.credentials()).not.toContain('login/notes')
  expect(await here.call(NOTES)).toMatchObject({ status: 77 })
  expect(await here.run(['logout', NOTES])).toMatchObject({ status: 0, stdout: 'not logged in to "notes"\n' })
  expect(await here.logIn(NOTES)).toMatchObject({ status: 0 })
  expect(authorizationServer.counts.registrations).toBe(1)
})

test('logout with the server down deletes all the same, and warns', async () => {
  await using machines = await openMachines()
  const { authorizationServer, here } = machines
  await authorizationServer.close()
  const { status, stdout, stderr } = await here.run(['logout', NOTES])
  expect({ status, stdout }).toEqual({ status: 0, stdout: 'logged out of "notes" here\n' })
  expect(stderr).toMatch(/^warning: its tokens may still be good at the server: .*ECONNREFUSED/)
  expect(await here.credentials()).not.toContain('login/notes')
})

test('list shows the logins, and no secret of theirs', async () => {
  await using machines = await openMachines()
  const { authorizationServer, server, here, bearers } = machines
  expect(await here.call(NOTES)).toMatchObject({ status: 0 })
  const [table, json] = await Promise.all([
    here.run(['credentials', 'list']),
    here.run(['credentials', 'list', '--json']),
  ])
  expect(table.stdout).toMatch(/^notes +logged in +\d{4}-.* +http/m)
  expect(JSON.parse(json.stdout)).toEqual({
    credentials: [
      {
        server: NOTES,
        issuer: authorizationServer.issuer,
        resource: server.url,
        state: 'logged in',
        expires_at: expect.any(String),
        scopes: ['mcp'],
      },
    ],
  })
  expect(bearers()).toHaveLength(1)
  for (const token of bearers()) expect(table.stdout + json.stdout + table.stderr + json.stderr).not.toContain(token)
})

/** With one character of the sealed part changed. */
function damaged(sealed: string): string {
  const longest = sealed.match(/[\w+/=-]{40,}/g)?.toSorted((a, b) => b.length - a.length)[0] ?? ''
  const middle = Math.floor(longest.length / 2)
  const changed = `${longest.slice(0, middle)}${longest[middle] === 'A' ? 'B' : 'A'}${longest.slice(middle + 1)}`
  return sealed.replace(longest, changed)
}
