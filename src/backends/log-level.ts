/** Severities of RFC 5424 as MCP names them, the least severe first. */
const LEVELS: readonly unknown[] = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency']

export const isLogLevel = (level: unknown): level is string => LEVELS.includes(level)

/** True when a message of this level is wanted by somebody who asked for `wanted` or worse. A level nobody knows is never too mild. */
export const isSevereEnough = (level: unknown, wanted: string | undefined): boolean =>
  wanted === undefined || !isLogLevel(level) || LEVELS.indexOf(level) >= LEVELS.indexOf(wanted)
