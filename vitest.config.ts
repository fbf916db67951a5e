import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // What needs more than Node and npm: npm run test:system.
    exclude: ['test/system/**'],
    testTimeout: 30_000,
    hookTimeout: 60_000,
    pool: 'forks',
    // Many tests wait for processes and clocks, not for this one.
    maxWorkers: availableParallelism() + 1,
  },
})
