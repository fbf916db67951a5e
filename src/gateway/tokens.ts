import type { Tool } from '@modelcontextprotocol/server'

// Byte-pair encoding of one unbroken run is quadratic: a hostile description would stall the process.
const CHUNK_LENGTH = 1_024

const counted = new WeakMap<Tool, number>()

/** How many tokens (o200k) a tool definition costs a model. Counted once per definition; the vocabulary is loaded on first use. */
export async function countTokens(definition: Tool): Promise<number> {
  const known = counted.get(definition)
  if (known !== undefined) return known
  const { countTokens: count } = await import('gpt-tokenizer/encoding/o200k_base')
  const text = JSON.stringify(definition)
  let tokens = 0
  for (let at = 0; at < text.length; at += CHUNK_LENGTH) {
    tokens += count(text.slice(at, at + CHUNK_LENGTH), { disallowedSpecial: new Set() })
  }
  counted.set(definition, tokens)
  return tokens
}
