import type { Gateway } from '../start.js'

/** Closes the gateway on the first SIGTERM, SIGINT or SIGHUP; a second one ends the process at once. Resolves when the first arrives. */
export function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise(resolve => {
    let signalled = false
    const onSignal = (signal: NodeJS.Signals) => {
      if (signalled) process.exit(1)
      signalled = true
      resolve(signal)
    }
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal)
  })
}

/** Runs one command's work on a gateway and closes it whatever happens. */
export async function usingGateway<T>(gateway: Gateway, work: (gateway: Gateway) => Promise<T>): Promise<T> {
  try {
    return await work(gateway)
  } finally {
    await gateway.close()
  }
}
