const MAX_LENGTH = 300

/**
 * What a server said, for an error that people read on a terminal: in quotes, cut, and without a character that a terminal obeys
 * or that turns the direction of what stands beside it.
 */
export const quoted = (text: string): string =>
  JSON.stringify(text.slice(0, MAX_LENGTH)).replace(
    /[\p{Cc}\p{Bidi_Control}\u2028\u2029]/gu,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
