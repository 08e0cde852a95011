/** The story of one step: its numbers are the API's, it follows scroll, slider and keys, it steps where motion is unwanted. */
import { assert, equal, openPage, post, settled } from '../lib.mjs'

const MODEL = 'qwen2.5-0.5b'

async function opened(context, options) {
  const { page, finish } = await openPage(context, { lang: 'en', ...options, path: `/part2?m=${MODEL}#story` })
  await settled(page)
  await page.locator('[data-story] canvas').waitFor()
  // As a reader who scrolls: the page then no longer follows the address.
  await page.evaluate(() => window.dispatchEvent(new WheelEvent('wheel')))
  return { page, finish }
}

/** The picture as text, to tell two apart. */
const drawn = async (page) => {
  await page.evaluate(() => new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted))))
  return page.evaluate(() => document.querySelector('[data-story] canvas').toDataURL())
}

const scroll = (page, card) =>
  page.evaluate((id) => {
    const element = document.querySelector(`[data-step-card=${id}]`)
    const stage = document.querySelector('[data-story]').getBoundingClientRect()
    const wide = innerWidth > 62 * 16
    const line = wide ? innerHeight * 0.5 : stage.bottom + (innerHeight - stage.bottom) * 0.45
    window.scrollBy(0, element.getBoundingClientRect().top + 24 - line + 2)
  }, card)

async function numbers({ page, url }) {
  const answer = await post(url, '/api/lifetimes', { model: MODEL, methods: ['full', 'lora'], recipe: { micro_batch_size: 1, sequence_length: 2048, lora: { rank: 8 } } }) // prettier-ignore
  const gib = (bytes) => (bytes / 2 ** 30).toFixed(bytes / 2 ** 30 >= 10 ? 1 : 2)
  for (const { method, kinds, resting, peak_bytes: peak } of answer.lifetimes) {
    const before = resting.kind.reduce((sum, kind) => sum + kinds[kind].bytes, 0)
    const text = await page.locator('[data-step-card=before] table').innerText()
    assert(text.includes(`${gib(before)}\u00a0GiB`), `before the step ${method} has ${gib(before)} GiB: ${text}`)
    const last = await page.locator('[data-step-card=after] p').innerText()
    assert(last.includes(`${gib(peak)}\u00a0GiB`), `the fullest moment of ${method} is ${gib(peak)} GiB: ${last}`)
  }
}

async function byHand(page) {
  const slider = page.locator('[data-story] input[type=range]')
  await scroll(page, 'loss')
  await page.waitForFunction(() => document.querySelector('[data-step-card=loss]').classList.contains('on'))
  const there = await drawn(page)
  await slider.focus()
  await page.keyboard.press('Home')
  equal(await slider.inputValue(), '0', 'Home is before the step')
  assert((await drawn(page)) !== there, 'the picture follows the slider')
  await page.keyboard.press('End')
  assert((await slider.getAttribute('aria-valuetext')).startsWith('Before the next step, Full'), 'and says where it is')
}

/** Frames while the page is scrolled through the whole step. */
async function frames(page) {
  await scroll(page, 'before')
  await page.waitForTimeout(300)
  return page.evaluate(async () => {
    const cards = document.querySelectorAll('[data-step-card]')
    const from = window.scrollY
    const way = cards[cards.length - 1].getBoundingClientRect().top - cards[0].getBoundingClientRect().top
    let count = 0
    const begun = performance.now()
    await new Promise((done) => {
      const tick = (now) => {
        const share = (now - begun) / 4000
        if (share >= 1) return done()
        count += 1
        window.scrollTo(0, from + way * share)
        requestAnimationFrame(tick)
      }
      requestAnimationFrame(tick)
    })
    return (1000 * count) / (performance.now() - begun)
  })
}

async function still(context) {
  const { page, finish } = await opened(context, { reducedMotion: 'reduce', width: 390 })
  const step = page.locator('[data-story] [data-step]')
  const box = page.locator('[data-story] [data-steps]')
  await scroll(page, 'before')
  await page.waitForTimeout(100)
  const seen = new Set()
  const count = Number(/of (\d+)/.exec(await step.innerText())[1])
  for (let n = 1; n <= count; n++) {
    equal(await step.innerText(), `Step ${n} of ${count}`, 'one step each')
    seen.add(await drawn(page))
    await box.locator('button').last().focus()
    await page.keyboard.press('Enter')
  }
  assert(seen.size >= count - 1, `a picture each: ${seen.size} of ${count}`)
  equal(
    await page.evaluate(() => document.documentElement.scrollWidth - innerWidth),
    0,
    'nothing is cut off on a phone',
  )
  await finish()
}

export default async function story(context) {
  const { page, finish } = await opened(context, { width: 1440 })
  await numbers({ page, url: context.url })
  await byHand(page)
  const rate = await frames(page)
  await finish()
  await still(context)
  return `${rate.toFixed(0)} frames a second while scrolling`
}
