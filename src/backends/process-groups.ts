import { startWatchdog, type Watchdog } from './process-watchdog.js'

/** A server's process, which leads the group of everything it starts. */
export interface ProcessGroup {
  readonly pid: number
  readonly server: string
  readonly command: string
}

/** The groups that a process has started and not yet ended, and who wants to know of them. */
class ProcessGroups {
  readonly #groups = new Map<number, ProcessGroup>()
  readonly #listeners = new Set<() => void>()
  #watchdog: Watchdog | undefined

  get all(): readonly ProcessGroup[] {
    return [...this.#groups.values()]
  }

  add(group: ProcessGroup): void {
    this.#groups.set(group.pid, group)
    if (this.#watchdog?.isAlive) this.#watchdog.watch(group.pid)
    else {
      this.#watchdog = startWatchdog()
      for (const { pid } of this.all) this.#watchdog.watch(pid)
    }
    this.#tell()
  }

  /** From here on the number may belong to somebody else. */
  remove(pid: number): void {
    if (!this.#groups.delete(pid)) return
    this.#watchdog?.forget(pid)
    if (this.#groups.size === 0) this.#watchdog?.dismiss()
    this.#tell()
  }

  /** Calls back after every change until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }
}

/** Those of this process. One object, since the operating system knows one parent, however many gateways are open in it. */
export const ownGroups = new ProcessGroups()

/** Signals every process of a group, or with 0 none; false when there is no such group. */
export function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(-pid, signal)
  } catch {
    return false
  }
}
