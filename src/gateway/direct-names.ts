import { createHash } from 'node:crypto'

/** What every client and model API takes as a tool's name. */
const MAX_LENGTH = 64
const HASH_LENGTH = 8
/** A name that ends like this gets a hash too, so that none can be mistaken for the other. */
const LOOKS_HASHED = /_[0-9a-f]{8}$/

/**
 * The name of a server's tool in direct mode: `server__tool` where that is legal and can be told apart, else that made legal and cut,
 * with a hash of both names. It depends on these two names only, so it stays what it is whatever else is configured.
 */
export function toDirectName(server: string, tool: string): string {
  const plain = `${server}__${tool}`
  const isPlain = /^[A-Za-z0-9_-]+$/.test(plain) && !LOOKS_HASHED.test(plain)
  if (isPlain && plain.length <= MAX_LENGTH && splitsAfter(server)) return plain
  const hash = createHash('sha256')
    .update(JSON.stringify([server, tool]))
    .digest('hex')
    .slice(0, HASH_LENGTH)
  return `${plain.replace(/[^A-Za-z0-9_-]/g, '_').slice(0, MAX_LENGTH - HASH_LENGTH - 1)}_${hash}`
}

/** The server and the tool that a plain name is made of; a name with a hash gives a pair that has another name. */
export function splitDirectName(name: string): { readonly server: string; readonly tool: string } | undefined {
  const at = name.indexOf('__')
  return at > 0 ? { server: name.slice(0, at), tool: name.slice(at + 2) } : undefined
}

/** The first `__` of the whole name is the one after the server. */
const splitsAfter = (server: string): boolean => !server.includes('__') && !server.endsWith('_')

const SCHEME = 'gateway://'

/** The URI of a server's resource, or its URI template, in direct mode: the original, whole, behind the server's name. */
export const toDirectUri = (server: string, uri: string): string => `${SCHEME}${encodeURIComponent(server)}/${uri}`

/** The server and the original URI behind a URI of direct mode; undefined for any other URI. */
export function splitDirectUri(uri: string): { readonly server: string; readonly uri: string } | undefined {
  const [, server, original] = /^gateway:\/\/([^/]*)\/(.*)$/s.exec(uri) ?? []
  if (server === undefined || original === undefined) return undefined
  try {
    return { server: decodeURIComponent(server), uri: original }
  } catch {
    return undefined // a percent sign that encodes nothing
  }
}
