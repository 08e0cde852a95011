/**
 * Compares the engine in the browser with the server, byte for byte: node tests/e2e/same.mjs [how many questions, 300]
 *
 * Needs both builds (npm run build, npm run build:static).
 */
import { startDumbServer } from './dumb.mjs'
import { differing } from './engine.mjs'
import { openPage, startBrowser, startServer } from './lib.mjs'

const count = Number(process.argv[2] ?? 300)
const [server, alone, browser] = await Promise.all([startServer(), startDumbServer(), startBrowser()])
try {
  const { page } = await openPage({ browser, url: alone.url }, { path: '/' })
  const different = await differing(page, alone.url, server.url, count)
  for (const question of different) console.log(`differs: ${question}`)
  console.log(`${count} questions, ${different.length} answers differ`)
  process.exitCode = different.length === 0 ? 0 : 1
} finally {
  await browser.close()
  await Promise.all([server.stop(), alone.stop()])
}
