// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the placeholders of the configuration files look like this
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { expandVariables } from '../../src/config/variables.js'

const env = { TOKEN: 'abc', NAME: 'x', EMPTY: '', TRICK: '${TOKEN} $& $1 $$' }

test.each([
  ['no variable', 'plain $HOME {x} $', 'plain $HOME {x} $'],
  ['${VAR}', '${TOKEN}', 'abc'],
  ['${env:VAR}', '${env:TOKEN}', 'abc'],
  ['several', 'Bearer ${TOKEN}/${NAME}', 'Bearer abc/x'],
  ['a default that is needed', '${UNSET:-https://example.com:8080/a}', 'https://example.com:8080/a'],
  ['an empty default', '[${UNSET:-}]', '[]'],
  ['a default that is not needed', '${env:TOKEN:-other}', 'abc'],
  ['a literal ${', '$${TOKEN}', '${TOKEN}'],
  ['a literal ${ beside a variable', '$${TOKEN} ${TOKEN}', '${TOKEN} abc'],
  ['a value that looks like a variable', '${TRICK}', '${TOKEN} $& $1 $$'],
  ['a value that is set and empty', '[${EMPTY}]', '[]'],
])('%s', (_, template, text) => {
  expect(expandVariables(template, env)).toMatchObject({ text, missing: [] })
})

test('an unset variable stays as it is written and is reported', () => {
  expect(expandVariables('a ${UNSET} ${TOKEN} ${env:GONE}', env)).toEqual({
    text: 'a ${UNSET} abc ${env:GONE}',
    values: ['abc'],
    missing: ['UNSET', 'GONE'],
  })
})

test('what every JavaScript object has is not a variable', () => {
  expect(expandVariables('${toString} ${constructor}', process.env).missing).toEqual(['toString', 'constructor'])
})

test('a text without ${ is never changed', () => {
  fc.assert(
    fc.property(fc.string(), text => {
      fc.pre(!text.includes('${'))
      expect(expandVariables(text, env)).toEqual({ text, values: [], missing: [] })
    }),
  )
})
