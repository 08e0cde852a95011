/** A live benchmark from the page: progress, result, reload, cancel. */
import { assert, equal, openPage, settled } from '../lib.mjs'

export default async function benchmark(context) {
  const { page, finish } = await openPage(context, { lang: 'en', path: '/part2#benchmark' })
  await settled(page)
  await page.locator('#bench-seconds').waitFor()
  await page.locator('#bench-seconds').selectOption('3')
  await page.locator('[data-action=start-benchmark]').click()
  await page.locator('#benchmark progress').waitFor()
  await page.locator('#benchmark [data-run=done]').waitFor({ state: 'attached', timeout: 45000 })
  const rows = await page.locator('[data-variant]').count()
  assert(rows >= 4, `only ${rows} variants measured`)
  const run = new URL(page.url()).searchParams.get('run')
  assert(run, 'the run is part of the address')
  await page.waitForFunction(() => document.querySelector('#benchmark .note'))
  const first = await page.locator('[data-variant]').first().innerText()
  await page.reload()
  await page.locator('#benchmark [data-run=done]').waitFor({ state: 'attached', timeout: 15000 })
  equal(await page.locator('[data-variant]').first().innerText(), first, 'a reload shows the same run')
  await page.locator('#bench-seconds').selectOption('60')
  await page.locator('[data-action=start-benchmark]').click()
  await page.locator('#benchmark [data-run=running]').waitFor({ timeout: 20000 })
  await page.locator('[data-action=cancel-benchmark]').click()
  await page.locator('#benchmark [data-run=cancelled]').waitFor({ timeout: 15000 })
  await finish()
  return `${rows} variants`
}
