/** Several GPUs: the plans that the page lists, each with what one GPU needs, and one of them applied. */
import { assert, openPage, settled } from '../lib.mjs'

export default async function plans(context) {
  const { page, finish } = await openPage(context, {
    path: '/part2?m=llama-2-70b&k=lora&gpus=8&strategy=ddp',
    lang: 'en',
  })
  await settled(page)
  await page.locator('#fit').scrollIntoViewIfNeeded()
  await page.locator('[data-holds]').scrollIntoViewIfNeeded()
  await page.locator('[data-stage]').first().waitFor({ timeout: 60_000 })
  assert((await page.locator('[data-stage] .tile').count()) === 8, 'a tile for each GPU')
  await page.locator('[data-holds] summary').focus()
  await page.keyboard.press('Enter')
  assert((await page.locator('[data-holds] tbody tr').count()) === 1, 'one row: all GPUs hold alike')
  await page.locator('[data-plans]').scrollIntoViewIfNeeded()
  const rows = page.locator('[data-plans] li')
  await rows.first().waitFor({ timeout: 60_000 }) // three searches one after the other
  assert((await rows.first().locator('[data-number=plan-needs]').innerText()).includes('GiB'), 'what one GPU needs')
  await rows.first().locator('summary').click()
  assert((await rows.first().locator('pre').first().innerText()).includes('num_processes: 8'), 'a config to paste')
  await rows.first().locator('[data-plan]').click()
  await page.waitForFunction(() => location.search.includes('fsdp2') || location.search.includes('tp='))
  await finish()
}
