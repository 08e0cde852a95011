import { readFileSync } from 'node:fs'
import { fileURLToPath, URL } from 'node:url'
import VueI18n from '@intlify/unplugin-vue-i18n/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'
import { compress } from './vite/compress.ts'
import { defaultPlans } from './vite/defaultPlans.ts'
import { engine } from './vite/engine/engine.ts'
import { leanQuery } from './vite/leanQuery.ts'
import { leanVueI18n } from './vite/leanVueI18n.ts'
import { lessons } from './vite/lessons.ts'
import { messages } from './vite/messages.ts'
import { offline } from './vite/offline.ts'
import { prerender } from './vite/prerender.ts'
import { repository } from './vite/repository.ts'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
/** The one place of the version is the Python package. */
const version = /^__version__ = "(.+)"$/m.exec(readFileSync(here('../backend/loralens/__init__.py'), 'utf8'))![1]

const FIRST_SCREEN = /shared\/(i18n\/problem|recipe\/useWordTexts|lib\/print|state\/(settings|answers))\.ts$/
/** `vite build --mode alone`: the page as files for any host, without a server. */
const ALONE = 'alone'

export default defineConfig(({ mode }) => ({
  // A page that stands alone may lie below any address: it names its files relative to themselves.
  base: mode === ALONE ? './' : '/',
  plugins: [
    vue(),
    leanQuery(),
    leanVueI18n(),
    messages(here('./src/locales')),
    VueI18n({
      include: [here('./src/locales/*.json')],
      runtimeOnly: true,
      compositionOnly: true,
      fullInstall: false,
      dropMessageCompiler: true,
    }),
    lessons(here('../code/part2')),
    defaultPlans(here('./src/shared/api/builtInPlans.json')),
    engine(here('../backend/loralens')),
    prerender(mode === ALONE),
    offline(here('./src/app/serviceWorker.js'), mode === ALONE),
    // Whoever serves files compresses them in its own way.
    mode !== ALONE && compress(),
  ],
  resolve: { alias: { '@': here('./src'), '@loralens': here('../backend/loralens') } },
  define: {
    __LORALENS_VERSION__: JSON.stringify(version),
    __LORALENS_REPOSITORY__: JSON.stringify(repository(here('.'))),
    __LORALENS_ALONE__: JSON.stringify(mode === ALONE),
    __VUE_OPTIONS_API__: false,
    __VUE_PROD_DEVTOOLS__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: false,
  },
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    outDir: mode === ALONE ? 'dist-static' : 'dist',
    // What the first screen asks for beside itself: small modules that each would cost a file of its own.
    rolldownOptions: {
      output: { codeSplitting: { groups: [{ name: 'answers', test: FIRST_SCREEN }] } },
    },
  },
  // The server knows the engine's worker by its name: it alone may compile WebAssembly (api/policy.py).
  worker: {
    format: 'es',
    rolldownOptions: {
      output: { entryFileNames: ({ name }) => `assets/${name === 'worker' ? 'engine-worker' : name}-[hash].js` },
    },
  },
  server: {
    fs: { allow: ['..'] },
    port: 5173,
    proxy: { '/api': { target: process.env.LORALENS_API ?? 'http://127.0.0.1:8000' } },
  },
}))
