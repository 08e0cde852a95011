/** The READMEs' pictures of the page, each in its language: node tests/e2e/pictures.mjs */
import { join } from 'node:path'
import { ROOT, openPage, settled, startBrowser, startServer } from './lib.mjs'

const server = await startServer()
const browser = await startBrowser()
try {
  for (const [lang, file] of [
    ['en', 'page.png'],
    ['zh-CN', 'page.zh-CN.png'],
  ]) {
    const { page, finish } = await openPage({ browser, url: server.url }, { lang, width: 1280, height: 860 })
    await settled(page)
    await page.locator('[data-further=time]').waitFor()
    await page.waitForLoadState('networkidle')
    await page.screenshot({ path: join(ROOT, 'docs', 'images', file) })
    await finish()
  }
} finally {
  await browser.close()
  await server.stop()
}
