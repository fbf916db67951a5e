import ipaddr from 'ipaddr.js'

/** Loopback as everybody writes it; other spellings of the same address are attempts to get past a check. */
export function isLoopbackHost(hostname: string): boolean {
  if (hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]') return true
  return ipaddr.IPv4.isValidFourPartDecimal(hostname) && rangeOf(hostname) === 'loopback'
}

/** True for an IP address, IPv6 without brackets. */
export const isAddress = (text: string): boolean => ipaddr.isValid(text)

/** What an address is for, in the words of ipaddr.js: `unicast` is public, all others are not (RFC 6890). */
export const rangeOf = (address: string): string => ipaddr.parse(address).range()
