import { defineConfig, mergeConfig } from 'vitest/config'
import page from './vite.config.ts'

export default defineConfig((environment) =>
  mergeConfig(page(environment), { test: { environment: 'node', include: ['src/**/*.test.ts'] } }),
)
