/**
 * Drives the built page in Chromium against the real server: node tests/e2e/run.mjs [name of a check …]
 *
 * LORALENS_URL: a server that already runs. CHROMIUM: the browser's path.
 */
import { startHub } from './hub.mjs'
import { startBrowser, startServer } from './lib.mjs'

const CHECKS = [
  'numbers',
  'families',
  'answer',
  'findings',
  'looks',
  'layout',
  'keyboard',
  'states',
  'setup',
  'yourfile',
  'explain',
  'plans',
  'time',
  'beside',
  'exports',
  'motion',
  'story',
  'load',
  'benchmark',
  'adapters',
  'lab',
  'alone',
]

const wanted = process.argv.slice(2)
// A server that runs already has an address of the Hub of its own.
const hub = process.env.LORALENS_URL ? null : await startHub()
const server = await startServer(hub ? { LORALENS_HUB_URL: hub.url } : {})
const browser = await startBrowser()
let passed = 0
let failed = 0
try {
  for (const name of CHECKS.filter((check) => wanted.length === 0 || wanted.includes(check))) {
    const { default: check } = await import(`./checks/${name}.mjs`)
    const begun = performance.now()
    try {
      const note = await check({ browser, url: server.url, hub })
      passed += 1
      console.log(`ok    ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)${note ? ` ${note}` : ''}`)
    } catch (error) {
      failed += 1
      console.log(`FAIL  ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)\n${error.stack}`)
    }
  }
} finally {
  await browser.close()
  await server.stop()
  await hub?.stop()
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
