import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // What needs more than Node and npm: npm run test:system.
    exclude: ['test/system/**'],
    testTimeout: 60_000,
    // A busy machine is no failure; what never comes still is one.
    expect: { poll: { timeout: 15_000 } },
    hookTimeout: 60_000,
    pool: 'forks',
    // Many tests wait for processes and clocks, not for this one.
    maxWorkers: availableParallelism() + 1,
  },
})
