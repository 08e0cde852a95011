/**
 * How soon the engine of a page without a server answers on a phone: node tests/e2e/ready.mjs [slower by, 4]
 *
 * Needs the build for any host (npm run build:static). The page's own thread is slowed down as a phone's is; the files come
 * from this machine. Says when the first answer of the engine stood on the page, and how long a cell of the heat map that is
 * touched meanwhile takes to be followed.
 */
import { startDumbServer } from './dumb.mjs'
import { chooseModel, openPage, settled, startBrowser } from './lib.mjs'

const rate = Number(process.argv[2] ?? 4)
const [server, browser] = await Promise.all([startDumbServer(), startBrowser()])
try {
  const { page, finish } = await openPage(
    { browser, url: server.url },
    { path: '/part2/', lang: 'en', width: 390, height: 844 },
  )
  await settled(page)
  const devtools = await page.context().newCDPSession(page)
  await devtools.send('Emulation.setCPUThrottlingRate', { rate })
  const begun = performance.now()
  await chooseModel(page, 'qwen2.5-7b')
  const followed = page.evaluate(async () => {
    const start = performance.now()
    document.querySelector('[data-heat-map] td[aria-selected=false]').click()
    await new Promise((painted) => requestAnimationFrame(() => setTimeout(painted, 0)))
    return performance.now() - start
  })
  await page.locator('.sentence').filter({ hasText: 'Qwen2.5-7B' }).waitFor({ timeout: 120_000 })
  const seconds = (performance.now() - begun) / 1000
  console.log(
    `engine ready and first answer in ${seconds.toFixed(1)} s, ${rate} times slower; a touch meanwhile is followed in ${(await followed).toFixed(0)} ms`,
  )
  await finish()
} finally {
  await browser.close()
  await server.stop()
}
