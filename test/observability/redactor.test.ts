import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createRedactor } from '../../src/observability/redactor.js'

const MARK = '[redacted]'
const redact = (text: string, ...secrets: string[]) => {
  const redactor = createRedactor()
  redactor.learn('test', secrets)
  return redactor.redact(text)
}

describe('createRedactor', () => {
  test.each<[what: string, secrets: string[], text: string, redacted: string]>([
    ['a secret', ['s3cret-value'], 'key=s3cret-value;', `key=${MARK};`],
    ['every occurrence', ['s3cret-value'], 's3cret-value s3cret-value', `${MARK} ${MARK}`],
    ['inside JSON', ['pass"word\n1'], JSON.stringify({ a: 'pass"word\n1' }), `{"a":"${MARK}"}`],
    ['inside a URL', ['p@ss word/1'], 'https://x/?k=p%40ss%20word%2F1', `https://x/?k=${MARK}`],
    ['what looks like a pattern', ['a.b*c(d)[e]'], 'a.b*c(d)[e] aXbbc(d)e', `${MARK} aXbbc(d)e`],
    ['a short value stays', ['dev', 'true', '1234567'], 'dev true 1234567', 'dev true 1234567'],
    ['an empty value stays', [''], 'text', 'text'],
    ['a secret inside another', ['password', 'password-of-admin'], 'password-of-admin password', `${MARK} ${MARK}`],
    ['a secret that ends another', ['password', 'old-password'], 'old-password', MARK],
    ['case matters', ['s3cret-value'], 'S3CRET-VALUE', 'S3CRET-VALUE'],
    ['nothing to hide', [], 'text', 'text'],
  ])('%s', (_, secrets, text, redacted) => {
    expect(redact(text, ...secrets)).toBe(redacted)
  })

  test('secrets that overlap leave neither whole', () => {
    const text = redact('<abcdefghijklmno>', 'abcdefghij', 'fghijklmno')
    expect(text).toContain(MARK)
    expect(text).not.toContain('abcdefghij')
    expect(text).not.toContain('fghijklmno')
  })

  test('forgets what a reload replaced', () => {
    const redactor = createRedactor()
    redactor.learn('test', ['first-secret'])
    redactor.learn('test', ['second-secret'])
    expect(redactor.redact('first-secret second-secret')).toBe(`first-secret ${MARK}`)
    redactor.learn('test', [])
    expect(redactor.redact('second-secret')).toBe('second-secret')
  })

  test('whatever the secret, as it is, in JSON and in a URL, it is gone', () => {
    const edge = '\uE000'
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 8, maxLength: 20 }), secret => {
        fc.pre(!secret.includes(edge))
        for (const written of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)]) {
          expect(redact(edge + written + edge, secret)).toBe(edge + MARK + edge)
        }
      }),
    )
  })

  test('half a character, which no URL can hold, is no reason to fail', () => {
    expect(redact('a \ud800-secret-value', '\ud800-secret-value')).toBe(`a ${MARK}`)
  })
})
