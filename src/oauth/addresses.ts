import ipaddr from 'ipaddr.js'

/** Loopback as everybody writes it; other spellings of the same address are attempts to get past a check. */
export function isLoopbackHost(hostname: string): boolean {
  if (hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]') return true
  return ipaddr.IPv4.isValidFourPartDecimal(hostname) && rangeOf(hostname) === 'loopback'
}

/** True for an IP address, IPv6 without brackets. */
export const isAddress = (text: string): boolean => ipaddr.isValid(text)

/** What an address is for, in the words of ipaddr.js: `unicast` is public, all others are not (RFC 6890). */
export function rangeOf(text: string): string {
  const address = ipaddr.parse(text)
  // IPv4 in the last 32 bits, an old spelling (RFC 4291, section 2.5.5.1) that ipaddr.js knows in dotted form only.
  const isCompatible = address instanceof ipaddr.IPv6 && address.parts.slice(0, 6).every(part => part === 0)
  return isCompatible && address.range() === 'unicast' ? 'reserved' : address.range()
}
