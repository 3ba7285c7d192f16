import { defineConfig } from 'vitest/config';

/**
 * Three kinds of tests (docs: CONTRIBUTING.md), told apart by their names and run alone with `vitest run --project unit`.
 * Forks: a test may change time zone, locale and working directory of its process, or end it.
 */
const project = (name: string, include: string[], exclude: string[] = []) => ({
  extends: true as const,
  test: { name, include, exclude },
});

export default defineConfig({
  test: {
    pool: 'forks',
    setupFiles: ['test/support/region-policy.ts'],
    // By itself vitest leaves one processor idle: of two, half.
    maxWorkers: '100%',
    testTimeout: 60_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    projects: [
      project('unit', ['test/**/*.test.ts'], ['test/**/*.{prop,guest}.test.ts']),
      project('properties', ['test/**/*.prop.test.ts']),
      project('guests', ['test/**/*.guest.test.ts']),
    ],
  },
});
