/** Speed and motion: no animation for those who want none; frame rates and latency are reported. */
import { assert, equal, openPage, settled, showEverything } from '../lib.mjs'

export default async function motion(context) {
  let { page, finish } = await openPage(context, { reducedMotion: 'reduce', path: '/part2?n=50#hub' })
  await settled(page)
  await page.locator('#hub [role=radiogroup]').scrollIntoViewIfNeeded()
  await page.waitForTimeout(300)
  equal(await page.evaluate(() => document.getAnimations().filter((animation) => animation.playState === 'running').length), 0, 'running animations under reduced motion')
  await finish()

  ;({ page, finish } = await openPage(context, { path: '/part2?n=50' }))
  await settled(page)
  await showEverything(page)
  await page.locator('#hub [role=radiogroup]').scrollIntoViewIfNeeded()
  await page.waitForTimeout(500)
  const frames = await page.evaluate(() => new Promise((done) => {
    let count = 0
    const start = performance.now()
    const tick = (now) => {
      count += 1
      if (now - start < 1500) requestAnimationFrame(tick)
      else done((1000 * count) / (now - start))
    }
    requestAnimationFrame(tick)
  }))
  await page.locator('#decomposition').scrollIntoViewIfNeeded()
  const latency = await page.evaluate(async () => {
    const slider = document.querySelector('#decomposition input[type=range]')
    const times = []
    for (let step = 0; step < 60; step++) {
      slider.value = String(step % 10)
      const start = performance.now()
      slider.dispatchEvent(new Event('input', { bubbles: true }))
      // Painted: the frame after the one in which the change was rendered has begun.
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)))
      times.push(performance.now() - start)
    }
    return times.sort((a, b) => a - b)
  })
  assert(latency.length === 60, 'measured')
  await finish()
  return `hub with 50 adapters ${frames.toFixed(0)} fps; slider to paint p50 ${latency[30].toFixed(0)} ms, p95 ${latency[57].toFixed(0)} ms`
}
