/** Speed and motion: no animation for those who want none; frame rates and latency are reported. */
import { assert, equal, openPage, settled, showEverything } from '../lib.mjs'

const running = (page) =>
  page.evaluate(() => document.getAnimations().filter((animation) => animation.playState === 'running').length)

/** Without motion, each animation is a row of steps; nothing ever runs. */
async function steps(context) {
  const { page, finish } = await openPage(context, { lang: 'en', reducedMotion: 'reduce', path: '/part2?n=50' })
  await settled(page)
  await showEverything(page)
  for (const section of ['#decomposition', '#hub']) {
    const box = page.locator(`${section} [data-steps]`)
    await box.scrollIntoViewIfNeeded()
    equal(await box.locator('[data-step]').innerText(), 'Step 1 of 4', `${section} begins at its first step`)
    const seen = new Set()
    for (let step = 1; step <= 4; step++) {
      seen.add(await box.locator('p').innerText())
      equal(await running(page), 0, `running animations in ${section}, step ${step}`)
      await box.locator('button').last().focus()
      await page.keyboard.press('Enter')
    }
    equal(seen.size, 4, `${section} says something new at each step`)
    equal(await box.locator('[data-step]').innerText(), 'Step 4 of 4', `${section} stops at its last step`)
    await box.locator('button').first().click()
    equal(await box.locator('[data-step]').innerText(), 'Step 3 of 4', `${section} goes back`)
  }
  equal(
    await page.locator('[role=radio][aria-checked=true]').getAttribute('aria-label'),
    'Email summary',
    'the step back took the switch back',
  )
  // The recorded training: whole at first, and shorter by each step back.
  const training = page.locator('#forgetting [data-steps]')
  await training.scrollIntoViewIfNeeded()
  const curve = () => page.locator('#forgetting .charts svg').first().innerHTML()
  const whole = await curve()
  const said = await training.locator('p').innerText()
  await training.locator('button').first().click()
  assert((await curve()) !== whole, 'a step back takes the end of the curves away')
  assert((await training.locator('p').innerText()) !== said, 'and says how far they go')
  await training.locator('button').last().click()
  equal(await curve(), whole, 'the last step shows all of them')
  equal(
    await page.locator('#forgetting').getByRole('button', { name: 'Replay', exact: true }).count(),
    0,
    'no button that would do nothing',
  )
  await finish()
}

/** With motion, what runs can be stopped and moved by hand. */
async function pausing(context) {
  const { page, finish } = await openPage(context, { lang: 'en' })
  await settled(page)
  await showEverything(page)
  await page.locator('#hub [role=radiogroup]').scrollIntoViewIfNeeded()
  await page.waitForFunction(() =>
    document
      .getAnimations()
      .some((animation) => animation.playState === 'running' && animation.animationName?.startsWith('flow')),
  )
  await page.locator('[data-flow]').click()
  equal(
    await page.evaluate(
      () =>
        document
          .getAnimations()
          .filter((animation) => animation.playState === 'running' && animation.animationName?.startsWith('flow'))
          .length,
    ),
    0,
    'the flow is paused',
  )
  const offset = () => page.evaluate(() => getComputedStyle(document.querySelector('#hub .link.on')).strokeDashoffset)
  const before = await offset()
  await page.locator('#hub .flow input').fill('40')
  assert((await offset()) !== before, 'the slider moves what is paused')
  await page.locator('[data-flow]').click()
  await page.waitForFunction(() =>
    document
      .getAnimations()
      .some((animation) => animation.playState === 'running' && animation.animationName?.startsWith('flow')),
  )
  // The peel: play, stop, move.
  const slider = page.locator('#decomposition .peel input')
  await page.locator('[data-peel]').click()
  await page.waitForFunction(() => Number(document.querySelector('#decomposition .peel input').value) === 100)
  await slider.press('Home')
  equal(await slider.inputValue(), '0', 'and it can be moved back by hand')
  await finish()
}

export default async function motion(context) {
  await steps(context)
  await pausing(context)
  let page, finish

  ;({ page, finish } = await openPage(context, { path: '/part2?n=50' }))
  await settled(page)
  await showEverything(page)
  await page.locator('#hub [role=radiogroup]').scrollIntoViewIfNeeded()
  await page.waitForTimeout(500)
  const frames = await page.evaluate(
    () =>
      new Promise((done) => {
        let count = 0
        const start = performance.now()
        const tick = (now) => {
          count += 1
          if (now - start < 1500) requestAnimationFrame(tick)
          else done((1000 * count) / (now - start))
        }
        requestAnimationFrame(tick)
      }),
  )
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
