import { defineConfig } from 'vitest/config'

/** Tests that need the system's help: gnome-keyring and D-Bus, Chromium, network namespaces. */
export default defineConfig({
  test: {
    include: ['test/system/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: 'forks',
  },
})
