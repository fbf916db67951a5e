import { expect, test } from 'vitest'
import { ConfigError, formatPath, formatProblem } from '../../src/config/problem.js'

test.each<[segments: PropertyKey[], path: string]>([
  [[], ''],
  [['mcpServers', 'brave-search', 'env', 'KEY'], 'mcpServers.brave-search.env.KEY'],
  [['mcpServers', 'my server', 'args', 0], 'mcpServers["my server"].args[0]'],
  [['agents', 'team.role', 'allow'], 'agents["team.role"].allow'],
  [['say "hi"\n'], '["say \\"hi\\"\\n"]'],
])('formatPath(%j) is %s', (segments, path) => {
  expect(formatPath(segments)).toBe(path)
})

test('one problem a line, as file:path: message', () => {
  const problems = [
    { file: 'a.json', path: 'mcpServers.x', message: 'is bad' },
    { file: 'b.json', path: '', message: 'cannot be read' },
  ]
  expect(problems.map(formatProblem)).toEqual(['a.json:mcpServers.x: is bad', 'b.json: cannot be read'])
  const error = new ConfigError(problems)
  expect(error).toMatchObject({ code: 'CONFIG_INVALID', problems })
  expect(error.message).toBe('a.json:mcpServers.x: is bad\nb.json: cannot be read')
})
