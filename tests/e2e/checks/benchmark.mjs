/** Live benchmarks from the page: a sweep that streams, a reload that rejoins it, the history, a comparison, a stop. */
import { assert, equal, openPage, settled } from '../lib.mjs'
import { axe, sizes } from './looks.mjs'

const SLOW = 90_000
const runOf = (page) => new URL(page.url()).searchParams.get('run')
const state = (page, name, timeout = SLOW) =>
  page.locator(`#benchmark [data-run=${name}]`).waitFor({ state: 'attached', timeout })

/** From the top, where the sticky bar covers nothing that is meant to be pressed. */
async function inspect(page, what) {
  await page.evaluate(() => {
    window.dispatchEvent(new Event('wheel')) // whoever scrolls is no longer taken to the address's section
    window.scrollTo(0, 0)
  })
  await axe(page, what)
}

async function begin(page, settings) {
  await page.locator('#benchmark .start details').evaluate((details) => (details.open = true))
  for (const [id, value] of Object.entries(settings)) await page.locator(`#bench-${id}`).selectOption(value)
  const before = runOf(page)
  await page.locator('[data-action=start-benchmark]').click()
  await page.waitForFunction((old) => ![null, old].includes(new URLSearchParams(location.search).get('run')), before, {
    timeout: SLOW,
  })
}

/** A ratio as the page writes it. */
const figure = (value) => `${value.toFixed(value >= 10 ? 1 : value >= 2 ? 2 : 3)}×`

/** A sweep: announced, streamed, rejoined after a reload, and told as the API tells it. */
async function sweep(page, url) {
  assert(
    /30\ss.*7 values of tokens/.test(await page.locator('[data-part=plan]').innerText()),
    'the form says in advance how long and what',
  )
  await begin(page, { axis: 'tokens', width: '512', cache: 'hot', seconds: '3' })
  await page.locator('#benchmark progress').waitFor()
  const id = runOf(page)
  await page.locator('[data-curve]').first().waitFor({ state: 'attached', timeout: SLOW })
  await page.reload()
  await state(page, 'done')
  equal(runOf(page), id, 'a reload stays with its run')
  const result = await (await fetch(`${url}/api/benchmarks/${id}`)).json()
  assert(result.points.length >= 2, `a sweep has points: ${JSON.stringify(result.skipped)}`)
  const ratios = result.points.map((point) => point.recommendation.ratio)
  const line = await page.locator('[data-part=verdict] .line').innerText()
  for (const value of [Math.min(...ratios), Math.max(...ratios)])
    assert(line.includes(figure(value)), `the verdict has the API's numbers: ${line}, ${value}`)
  equal(await page.locator('[data-part=skipped] li').count(), result.skipped.length, 'every skipped point says why')
  equal(
    await page.locator('[data-part=doubt]').count(),
    result.warnings.length > 0 ? 1 : 0,
    'a run that doubts itself says so',
  )
  return { id, result }
}

/** The chart by keyboard, its other view, and its table. */
async function chart(page, result) {
  const slider = page.locator('[data-part=point] input')
  await slider.focus()
  await page.keyboard.press('Home')
  const first = result.points.find((point) => point.value === Math.min(...result.points.map((item) => item.value)))
  await page.locator('#benchmark h3', { hasText: `All variants at ${first.value} token` }).waitFor()
  assert((await slider.getAttribute('aria-valuetext')).includes('×'), 'the slider says the ratios of its point')
  const shown = await page
    .locator('[data-variant]')
    .evaluateAll((rows) => rows.map((row) => [row.dataset.variant, row.querySelector('b').textContent]))
  assert(shown.length >= 4, `only ${shown.length} ways at ${first.value} tokens`)
  for (const [id, text] of shown)
    equal(text, figure(first.rows.find((row) => row.id === id).ratio.median), `ratio of ${id}`)
  await page.locator('[data-view=roofline]').click()
  await page.locator('[data-curve=dense]').waitFor({ state: 'attached' })
  await page.locator('[data-view=ratio]').click()
  await page.locator('#benchmark figure').first().getByRole('button', { name: 'Show as table' }).click()
  equal(
    await page.locator('#benchmark figure tbody tr').count(),
    result.points.length + result.skipped.length,
    'the table has every value of the axis',
  )
}

/** The race once more: moved by hand, played, paused. */
async function rewind(page) {
  const race = page.locator('[data-race]')
  await race.waitFor()
  const leaders = () => race.locator('ul').innerText()
  const end = await leaders()
  await race.locator('input').press('Home')
  assert((await leaders()) !== end, 'the race can be rewound')
  await race.locator('[data-race-play]').click()
  await race.locator('[data-race-play]').filter({ hasText: 'Pause' }).click()
  assert(Number(await race.locator('input').inputValue()) < 100, 'and paused on its way')
}

/** A second run, held against the first; the comparison is part of the address and says what the API says. */
async function compare(page, url, first) {
  await begin(page, { axis: 'none', tokens: '1', width: '512', cache: 'hot', seconds: '3' })
  await state(page, 'done')
  await rewind(page)
  const second = runOf(page)
  await page.locator('[data-part=history] summary').click()
  await page.locator(`[data-past="${second}"] .badge.lora`).waitFor()
  await page.locator(`[data-past="${first}"] [data-action=compare-benchmark]`).click()
  await page.locator('[data-compared]').first().waitFor()
  await page.waitForFunction((id) => new URLSearchParams(location.search).get('vs') === id, first)
  const told = await (await fetch(`${url}/api/benchmarks/compare?a=${first}&b=${second}`)).json()
  equal(told.points.length, 1, 'one point in common')
  equal(await page.locator('[data-compared]').count(), told.points[0].rows.length, 'every way is compared')
  const count = (word) => told.points[0].rows.filter((row) => row.verdict === word).length
  const said = await page.locator('[data-part=said]').innerText()
  assert(
    said.startsWith(`${count('faster')} faster, ${count('slower')} slower, ${count('same')} the same`),
    `the comparison counts as the API does: ${said}`,
  )
  await page.reload()
  await page.locator('[data-compared]').first().waitFor({ timeout: SLOW })
  await inspect(page, 'a comparison')
  await page.locator('[data-part=history] summary').click()
  await page.locator(`[data-past="${first}"] button`).first().click()
  await page.waitForFunction((id) => new URLSearchParams(location.search).get('run') === id, first)
  await page.locator('[data-curve]').first().waitFor({ state: 'attached' })
}

/** A run is gone for good after the second press, and only then. */
async function remove(page) {
  const id = runOf(page)
  await page.locator('[data-part=history]').evaluate((details) => (details.open = true))
  const button = page.locator(`[data-past="${id}"] [data-action=remove-benchmark]`)
  await button.click()
  equal(await button.innerText(), 'Delete for good?', 'deleting is asked twice')
  await button.click()
  await page.locator(`[data-past="${id}"]`).waitFor({ state: 'detached' })
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('run'))
}

async function stop(page) {
  await begin(page, { axis: 'none', seconds: '60' })
  await state(page, 'running')
  await page.locator('[data-action=cancel-benchmark]').click()
  await state(page, 'cancelled', 20_000)
}

/** This machine's own rates: begun, taken up after a reload, and stopped. */
async function calibration(page, url) {
  const part = page.locator('#benchmark [data-step-times]')
  await part.locator('[data-action=calibrate]').click()
  // The bar shows while the request is on its way; only a job that the server took may be asked for.
  await part.locator('[data-run=queued], [data-run=running]').waitFor()
  const running = async () => (await (await fetch(`${url}/api/calibrations`)).json()).running
  const job = await running()
  assert(job, 'the server says that it calibrates')
  await page.reload()
  await part.locator('progress').waitFor({ timeout: SLOW })
  equal(await running(), job, 'the same job runs')
  await part.locator('[data-action=cancel-calibration]').click()
  await part.locator('[data-run=cancelled]').waitFor({ timeout: SLOW })
}

/** A link to a run that is not here, and then the one that comes with the page: never the one under the other's name. */
async function recorded(context) {
  const { page, finish } = await openPage(context, {
    path: '/part2?embed=benchmark&run=no-such-run',
    lang: 'en',
    expected: ['404'],
  })
  await page.locator('[data-run=gone]').waitFor()
  await page.locator('[data-action=show-recorded]').click()
  await page.locator('#benchmark [data-recorded]').waitFor()
  equal(await page.locator('[data-run=gone]').count(), 0, 'what was missing is not spoken of any more')
  equal(await page.getByRole('button', { name: 'Copy link to this run' }).count(), 0, 'its link would lead nowhere')
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('run'))
  await finish()
}

/** A run that the server refuses to begin: the one before is still a press away. */
async function refused(context, id) {
  const { page, finish } = await openPage(context, {
    path: `/part2?embed=benchmark&run=${id}`,
    lang: 'en',
    expected: ['503'],
  })
  await page.locator('[data-part=verdict]').waitFor({ timeout: SLOW })
  await page.route('**/api/benchmarks', (route) =>
    route.request().method() === 'POST'
      ? route.fulfill({
          status: 503,
          contentType: 'application/problem+json',
          body: JSON.stringify({ title: 'Busy', status: 503, code: 'busy', detail: 'no place in the queue' }),
        })
      : route.fallback(),
  )
  await page.locator('[data-action=start-benchmark]').click()
  await state(page, 'failed')
  await page.waitForFunction(() => !new URLSearchParams(location.search).has('run'))
  await page.locator('[data-action=open-last]').click()
  await page.locator('[data-part=verdict]').waitFor({ timeout: SLOW })
  await finish()
}

export default async function benchmark(context) {
  await recorded(context)
  let { page, finish } = await openPage(context, { lang: 'en', path: '/part2#benchmark' })
  await settled(page)
  await page.locator('#bench-seconds').waitFor()
  await page.locator('[data-action=show-recorded]').click()
  await page.locator('#benchmark [data-recorded]').waitFor()
  const { id, result } = await sweep(page, context.url)
  equal(await page.locator('#benchmark [data-recorded]').count(), 0, "what is measured here is not said to be others'")
  await chart(page, result)
  await compare(page, context.url, id)
  await stop(page)
  await remove(page)
  await calibration(page, context.url)
  await finish()

  // The shared link on a phone, in the other language.
  ;({ page, finish } = await openPage(context, { path: `/part2?run=${id}#benchmark`, theme: 'dark', width: 360 }))
  await settled(page)
  await page.locator('[data-part=verdict]').waitFor()
  await page.locator('#benchmark details').evaluateAll((all) => all.forEach((details) => (details.open = true)))
  await page.locator(`[data-past="${id}"]`).waitFor()
  equal(
    await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
    0,
    'sideways scroll on a phone',
  )
  await inspect(page, 'a run on a phone')
  await sizes(page, true, 'a run on a phone')
  await finish()

  ;({ page, finish } = await openPage(context, {
    path: '/part2?embed=benchmark&run=no-such-run',
    lang: 'en',
    expected: ['404'],
  }))
  await page.locator('[data-run=gone]').waitFor()
  await finish()
  await refused(context, id)
  return `${result.points.length} points, ${result.skipped.length} skipped`
}
