import { describe, expect, test } from 'vitest'
import { GatewayError, messageOf, toGatewayError } from '../../src/errors/gateway-error.js'

describe('toGatewayError', () => {
  test('leaves a GatewayError alone', () => {
    const error = new GatewayError('TIMEOUT', 'too late')
    expect(toGatewayError(error)).toBe(error)
  })

  test.each([
    ['an Error', new TypeError('x is not a function')],
    ['a text', 'boom'],
    ['undefined', undefined],
    ['null', null],
  ])('makes %s INTERNAL and keeps it as the cause', (_, thrown) => {
    const error = toGatewayError(thrown)
    expect(error).toMatchObject({ code: 'INTERNAL', details: {} })
    expect(error.cause).toBe(thrown)
  })
})

describe('messageOf', () => {
  test.each<[thrown: unknown, message: string]>([
    [new Error('boom'), 'boom'],
    ['boom', 'boom'],
    [undefined, 'undefined'],
  ])('of %o is %s', (thrown, message) => {
    expect(messageOf(thrown)).toBe(message)
  })
})
