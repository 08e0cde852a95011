import { fileURLToPath, URL } from 'node:url'
import VueI18n from '@intlify/unplugin-vue-i18n/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'
import { lessons } from './vite/lessons.ts'
import { preloadPage } from './vite/preloadPage.ts'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  plugins: [
    vue(),
    VueI18n({ include: [here('./src/locales/*.json')], runtimeOnly: true, compositionOnly: true, fullInstall: false, dropMessageCompiler: true }),
    lessons(here('../code/part2')),
    preloadPage('src/pages/Part2.vue'),
  ],
  resolve: { alias: { '@': here('./src') } },
  define: { __VUE_OPTIONS_API__: false, __VUE_PROD_DEVTOOLS__: false, __INTLIFY_PROD_DEVTOOLS__: false },
  build: { target: 'es2022', modulePreload: { polyfill: false } },
  server: {
    port: 5173,
    proxy: { '/api': { target: process.env.LORALENS_API ?? 'http://127.0.0.1:8000' } },
  },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
})
